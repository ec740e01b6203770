"""Sets up everything the emulator needs, once, in the user's cache, without root.

    apt (private) → host tools (QEMU, cross compiler) → arm64 sysroot → runtime SDKs → runners and counter

Every step leaves a folder that takes its place in one move, so that a killed set-up goes on where it
stopped. The manifest lists each archive and wheel with its hash, and each file that is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle import sha256_of
from ...errors import EdgeoptError
from . import build, debian, wheels
from .cache import cache_dir, locked, read_json, replacing, write_json

Progress = Callable[[str, float | None], None]

SCHEMA = 2
PACKAGES = ("qemu-user", "g++-12-aarch64-linux-gnu")
HOST_COMPILER = "gcc-12"
_BATCH = 8  # archives fetched by one call of apt-get
# Sanitizer and OpenMP runtimes of the cross compiler: 9 MB that nothing here links.
UNWANTED_PREFIXES = ("libasan", "liblsan", "libtsan", "libubsan", "libhwasan", "libitm", "libgomp")
# The host's programs run on the host's own C library: two of them in one process would not.
UNWANTED = ("libc6", "libcrypt1")
# The arm64 C and C++ libraries a runner needs beside itself, on the emulator and on any board.
SYSROOT_LIBRARIES = (
    "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
    "libstdc++.so.6", "libgcc_s.so.1",
)  # fmt: skip


@dataclass(frozen=True)
class Toolchain:
    """Paths of a finished set-up."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def qemu(self) -> Path:
        return self.folder / "host" / "usr" / "bin" / "qemu-aarch64"

    @property
    def host_libraries(self) -> str:
        """``LD_LIBRARY_PATH`` for the unpacked host programs."""
        return build.library_path(self.folder / "host")

    @property
    def sysroot(self) -> Path:
        return self.folder / "sysroot"

    @property
    def programs(self) -> Path:
        """The folder with the runners and the counter plugin."""
        return self.folder / "programs"

    @property
    def counter(self) -> Path:
        return self.programs / "counter.so"

    def runner(self, runtime: str) -> Path:
        """The arm64 runner of ``"executorch"`` or ``"litert"``."""
        return self.programs / f"{runtime}_runner"

    def runtime_libraries(self, runtime: str) -> list[Path]:
        """The shared libraries the runner links, in the runtime's SDK folder."""
        sdk = self.folder / f"sdk-{runtime}"
        return sorted(sdk.rglob("lib*.so"))

    def payload(self, runtime: str) -> dict[str, Path]:
        """What a board needs to run a model: remote file name → local file.

        Start it there with ``./ld-linux-aarch64.so.1 --library-path . ./<runtime>_runner ...``: the
        loader and the C library come along, so nothing has to be installed on the board.
        """
        files = {name: self.sysroot / "lib" / name for name in SYSROOT_LIBRARIES}
        files.update({path.name: path for path in self.runtime_libraries(runtime)})
        files[f"{runtime}_runner"] = self.runner(runtime)
        return files

    @property
    def fingerprint(self) -> str:
        """Changes whenever anything changes that can change an instruction count."""
        return str(self.manifest["fingerprint"])


def setup(progress: Progress | None = None) -> Toolchain:
    """Make the toolchain, or what is missing of it; at once when it is complete.

    Raises:
        EdgeoptError: something could not be fetched, unpacked or built; the sentence says what to do.
    """
    say = progress or (lambda what, fraction: None)
    folder = cache_dir()
    with locked(folder):
        done = _complete(folder)
        if done is not None:
            return done
        _install(folder, say)
    finished = _complete(folder)
    if finished is None:
        raise EdgeoptError(
            f"the emulator's set-up in {folder} is not complete; remove that folder and run it again"
        )
    return finished


def load() -> Toolchain:
    """The finished toolchain.

    Raises:
        EdgeoptError: it is missing, damaged, or made for other versions of the runtimes.
    """
    folder = cache_dir()
    done = _complete(folder)
    if done is None:
        state = "is out of date or damaged" if (folder / "manifest.json").exists() else "is not set up"
        raise EdgeoptError(f"the arm64 emulator {state}; run: edgeopt emulator setup")
    return done


