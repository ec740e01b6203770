"""Compiles the two runners for arm64 and the counter plugin for this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import EdgeoptError

HARNESS = Path(__file__).resolve().parents[1]
RUNNER_SOURCES = HARNESS / "runner"
COUNTER_SOURCES = HARNESS / "counter"

EXECUTORCH_LIBRARIES = (
    "executorch", "executorch_kernels_optimized", "executorch_kernels_quantized",
    "executorch_backend_xnnpack", "executorch_threadpool", "executorch_etdump",
)  # fmt: skip
LITERT_VERSIONS = ("2.2.", "2.3.")  # litert_c_api.h was checked against these


def hash_text(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sources_hash() -> str:
    """One hash over every C and C++ source here: a changed source is built again."""
    digest = hashlib.sha256()
    for folder in (RUNNER_SOURCES, COUNTER_SOURCES):
        for path in sorted(folder.glob("*.[ch]*")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def library_path(host: Path) -> str:
    """``LD_LIBRARY_PATH`` for programs unpacked into ``host``."""
    folders = [*host.glob("usr/lib/*-linux-gnu"), *host.glob("lib/*-linux-gnu")]
    return ":".join(str(folder) for folder in folders if folder.is_dir())


def build_all(
    folder: Path, programs: Path, host_compiler: Path, runtimes: Mapping[str, Mapping[str, Any]]
) -> None:
    """Build ``executorch_runner``, ``litert_runner`` and ``counter.so`` into ``programs``.

    Raises:
        EdgeoptError: a compiler failed, or the LiteRT wheel is of a version the runner doesn't know.
    """
    litert = str(runtimes["litert"]["version"])
    if not litert.startswith(LITERT_VERSIONS):
        raise EdgeoptError(
            f"ai-edge-litert {litert} is not one the arm64 runner was checked with "
            f"({', '.join(v + 'x' for v in LITERT_VERSIONS)}); install one of those"
        )
    _build_executorch(folder, programs, str(runtimes["executorch"]["version"]))
    _build_litert(folder, programs, litert)
    build_counter(programs / "counter.so", host_compiler, folder / "host")


def _build_executorch(folder: Path, programs: Path, version: str) -> None:
    sdk = folder / "sdk-executorch" / "executorch"
    include = sdk / "include"
    _cross(
        folder,
        "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL",
        f'-DEDGEOPT_RUNTIME_VERSION="{version}"',
        "-isystem", str(include),
        "-isystem", str(include / "executorch" / "runtime" / "core" / "portable_type" / "c10"),
        str(RUNNER_SOURCES / "executorch_runner.cpp"),
        "-o", str(programs / "executorch_runner"),
        f"-L{sdk / 'lib'}", "-Wl,--no-as-needed", *(f"-l{name}" for name in EXECUTORCH_LIBRARIES),
    )  # fmt: skip


def _build_litert(folder: Path, programs: Path, version: str) -> None:
    _cross(
        folder,
        f'-DEDGEOPT_RUNTIME_VERSION="{version}"',
        str(RUNNER_SOURCES / "litert_runner.cpp"),
        "-o", str(programs / "litert_runner"),
        f"-L{folder / 'sdk-litert' / 'ai_edge_litert'}", "-Wl,--no-as-needed", "-lLiteRt",
    )  # fmt: skip


def _cross(folder: Path, *arguments: str) -> None:
    host = folder / "host"
    compiler = host / "usr" / "bin" / "aarch64-linux-gnu-g++-12"
    libraries = host / "usr" / "aarch64-linux-gnu" / "lib"
    command = [str(compiler), "-std=c++17", "-O2", *arguments, f"-Wl,-rpath-link,{libraries}"]
    _compile(command, host)


def build_counter(target: Path, compiler: Path, host: Path) -> None:
    """Compile the QEMU plugin; it needs no header and no library, QEMU's own process has them."""
    command = [
        str(compiler), "-std=gnu11", "-O2", "-fPIC", "-shared", "-ffreestanding", "-fno-stack-protector",
        "-nostdlib", "-Wall", "-Wextra", str(COUNTER_SOURCES / "counter.c"), "-o", str(target),
    ]  # fmt: skip
    _compile(command, host if host in compiler.parents else None)


def _compile(command: list[str], host: Path | None) -> None:
    environment = dict(os.environ)
    if host is not None:
        environment["LD_LIBRARY_PATH"] = library_path(host)
        # An unpacked compiler looks for its assembler and linker on the PATH.
        environment["PATH"] = f"{host / 'usr' / 'bin'}:{environment.get('PATH', '')}"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        reason = lines[0] if lines else f"it ended with {done.returncode}"
        raise EdgeoptError(f"{Path(command[0]).name} could not build {Path(command[-1]).name}: {reason}")
