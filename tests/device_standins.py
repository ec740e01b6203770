"""Phones and boards for tests: device-side daemons whose commands run natively or under QEMU.

A native stand-in is quick and runs a shell script instead of our runner; an arm64 one runs every command, the
shell included, as arm64 code under proot and QEMU in a root folder of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import device_tools

from edgeopt.android_harness.payload import Payload

PIXEL7 = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 7",
    "ro.product.device": "panther",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "GS201",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  level: 81
  scale: 100
  voltage: 4321
  temperature: 287
"""
THERMAL = """IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
	Temperature{mValue=55.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=41.5, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=38.1, mType=0, mName=LITTLE, mStatus=0}
	Temperature{mValue=30.2, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""


def free_port() -> int:
    """A TCP port outside 5555-5585, which adb scans for emulators."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 5037 <= port <= 5700:
            return port


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def phone_tools(
    folder: Path, serial: str, properties: Mapping[str, str] = PIXEL7, machine: str = "aarch64"
) -> None:
    """getprop, dumpsys, settings and uname of a phone, as shell scripts that print files beside them."""
    lines = {**properties, "ro.serialno": serial}
    write_script(folder / "props.txt", "".join(f"[{key}]: [{value}]\n" for key, value in lines.items()))
    write_script(folder / "battery.txt", BATTERY)
    write_script(folder / "thermalservice.txt", THERMAL)
    write_script(folder / "power.txt", "  mWakefulness=Awake\n")
    write_script(folder / "getprop", '#!/bin/sh\ncat "${0%/*}/props.txt"\n')
    write_script(folder / "dumpsys", '#!/bin/sh\ncat "${0%/*}/${1%%/*}.txt"\n')
    write_script(folder / "taskset", '#!/bin/sh\nshift\nexec "$@"\n')
    write_script(folder / "settings", "#!/bin/sh\necho 0\n")
    write_script(
        folder / "uname", f'#!/bin/sh\ncase "$1" in -m) echo {machine};; *) echo 5.10.157-android13;; esac\n'
    )


REPORT = (
    '{"runner": 1, "runtime": "litert", "runtime_version": "2.3.0", "load_ms": 3.5, "first_inference_ms": 2.5, '
    '"runs_ms": [1.0, 1.01, 0.99, 1.02, 1.0, 1.0, 0.98, 1.01], "peak_memory_kib": 20480, '
    '"planned_memory_bytes": 4096, "threads": 1, "cpu_features": ["neon"], "uarch": "0x300347", '
    '"inputs": [], "outputs": [], "profile": null}'
)


def fake_payload(folder: Path, body: str = "") -> Payload:
    """A runner that is a shell script: it prints the lines of cpuinfo as LiteRT does, then a report."""
    runner = folder / "fake_runner"
    write_script(runner, f"#!/bin/sh\n{body}\necho INFO: Created\ncat <<'END'\n{REPORT}\nEND\n")
    return Payload("litert", {"fake_runner": runner}, ("./fake_runner",))