def payload(runtime: str) -> dict[str, Path]:
    """What a real board needs to run a runtime's models: see :meth:`Toolchain.payload`."""
    return load().payload(runtime)


def verify(toolchain: Toolchain) -> list[str]:
    """Names of the files whose hash is no longer the manifest's."""
    return [
        name
        for name, entry in toolchain.manifest["files"].items()
        if sha256_of(toolchain.folder / name) != entry["sha256"]
    ]


def _wanted() -> dict[str, Any]:
    """What a manifest must say to be up to date with this edgeopt and the installed runtimes."""
    return {
        "schema": SCHEMA,
        "packages": list(PACKAGES),
        "runtimes": {sdk.runtime: sdk.host_version() for sdk in wheels.SDKS},
        "sources": build.sources_hash(),
    }


def _complete(folder: Path) -> Toolchain | None:
    manifest = read_json(folder / "manifest.json")
    if any(manifest.get(key) != value for key, value in _wanted().items()):
        return None
    for name, entry in manifest.get("files", {}).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return None
    return Toolchain(folder, manifest) if manifest.get("files") else None


def _install(folder: Path, say: Progress) -> None:
    downloads = folder / "downloads"
    downloads.mkdir(exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    stamps = read_json(folder / "steps.json")
    archives = _host_tools(folder, downloads, stamps, say)
    _sysroot(folder)
    for position, sdk in enumerate(wheels.SDKS):
        say(f"fetching {sdk.distribution} {sdk.host_version()} for arm64", 0.6 + 0.1 * position)
        _sdk(folder, downloads, sdk, stamps)
    say("building the runners and the counter", 0.85)
    compiler = shutil.which("gcc") or shutil.which("cc")
    host_compiler = Path(compiler) if compiler else folder / "host" / "usr" / "bin" / HOST_COMPILER
    with replacing(folder / "programs") as programs:
        build.build_all(folder, programs, host_compiler, stamps["runtimes"])
    say("checking QEMU", 0.95)
    _finish(folder, archives, stamps)


def _host_tools(folder: Path, downloads: Path, stamps: dict[str, Any], say: Progress) -> list[dict[str, Any]]:
    names = list(PACKAGES)
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        names.append(HOST_COMPILER)
    if set(names) <= set(stamps.get("packages", [])) and (folder / "host").is_dir():
        return list(stamps["archives"])
    say("fetching Debian's package lists", 0.02)
    architecture = debian.host_architecture()
    apt = debian.PrivateApt(folder / "apt", debian.mirror(), architecture)
    apt.update()
    packages = [
        package
        for package in apt.closure(names)
        if package.name not in UNWANTED and not package.name.startswith(UNWANTED_PREFIXES)
    ]
    archives = []
    with replacing(folder / "host") as host:
        for index in range(0, len(packages), _BATCH):
            batch = packages[index : index + _BATCH]
            say(f"fetching {batch[0].name} and others", 0.05 + 0.5 * index / len(packages))
            for archive in apt.download(batch, downloads):
                size = archive.stat().st_size
                archives.append({"file": archive.name, "bytes": size, "sha256": sha256_of(archive)})
                debian.unpack(archive, host)
        _trim(host)
        _relocate_linker_scripts(host)
    stamps.update({"packages": names, "archives": archives, "architecture": architecture})
    write_json(folder / "steps.json", stamps)
    return archives


def _trim(host: Path) -> None:
    """Remove what is never run: the other guests of qemu-user, locales, documentation, LTO dumps."""
    for path in (host / "usr" / "bin").glob("qemu-*"):
        if path.name != "qemu-aarch64":
            path.unlink()
    for path in (host / "usr" / "bin").glob("*lto-dump*"):
        path.unlink()
    for name in ("doc", "man", "locale", "lintian"):
        shutil.rmtree(host / "usr" / "share" / name, ignore_errors=True)


def _relocate_linker_scripts(host: Path) -> None:
    """libc.so names its parts by the absolute path they would have when installed: make it relative."""
    prefix = "/usr/aarch64-linux-gnu/lib/"
    for path in (host / prefix.strip("/")).glob("*.so"):
        if path.is_symlink() or path.stat().st_size > 4096:
            continue
        text = path.read_text(errors="replace")
        if prefix in text:
            path.write_text(text.replace(prefix, ""))


def _sysroot(folder: Path) -> None:
    source = folder / "host" / "usr" / "aarch64-linux-gnu" / "lib"
    with replacing(folder / "sysroot") as sysroot:
        (sysroot / "lib").mkdir()
        for name in SYSROOT_LIBRARIES:
            if not (source / name).exists():
                raise EdgeoptError(
                    f"the arm64 C library is not complete ({name} is missing); run the set-up again"
                )
            shutil.copy(source / name, sysroot / "lib" / name)


def _sdk(folder: Path, downloads: Path, sdk: wheels.Sdk, stamps: dict[str, Any]) -> None:
    target = folder / f"sdk-{sdk.runtime}"
    recorded = stamps.setdefault("runtimes", {})
    if recorded.get(sdk.runtime, {}).get("version") == sdk.host_version() and target.is_dir():
        return
    wheel = wheels.download(sdk, downloads)
    with replacing(target) as fresh:
        wheels.extract(sdk, wheel, fresh)
    recorded[sdk.runtime] = {
        "version": sdk.host_version(), "wheel": wheel.name, "sha256": sha256_of(wheel),
    }  # fmt: skip
    write_json(folder / "steps.json", stamps)


def _finish(folder: Path, archives: list[dict[str, Any]], stamps: dict[str, Any]) -> None:
    toolchain = Toolchain(folder, {})
    version = qemu_version(toolchain)
    run_files = [toolchain.qemu, toolchain.counter]
    for runtime in stamps["runtimes"]:
        run_files += [toolchain.runner(runtime), *toolchain.runtime_libraries(runtime)]
    run_files += [toolchain.sysroot / "lib" / name for name in SYSROOT_LIBRARIES]
    hashes = {str(path.relative_to(folder)): sha256_of(path) for path in run_files}
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in hashes.items()
    }
    manifest = {
        **_wanted(),
        "archives": archives,
        "wheels": stamps["runtimes"],
        "qemu": version,
        "files": files,
        "fingerprint": _fingerprint(toolchain, hashes),
    }
    write_json(folder / "manifest.json", manifest)
    shutil.rmtree(folder / "apt", ignore_errors=True)


def _fingerprint(toolchain: Toolchain, hashes: dict[str, str]) -> str:
    """Over the arm64 code that is counted and the sources of what counts it.

    QEMU itself and the compiled counter are left out: other builds of them count the same.
    """
    own = {str(path.relative_to(toolchain.folder)) for path in (toolchain.qemu, toolchain.counter)}
    guest = sorted(digest for name, digest in hashes.items() if name not in own)
    return build.hash_text("".join([*guest, build.sources_hash()]))[:16]


def qemu_version(toolchain: Toolchain) -> str:
    """QEMU's version, after checking that it starts and takes plugins.

    Raises:
        EdgeoptError: it doesn't.
    """
    environment = {**os.environ, "LD_LIBRARY_PATH": toolchain.host_libraries}
    done = subprocess.run(
        [str(toolchain.qemu), "--help"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or "-plugin" not in done.stdout:
        reason = (done.stderr.strip().splitlines() or ["it has no -plugin option"])[0]
        raise EdgeoptError(f"the QEMU that was fetched cannot be used here: {reason}")
    first = subprocess.run(
        [str(toolchain.qemu), "--version"], env=environment, capture_output=True, text=True, check=False
    ).stdout.split()
    return first[2] if len(first) > 2 else "unknown"
