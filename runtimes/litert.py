"""LiteRT (the ``ai-edge-litert`` package): runs .tflite files. Imports no torch."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from .protocol import LoadedModel, TensorSpec

NAME = "litert"


def version() -> str:
    """The installed version of ai-edge-litert."""
    return metadata.version("ai-edge-litert")


def preload() -> None:
    """Import what the runtime needs, so that loading a file can be timed alone."""
    import ai_edge_litert.interpreter  # noqa: F401


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load a .tflite file with ai-edge-litert's interpreter."""
    try:
        from ai_edge_litert import interpreter as module
    except ImportError as error:
        raise EdgeoptError(f"LiteRT is not installed ({error}): pip install ai-edge-litert.") from error
    return InterpreterModel(path, module, NAME, num_threads=num_threads, use_xnnpack=use_xnnpack)


class InterpreterModel(LoadedModel):
    """A .tflite file behind the ``Interpreter`` class, which ai-edge-litert and tflite-runtime share.

    Args:
        module: the ``interpreter`` module of either package.
    """

    def __init__(self, path: Path, module: Any, runtime: str, *, num_threads: int, use_xnnpack: bool) -> None:
        self.path = path
        self.runtime = runtime
        resolver = module.OpResolverType
        kind = resolver.BUILTIN if use_xnnpack else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        started = time.perf_counter()
        try:
            self._interpreter = module.Interpreter(
                str(path), num_threads=num_threads, experimental_op_resolver_type=kind
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(load_failure(path, runtime, str(error))) from error
        self.load_ms = (time.perf_counter() - started) * 1e3
        if not self._interpreter._get_ops_details():
            raise InputError(
                f"{path} holds no operations: it is corrupt or truncated; export or copy it again."
            )
        names = _signature_names(self._interpreter)
        details_in = self._interpreter.get_input_details()
        details_out = self._interpreter.get_output_details()
        self.inputs = tuple(_spec(detail, names) for detail in details_in)
        self.outputs = tuple(_spec(detail, names) for detail in details_out)
        self._in_index = [int(detail["index"]) for detail in details_in]
        self._out_index = [int(detail["index"]) for detail in details_out]
        self._shapes = [tuple(int(size) for size in detail["shape"]) for detail in details_in]

    def prepare(self, inputs: Sequence[np.ndarray]) -> None:
        shapes = [value.shape for value in inputs]
        try:
            if shapes != self._shapes:
                for index, shape in zip(self._in_index, shapes, strict=True):
                    self._interpreter.resize_tensor_input(index, list(shape))
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for index, value in zip(self._in_index, inputs, strict=True):
                self._interpreter.set_tensor(index, value)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.path.name} can't take inputs of shape {shapes}: {_tidy(str(error))}."
            ) from error

    def invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise EdgeoptError(f"{self.path.name} failed while running: {_tidy(str(error))}.") from error

    def fetch(self) -> list[np.ndarray]:
        return [self._interpreter.get_tensor(index) for index in self._out_index]

    def close(self) -> None:
        self._interpreter = None


def load_failure(path: Path, runtime: str, message: str) -> str:
    """One sentence for what the interpreter said when it refused a file."""
    custom = re.search(r"unresolved custom op: ?([\w.:]+)", message)
    if custom:
        return (
            f"{path.name} needs the custom op {custom[1].rstrip('.')}, which {runtime} does not have: "
            "export it without that op."
        )
    newer = re.search(r"builtin opcode '(\w+)' version '(\d+)'", message)
    if newer:
        return (
            f"{path.name} is too new for this {runtime}: it uses {newer[1]} version {newer[2]}; "
            "upgrade the runtime or export for an older one."
        )
    if "valid Flatbuffer" in message:
        return f"{path} is corrupt or truncated ({runtime}: {_tidy(message)}): export or copy it again."
    return f"{runtime} can't load {path}: {_tidy(message)}."


def _tidy(message: str) -> str:
    return " ".join(message.split()).rstrip(".")[:300]


def _signature_names(interpreter: Any) -> dict[int, str]:
    """Tensor index -> the name the user knows, for files with one signature."""
    try:
        signatures = interpreter._get_full_signature_list()
    except (AttributeError, RuntimeError, ValueError):
        return {}
    if len(signatures) != 1:
        return {}
    (signature,) = signatures.values()
    return {int(i): name for side in ("outputs", "inputs") for name, i in signature[side].items()}


def _spec(detail: dict[str, Any], names: dict[int, str]) -> TensorSpec:
    signature = detail.get("shape_signature")
    shape = detail["shape"] if signature is None or len(signature) != len(detail["shape"]) else signature
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"])
    return TensorSpec(
        name=names.get(int(detail["index"]), str(detail["name"])),
        shape=tuple(int(size) for size in shape),
        dtype="bytes" if dtype.kind == "S" else dtype.name,
        quantization=(float(scale), int(zero_point)) if scale else None,
    )
