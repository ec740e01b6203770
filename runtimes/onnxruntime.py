"""ONNX Runtime, an optional peer: runs .onnx files on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from .protocol import LoadedModel, TensorSpec

NAME = "onnxruntime"
_DTYPES = {"float": "float32", "double": "float64"}


def version() -> str:
    """The installed version of onnxruntime."""
    return metadata.version("onnxruntime")


def preload() -> None:
    """Import what the runtime needs, so that loading a file can be timed alone."""
    import onnxruntime  # noqa: F401


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load an .onnx file. ``use_xnnpack`` has no effect here."""
    return OnnxModel(path, num_threads=num_threads)


class OnnxModel(LoadedModel):
    """An .onnx file in an inference session of its own.

    Raises:
        InputError: the file doesn't load.
        EdgeoptError: onnxruntime is not installed.
    """

    runtime = NAME

    def __init__(self, path: Path, *, num_threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EdgeoptError("ONNX Runtime is not installed: install edgeopt[onnx].") from error
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        started = time.perf_counter()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            words = " ".join(str(error).split())[:200]
            raise InputError(f"{path} can't be loaded by ONNX Runtime: {words}.") from error
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.inputs = tuple(_spec(info) for info in self._session.get_inputs())
        self.outputs = tuple(_spec(info) for info in self._session.get_outputs())
        self._feed: dict[str, np.ndarray] = {}
        self._taken: list[Any] = []

    def prepare(self, inputs: Sequence[np.ndarray]) -> None:
        self._feed = {spec.name: value for spec, value in zip(self.inputs, inputs, strict=True)}

    def invoke(self) -> None:
        try:
            self._taken = self._session.run(None, self._feed)
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise EdgeoptError(f"{self.path.name} failed while running: {words}.") from error

    def fetch(self) -> list[np.ndarray]:
        return [np.asarray(value) for value in self._taken]


def _spec(info: Any) -> TensorSpec:
    kind = info.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else -1 for size in info.shape)
    return TensorSpec(info.name, shape, _DTYPES.get(kind, kind))
