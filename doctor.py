"""What is installed, what is missing, and which command each missing thing would enable."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .disk import cache_folder


@dataclass(frozen=True)
class Check:
    """One thing edgeopt can use.

    Attributes:
        found: its version or place; None when it is missing.
        needed: whether edgeopt can't export without it.
        enables: the commands it is for.
        get: how to get it.
    """

    name: str
    found: str | None
    enables: str
    get: str
    needed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


# distribution, what it enables, how to get it, needed for the core job
_PACKAGES = (
    ("torch", "everything that loads a model", "pip install edgeopt", True),
    ("executorch", "export and bench of .pte", "pip install edgeopt", True),
    ("litert-torch", "export of .tflite", "pip install edgeopt", True),
    ("ai-edge-litert", "bench, verify and inspect of .tflite", "pip install edgeopt", True),
    ("ai-edge-quantizer", "float16 and dynamic int8 .tflite", "pip install edgeopt", True),
    ("torchao", "int8 of .pte and .tflite", "pip install edgeopt", True),
    ("adbutils", "bench --on adb", "pip install edgeopt", False),
    ("sqlalchemy", "bench, history, gate (the store)", "pip install edgeopt", False),
    ("onnxruntime", "bench and compare of .onnx", 'pip install "edgeopt[onnx]"', False),
    ("psycopg", "--store postgresql+psycopg://…", 'pip install "edgeopt[postgresql]"', False),
    ("nvidia-ml-py", "joules of compare --server cuda", 'pip install "edgeopt[cuda]"', False),
    ("scikit-learn", "the demo", 'pip install "edgeopt[demo]"', False),
)


def run_checks() -> list[Check]:
    """Every check, the needed things first. Imports none of the packages it looks for."""
    return [_python(), *_packages(), _keras(), _cuda(), *_tools(), _emulator(), _rapl()]


def _python() -> Check:
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    version = platform.python_version() if fits else None
    return Check("python", version, "everything", "Python 3.11, 3.12 or 3.13", needed=True)


def _packages() -> Iterator[Check]:
    for name, enables, get, needed in _PACKAGES:
        try:
            version: str | None = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        yield Check(name, version, enables, get, needed)


def _keras() -> Check:
    from .converters.keras.environment import WHAT, installed_here, own_environment

    own = own_environment()
    found = "in this environment" if installed_here() else str(own) if own else None
    return Check("TensorFlow", found, "export of Keras models", f"made on first use: {WHAT}")


def _cuda() -> Check:
    driver = Path("/proc/driver/nvidia/version")
    found = "NVIDIA driver loaded" if driver.exists() else None
    return Check("CUDA GPU", found, "compare --server cuda", "a machine with an NVIDIA GPU")


def _tools() -> Iterator[Check]:
    adb = shutil.which("adb") or ("bundled with adbutils" if find_spec("adbutils") else None)
    yield Check("adb", adb, "bench --on adb, devices", "pip install edgeopt (adbutils brings one)")


def _emulator() -> Check:
    cache = cache_folder() / "emulator"
    found = str(cache) if cache.is_dir() and any(cache.iterdir()) else None
    return Check("arm64 emulator", found, "bench --on emulator", "edgeopt emulator setup")


def _rapl() -> Check:
    counters = list(Path("/sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    readable = [str(path) for path in counters if os.access(path, os.R_OK)]
    found = f"{len(readable)} RAPL domains" if readable else None
    return Check("power meter", found, "bench --power on this host", "a CPU with RAPL, readable by this user")
