"""The emulated device as a target: push files, run arm64 programs, pull results, as on a phone or a board."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ...errors import EdgeoptError
from ...runtimes.scratch import ScratchFolder
from ..target import Execution, TargetInfo
from .cpu import Cpu, cpu_of, write_identity
from .toolchain import load

if TYPE_CHECKING:
    from ...device_profiles import DeviceProfile


class EmulatorTarget:
    """A board with the CPU of a profile and an empty disk; its life ends with :meth:`close`.

    Remote paths are those of the emulated device: ``/data/local/tmp/x`` and ``data/local/tmp/x`` are the
    same file. There is no C library on it, as on an Android phone: a program brings its own
    (:func:`payload`). What is timed on it is QEMU's time and no device's.
    """

    name = "emulator"
    grade = "emulated"

    def __init__(self, profile: DeviceProfile | Cpu, *, cluster: int | None = None) -> None:
        self.cpu = profile if isinstance(profile, Cpu) else cpu_of(profile, cluster)
        self._device = profile.core if isinstance(profile, Cpu) else profile.name
        self._toolchain = load()
        self._disk = ScratchFolder("board")
        self._folder = Path(self._disk.name)
        self._root = self._folder / "root"
        write_identity(self.cpu, self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the board's disk."""
        self._disk.cleanup()

    def describe(self) -> TargetInfo:
        """The emulated device."""
        facts = {
            "core": self.cpu.core,
            "qemu_cpu": self.cpu.qemu_cpu,
            "qemu": self._toolchain.manifest["qemu"],
        }
        return TargetInfo(self.name, f"emulated {self._device}", "arm64", facts)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the board."""
        target = self._path(remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(local, target)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the board."""
        source = self._path(remote)
        if not source.is_file():
            raise EdgeoptError(f"{remote} is not on the emulated {self._device}.")
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, local)

    def execute(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        folder: str = "/",
    ) -> Execution:
        """Run an arm64 program that was pushed, with ``folder`` as its working folder.

        Raises:
            EdgeoptError: no such program, or it did not end in time.
        """
        program = self._path(f"{folder}/{command[0]}" if not command[0].startswith("/") else command[0])
        if not program.is_file():
            raise EdgeoptError(f"{command[0]} is not on the emulated {self._device}.")
        qemu = [str(self._toolchain.qemu), "-L", str(self._root), "-cpu", self.cpu.qemu_cpu, "-seed", "1"]
        qemu += ["-U", "LD_LIBRARY_PATH", "-0", command[0]]
        for name, value in (environment or {}).items():
            qemu += ["-E", f"{name}={value}"]
        try:
            done = subprocess.run(
                [*qemu, str(program), *command[1:]],
                cwd=self._path(folder),
                env={"LD_LIBRARY_PATH": self._toolchain.host_libraries},
                capture_output=True,
                timeout=timeout_s,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EdgeoptError(f"{command[0]} did not end within {timeout_s:g} s on emulator.") from None
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        return Execution(done.returncode, out, err)

    def remove(self, remote: str) -> None:
        """Delete a file or a folder; absent is fine."""
        path = self._path(remote)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _path(self, remote: str) -> Path:
        """Where a path of the board lies here; it cannot lead out of the board."""
        parts = [part for part in remote.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise EdgeoptError(f"{remote} leads out of the emulated board; give a path without '..'.")
        return self._root.joinpath(*parts)
