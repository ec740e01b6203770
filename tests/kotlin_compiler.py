"""The Kotlin compiler that the kotlin-jupyter-kernel package carries, and a JVM to run what it makes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

STUBS = Path(__file__).parent / "kotlin_stubs"


def missing() -> str | None:
    """Why Kotlin can't be compiled here; None when it can."""
    if shutil.which("java") is None:
        return "no java on the PATH (a JDK 17 compiles and runs the generated Kotlin)"
    if importlib.util.find_spec("run_kotlin_kernel") is None:
        return "no kotlin-jupyter-kernel, which carries the Kotlin compiler (pip install edgeopt[test])"
    return None


def _jars() -> dict[str, Path]:
    spec = importlib.util.find_spec("run_kotlin_kernel")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / "jars"
    # The kernel's one large jar holds the compiler, and kotlinx.coroutines, which the generated code uses.
    return {
        "compiler": next(folder.glob("kotlin-jupyter-kernel-*-all.jar")),
        "stdlib": next(folder.glob("kotlin-stdlib-*.jar")),
        "reflect": next(folder.glob("kotlin-reflect-*.jar")),
        "script": next(folder.glob("kotlin-script-runtime-*.jar")),
        "annotations": next(folder.glob("annotations-*.jar")),
    }


def _java(*arguments: str) -> subprocess.CompletedProcess[str]:
    # One compiler thread and the quick JIT: the compiler runs once, for seconds.
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx1g", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compile_kotlin(
    sources: Sequence[Path], classes: Path, classpath: Sequence[Path] = (), *options: str
) -> subprocess.CompletedProcess[str]:
    """Compile files and folders of Kotlin into ``classes``."""
    jars = _jars()
    path = os.pathsep.join(str(jar) for jar in (jars["stdlib"], jars["compiler"], *classpath))
    return _java(
        "-cp", os.pathsep.join(str(jar) for jar in jars.values()),
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
        "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", path, "-d", str(classes), *options,
        *(str(source) for source in sources),
    )  # fmt: skip


def run_kotlin(
    main: str, classpath: Sequence[Path], arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a compiled ``main``."""
    jars = _jars()
    path = os.pathsep.join(str(jar) for jar in (*classpath, jars["stdlib"], jars["compiler"]))
    return _java("-cp", path, main, *arguments)
