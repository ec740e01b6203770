"""The classic ``tflite-runtime`` package, in an environment of its own.

It was built against numpy 1.x and stops at 2.14; this process has numpy 2. So it runs in worker processes of
a virtual environment in the user's cache folder, made on first use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import EdgeoptError
from .protocol import LoadedModel

NAME = "tflite_runtime"
REQUIREMENTS = ("tflite-runtime==2.14.0", "numpy<2")


def version() -> str:
    """The version that the worker environment holds."""
    return REQUIREMENTS[0].partition("==")[2]


def preload() -> None:
    """Import what the runtime needs (in the worker environment)."""
    import tflite_runtime.interpreter  # noqa: F401


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load a .tflite file; works in the worker environment only (``run_isolated`` and ``bench`` go there).

    Raises:
        EdgeoptError: in a process without the package.
    """
    try:
        from tflite_runtime import interpreter as module
    except ImportError as error:
        raise EdgeoptError(
            "tflite-runtime runs in a process of its own environment: use run_isolated or edgeopt bench."
        ) from error
    from .litert import InterpreterModel

    return InterpreterModel(path, module, NAME, num_threads=num_threads, use_xnnpack=use_xnnpack)


def environment_python() -> Path:
    """The interpreter of the worker environment, which is made when it isn't there yet (some 20 s).

    Raises:
        EdgeoptError: no wheel for this Python (3.11 is the last), or no package registry.
    """
    from platformdirs import user_cache_dir

    override = os.environ.get("EDGEOPT_CACHE_DIR")
    cache = Path(override) if override else Path(user_cache_dir("edgeopt", appauthor=False))
    tag = f"tflite-runtime-{version()}-py{sys.version_info.major}{sys.version_info.minor}"
    home = cache / tag
    python = home / "bin" / "python"
    if python.exists():
        return python
    if sys.version_info >= (3, 12):
        raise EdgeoptError(
            "tflite-runtime has no wheel for Python 3.12 and later: use Python 3.11, or litert."
        )
    partial = cache / f"{tag}.{os.getpid()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(partial)])
        _run([str(partial / "bin" / "python"), "-m", "pip", "install", "-q", *REQUIREMENTS])
        # Scripts in the environment name its folder, the interpreter doesn't: it can be moved into place.
        partial.replace(home)
    except OSError as error:
        if python.exists():  # another process was faster
            return python
        raise EdgeoptError(
            f"the environment for tflite-runtime can't be made in {cache}: {error}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise EdgeoptError(
            f"tflite-runtime can't be installed into its own environment: {last} "
            "(it needs a package registry once)."
        )
