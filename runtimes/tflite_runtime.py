"""The classic ``tflite-runtime`` package, in an environment of its own.

It was built against numpy 1.x and stops at 2.14; this process has numpy 2. So it runs in worker processes of
a virtual environment in the user's cache folder, made on first use.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import EdgeoptError
from . import environments
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
    name = f"tflite-runtime-{version()}"
    if sys.version_info >= (3, 12) and not environments.environment_home(name).exists():
        raise EdgeoptError(
            "tflite-runtime has no wheel for Python 3.12 and later: use Python 3.11, or litert."
        )
    return environments.environment_python(name, REQUIREMENTS, what="tflite-runtime")