class NativePhone:
    """The folders of a native stand-in, and how its daemon starts a shell."""

    def __init__(self, folder: Path, serial: str = "28281FDH", machine: str = "aarch64") -> None:
        self.tools = folder / "bin"
        self.base = folder / "data local tmp"  # a space, so that forgotten quotes show
        self.base.mkdir(parents=True)
        phone_tools(self.tools, serial, machine=machine)

    def shell(self, line: str) -> tuple[list[str], dict[str, str]]:
        return ["/bin/sh", "-c", line], {"PATH": f"{self.tools}:/usr/bin:/bin", "HOME": str(self.base)}

    def root(self, path: str) -> Path:
        return Path(path)

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.base.iterdir())

    def processes(self) -> list[int]:
        """Processes that still work in one of the private folders."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                place = str((entry / "cwd").readlink())
            except OSError:
                continue
            if place.startswith(str(self.base) + "/"):
                found.append(int(entry.name))
        return found


APPLETS = "sh ls cat echo sleep sha256sum timeout taskset mkdir rm grep head tr kill id env chmod printf rmdir uname"


class Arm64Root:
    """A root folder in which everything is arm64 code under QEMU (proot, no privileges)."""

    def __init__(self, folder: Path, core: str = "cortex-a76") -> None:
        from edgeopt.android_harness.emulator.cpu import Cpu, write_identity
        from edgeopt.android_harness.emulator.toolchain import load

        self.toolchain = load()
        self.proot = device_tools.fetch("proot")
        self.root_folder = folder
        self.seen: list[str] = []  # the shell lines that were run
        (folder / "bin").mkdir(parents=True)
        shutil.copy(device_tools.fetch("busybox") / "bin" / "busybox", folder / "bin" / "busybox")
        for name in APPLETS.split():
            (folder / "bin" / name).symlink_to("busybox")
        for name in ("dev", "tmp", "proc", "etc", "data/local/tmp", "home/pi"):
            (folder / name).mkdir(parents=True)
        isa = ("neon", "fp16", "dotprod") if core == "cortex-a76" else ("neon",)
        write_identity(Cpu(core, 4, 1800, isa, 32, 512, None, core), folder)
        self.qemu = f"{self.toolchain.qemu} -cpu {core} -U LD_LIBRARY_PATH -U PROOT_NO_SECCOMP"

    def command(self, line: str, home: str = "/") -> tuple[list[str], dict[str, str]]:
        """proot with the host's /proc and /dev, but the device's own /proc/cpuinfo."""
        words = [
            str(self.proot / "usr" / "bin" / "proot"), "-q", self.qemu, "-r", str(self.root_folder),
            "-b", "/proc", "-b", "/dev", "-b", f"{self.root_folder}/proc/cpuinfo:/proc/cpuinfo",
        ]  # fmt: skip
        tree = self.root_folder / "device-tree-model"
        if tree.exists():
            words += ["-b", f"{tree}:/proc/device-tree/model"]
        # A signal's exit code comes through proot only when a shell stays to pass it on.
        words += ["-w", home, "/bin/sh", "-c", f"{line}\nexit $?"]
        libraries = f"{self.toolchain.host_libraries}:{device_tools.library_path(self.proot)}"
        environment = {
            "LD_LIBRARY_PATH": libraries, "PROOT_NO_SECCOMP": "1", "PATH": "/system/bin:/bin", "HOME": home,
            "PROOT_TMP_DIR": str(self.root_folder / "tmp"),
        }  # fmt: skip
        return words, environment

    def shell(self, line: str) -> tuple[list[str], dict[str, str]]:
        return self.command(line)

    def root(self, path: str) -> Path:
        return self.root_folder / path.lstrip("/")

    def leftovers(self) -> list[str]:
        folders = (self.root_folder / "data/local/tmp", self.root_folder / "home/pi")
        return sorted(path.name for folder in folders for path in folder.iterdir() if "edgeopt" in path.name)


class OpenSshServer:
    """Debian's sshd as an ordinary process on loopback; each login's command goes through ``force``."""

    def __init__(self, folder: Path, force: Path | None = None) -> None:
        self.port = free_port()
        self.folder = folder
        self._made = False
        tools = device_tools.fetch("sshd")
        for name in ("host_key", "user_key"):
            self._keygen(folder / name)
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        (folder / "authorized_keys").chmod(0o600)
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "UsePAM no",
            f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "PasswordAuthentication no",
            f"PidFile {folder}/sshd.pid", "PermitRootLogin yes", "MaxStartups 100",
        ]  # fmt: skip
        if force is not None:
            lines.append(f"ForceCommand {force}")
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        key = (folder / "host_key.pub").read_text().split()
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n")
        self.config = folder / "ssh_config"
        self.config.write_text("")
        self._command = [str(tools / "usr/sbin/sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
        self._environment = {**os.environ, "LD_LIBRARY_PATH": device_tools.library_path(tools)}
        if os.getuid() == 0:
            self._become_a_system_service(tools)
        self.start()

    def start(self) -> None:
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                __import__("time").sleep(0.05)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        """End the server and every connection it serves."""
        for child in _descendants(self._process.pid):
            _kill(child)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def close(self) -> None:
        self.stop()
        if self._made:
            Path("/run/sshd").rmdir()

    def _become_a_system_service(self, tools: Path) -> None:
        """Root's sshd wants a user ``sshd`` and a folder: the user by nss_wrapper, the folder as init makes it."""
        passwd = self.folder / "passwd"
        passwd.write_text("root:x:0:0:root:/root:/bin/sh\nsshd:x:65534:65534::/run/sshd:/usr/sbin/nologin\n")
        (self.folder / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        self._environment |= {
            "LD_PRELOAD": str(next(tools.rglob("libnss_wrapper.so*"))),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(self.folder / "group"),
        }
        self._made = not Path("/run/sshd").exists()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    @staticmethod
    def _keygen(path: Path) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, capture_output=True
        )


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(words[1]), []).append(int(entry.parent.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def executable(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
