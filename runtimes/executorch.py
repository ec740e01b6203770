"""ExecuTorch: runs .pte files through the wheel's Python bindings (which need torch)."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from .protocol import LoadedModel, TensorSpec
from .pte_header import read_pte

NAME = "executorch"

# ScalarType of executorch/runtime/core/portable_type/scalar_type.h -> name of the numpy dtype.
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
    11: "bool", 15: "bfloat16", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip
# executorch/runtime/core/error.h
_ERRORS = {
    0x10: "an operation is not supported",
    0x12: "an argument is not valid",
    0x13: "an input has the wrong type",
    0x14: "an operator it needs is not in this runtime",
    0x20: "something it needs was not found (often a backend this runtime lacks)",
    0x21: "not enough memory",
    0x22: "the file can't be read",
    0x23: "the program is not valid (corrupt, or for another version)",
    0x24: "external data is not valid",
    0x25: "out of resources",
    0x30: "a delegate was compiled for an incompatible version",
    0x31: "a delegate failed to allocate memory",
    0x32: "a delegate's handle is not valid",
}
_LACKS_OPERATOR = 0x14
_program_loaded = False


def version() -> str:
    """The installed version of executorch."""
    return metadata.version("executorch")


def preload() -> None:
    """Import what the runtime needs, so that loading a file can be timed alone."""
    _bindings()


def _bindings() -> Any:
    """The C++ runtime's Python module, without what its public face ``portable_lib`` imports for one class of
    warnings: the whole exporter, twice as slow to load as torch. Where OpenVINO is installed, the public face
    says where its library lies."""
    if find_spec("openvino") is None:
        # The module is linked against torch's libraries and needs them loaded.
        import torch  # noqa: F401

        with contextlib.suppress(ImportError):
            return import_module("executorch.extension.pybindings._C")
    return import_module("executorch.extension.pybindings.portable_lib")


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load a .pte file. ``use_xnnpack`` has no effect: what is delegated was decided at export."""
    return ExecutorchModel(path, num_threads=num_threads)


class ExecutorchModel(LoadedModel):
    """The method ``forward`` of a program, or its only method.

    Raises:
        InputError: the file doesn't load.
        EdgeoptError: ExecuTorch is not installed, or this process already runs it with other threads.
    """

    runtime = NAME

    def __init__(self, path: Path, *, num_threads: int = 1, etdump: bool = False) -> None:
        self.path = path
        facts = read_pte(path)
        try:
            import torch

            bindings = _bindings()
        except ImportError as error:
            raise EdgeoptError(f"ExecuTorch is not installed ({error}): pip install executorch.") from error
        _set_threads(bindings, num_threads)
        self._torch = torch
        self.planned_bytes = facts.planned_bytes
        options: dict[str, Any] = {"enable_etdump": True} if etdump else {}
        try:
            try:
                started = time.perf_counter()
                self._load(bindings, facts.method, options)
            except RuntimeError as error:
                if _code(error) != _LACKS_OPERATOR:
                    raise
                # Kernels of embeddings and other operators on 8-bit tables come in a library of their own.
                import executorch.kernels.quantized  # noqa: F401

                started = time.perf_counter()
                self._load(bindings, facts.method, options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path} can't be loaded by ExecuTorch: {_reason(error)}.") from error
        self.load_ms = (time.perf_counter() - started) * 1e3
        meta = self._method.method_meta()
        self.inputs = tuple(
            _spec(meta.input_tensor_meta, i, f"input_{i}", facts.input_dynamic[i], path)
            for i in range(meta.num_inputs())
        )
        self.outputs = tuple(
            _spec(meta.output_tensor_meta, i, f"output_{i}", facts.output_dynamic[i], None)
            for i in range(meta.num_outputs())
        )
        self._held: list[Any] = []

    def _load(self, bindings: Any, method: str, options: dict[str, Any]) -> None:
        self._program = bindings._load_program(
            str(self.path), program_verification=bindings.Verification.InternalConsistency, **options
        )
        self._method: Any = self._program.load_method(method)

    def prepare(self, inputs: Sequence[np.ndarray]) -> None:
        # A tensor that isn't memory-planned is used where it lies: keep it alive until the next call.
        self._held = [
            self._tensor(value, spec.dtype) for value, spec in zip(inputs, self.inputs, strict=True)
        ]
        try:
            self._method.set_inputs(self._held)
        except RuntimeError as error:
            shapes = [list(value.shape) for value in inputs]
            raise InputError(
                f"{self.path.name} refuses inputs of shape {shapes}: {_reason(error)}."
            ) from error

    def invoke(self) -> None:
        try:
            self._method.execute()
        except RuntimeError as error:
            raise EdgeoptError(f"{self.path.name} failed while running: {_reason(error)}.") from error

    def fetch(self) -> list[np.ndarray]:
        return [self._array(value) for value in self._method.get_outputs()]

    def close(self) -> None:
        self._method = None
        self._program = None
        self._held = []

    def write_etdump(self, path: Path) -> None:
        """Write what was recorded since the last call (the model must have been opened with ``etdump``)."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._program.write_etdump_result_to_file(str(path))

    def _tensor(self, value: np.ndarray, dtype: str) -> Any:
        if not value.flags.writeable:
            value = value.copy()
        tensor = self._torch.from_numpy(value) if value.ndim else self._torch.tensor(value)
        return tensor.to(self._torch.bfloat16) if dtype == "bfloat16" else tensor

    def _array(self, value: Any) -> np.ndarray:
        if not isinstance(value, self._torch.Tensor):
            return np.asarray(value)
        if value.dtype == self._torch.bfloat16:
            value = value.float()
        return value.detach().numpy().copy()


def _set_threads(bindings: Any, num_threads: int) -> None:
    # Resizing the pool while a program lives has crashed the process: allowed only before the first load.
    global _program_loaded  # noqa: PLW0603 - the thread pool is one per process
    if bindings._threadpool_get_thread_count() != num_threads:
        if _program_loaded:
            raise EdgeoptError(
                f"ExecuTorch's threads can't be changed to {num_threads} after a program was loaded: "
                "use runtimes.run_isolated, which starts a fresh process."
            )
        bindings._unsafe_reset_threadpool(num_threads)
    _program_loaded = True


def _reason(error: Exception) -> str:
    message = " ".join(str(error).split()).rstrip(".")
    code = _code(error)
    known = None if code is None else _ERRORS.get(code)
    return f"{known} (error {code:#x})" if known else message


def _code(error: Exception) -> int | None:
    found = re.search(r"error:? 0x:?([0-9a-fA-F]+)", " ".join(str(error).split()))
    return int(found[1], 16) if found else None


def _spec(meta_of: Any, index: int, name: str, dynamic: bool, path: Path | None) -> TensorSpec:
    try:
        meta = meta_of(index)
    except Exception as error:  # the binding raises RuntimeError for values that are not tensors
        if path is None:
            return TensorSpec(name=name, shape=(), dtype="object")
        raise InputError(
            f"{path.name} takes a plain number or list as {name}: export it with tensor inputs only."
        ) from error
    sizes = tuple(int(size) for size in meta.sizes())
    dtype = _DTYPES.get(int(meta.dtype()), f"scalar_type_{int(meta.dtype())}")
    if dynamic:
        return TensorSpec(name, (-1,) * len(sizes), dtype, max_shape=sizes)
    return TensorSpec(name, sizes, dtype)
