"""Builds the generated C++ example for arm64 and runs it under QEMU, with the emulator's own toolchain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgeopt.android_harness.emulator import cpu_of
from edgeopt.android_harness.emulator.cpu import write_identity
from edgeopt.android_harness.emulator.toolchain import Toolchain, load
from edgeopt.device_profiles import load_profile

_SDK = {"executorch": "sdk-executorch/executorch", "litert": "sdk-litert/ai_edge_litert"}


def _cmake() -> str:
    beside = Path(sys.executable).parent / "cmake"
    found = shutil.which("cmake") or (str(beside) if beside.exists() else None)
    assert found is not None, "no cmake: the test extra brings it"
    return found


def build(source: Path, runtime: str, build_folder: Path) -> Path:
    """Run cmake on a generated folder and return the arm64 program."""
    toolchain = load()
    host = toolchain.folder / "host"
    compiler = host / "usr" / "bin" / "aarch64-linux-gnu-g++-12"
    libraries = host / "usr" / "aarch64-linux-gnu" / "lib"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": toolchain.host_libraries,
        "PATH": f"{host / 'usr' / 'bin'}:{os.environ['PATH']}",
    }
    configure = [
        _cmake(), "-S", str(source), "-B", str(build_folder), "-G", "Unix Makefiles",
        "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DCMAKE_EXE_LINKER_FLAGS=-Wl,-rpath-link,{libraries}",
        f"-DRUNTIME_DIR={toolchain.folder / _SDK[runtime]}", "-DCMAKE_CXX_FLAGS=-Werror",
    ]  # fmt: skip
    for command in (configure, [_cmake(), "--build", str(build_folder)]):
        # cmake itself must run on this machine's libraries, the unpacked compiler on its own.
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return next(path for path in build_folder.iterdir() if path.is_file() and os.access(path, os.X_OK))


def check_syntax(*sources: Path) -> None:
    """Compile files that need no runtime's headers, and keep nothing."""
    host = load().folder / "host"
    environment = {**os.environ, "LD_LIBRARY_PATH": load().host_libraries}
    compiler = host / "usr" / "bin" / "aarch64-linux-gnu-g++-12"
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    for source in sources:
        done = subprocess.run(
            [str(compiler), *flags, str(source)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]


def run(program: Path, runtime: str, data: Path, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the arm64 program on the emulated Raspberry Pi 4: exit code, stdout and stderr."""
    toolchain: Toolchain = load()
    cpu = cpu_of(load_profile("raspberry_pi_4"))
    root = folder / "root"
    root.mkdir(parents=True)
    write_identity(cpu, root)
    (root / "lib").symlink_to(toolchain.sysroot / "lib")
    (root / "rt").mkdir()
    for library in toolchain.runtime_libraries(runtime):
        (root / "rt" / library.name).symlink_to(library)
    command = [
        str(toolchain.qemu), "-L", str(root), "-cpu", cpu.qemu_cpu, "-U", "LD_LIBRARY_PATH",
        "-E", "LD_LIBRARY_PATH=/rt:/lib", str(program), str(data), *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env={"LD_LIBRARY_PATH": toolchain.host_libraries},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
