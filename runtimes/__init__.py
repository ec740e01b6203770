"""Runs a model file: one small protocol over ExecuTorch, LiteRT and their peers.

Front door: :func:`open_model` (in this process), :func:`run_isolated` (in a fresh one, so that a crash of the
runtime is an error and not the end), :func:`runtime_versions`. A runtime is one module in this folder with
``NAME``, ``version()``, ``preload()`` and ``open_model(path, num_threads=, use_xnnpack=)``, or an entry point
in the group ``edgeopt.runtimes``. This folder never converts, measures or prints; a .tflite run imports no
torch.
"""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from .files import RUNTIME_OF_SUFFIX, check_file, runtime_for
from .isolation import run_isolated
from .protocol import LoadedModel, TensorSpec

__all__ = [
    "RUNTIMES",
    "RUNTIME_OF_SUFFIX",
    "LoadedModel",
    "TensorSpec",
    "check_file",
    "open_model",
    "preload",
    "run_isolated",
    "runtime_for",
    "runtime_versions",
    "version_of",
]

# The runtimes that stand in this folder, and the package each needs.
RUNTIMES = {
    "executorch": "executorch",
    "litert": "ai-edge-litert",
    "tflite_runtime": "tflite-runtime",
    "torch": "torch",
    "torch_compile": "torch",
    "onnxruntime": "onnxruntime",
}


def open_model(
    path: Path | str, *, runtime: str | None = None, num_threads: int = 1, use_xnnpack: bool = True
) -> LoadedModel:
    """Load a model file into this process.

    Args:
        runtime: a name of :data:`RUNTIMES`; by default the file's suffix decides.
        num_threads: CPU threads of the runtime. ExecuTorch's can be set once a process only.
        use_xnnpack: LiteRT only: whether the XNNPACK delegate may take over.

    Raises:
        InputError: a missing, corrupt, truncated or too-new file; an unknown runtime.
        EdgeoptError: the runtime is not installed.
    """
    path = Path(path)
    check_file(path)
    if num_threads < 1:
        raise InputError(f"the number of threads must be at least 1, not {num_threads}.")
    module = _runtime_module(runtime or runtime_for(path))
    model: LoadedModel = module.open_model(path, num_threads=num_threads, use_xnnpack=use_xnnpack)
    return model


def preload(runtime: str) -> None:
    """Import a runtime's packages, so that loading a file can be timed and weighed without them.

    Raises:
        EdgeoptError: they are not installed.
    """
    try:
        _runtime_module(runtime).preload()
    except ImportError as error:
        raise EdgeoptError(f"the runtime {runtime} is not installed here ({error}).") from error


def version_of(runtime: str) -> str:
    """The version of the package behind a runtime; empty when it isn't installed. Imports none of them."""
    try:
        return str(_runtime_module(runtime).version())
    except metadata.PackageNotFoundError:
        return ""


def runtime_versions() -> dict[str, str]:
    """Runtime -> version, for those whose package is installed in this environment. Imports none of them."""
    found = {}
    for name, package in RUNTIMES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _runtime_module(name: str) -> Any:
    if name in RUNTIMES:
        return import_module(f".{name}", __name__)
    for entry in metadata.entry_points(group="edgeopt.runtimes"):
        if entry.name == name:
            return entry.load()
    raise InputError(f"unknown runtime {name!r}: choose one of {', '.join(RUNTIMES)}.")
