"""PyTorch: runs exported programs (.pt2) eagerly, compiled, or as an AOTInductor package; on CPU or CUDA.

The server side of a comparison. A .pt2 that AOTInductor wrote is recognised by what lies in the archive.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from .protocol import LoadedModel, TensorSpec

NAME = "torch"


def version() -> str:
    """The installed version of torch."""
    return metadata.version("torch")


def preload() -> None:
    """Import what the runtime needs, so that loading a file can be timed alone."""
    import torch.export  # noqa: F401


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load a .pt2 on the CPU. ``use_xnnpack`` has no effect here."""
    return TorchModel(path, num_threads=num_threads)


def is_aoti_package(path: Path) -> bool:
    """Whether AOTInductor compiled this .pt2 (its archive then holds data/aotinductor)."""
    with zipfile.ZipFile(path) as archive:
        return any("/aotinductor/" in f"/{name}" for name in archive.namelist())


class TorchModel(LoadedModel):
    """An exported program or an AOTInductor package.

    Args:
        device: "cpu" or "cuda".
        compiled: run an exported program through ``torch.compile``.

    Raises:
        InputError: the file doesn't load, or was compiled for another device.
        EdgeoptError: no CUDA device is there.
    """

    def __init__(
        self, path: Path, *, num_threads: int = 1, device: str = "cpu", compiled: bool = False
    ) -> None:
        import torch

        self.path = path
        self.runtime = "torch_compile" if compiled else NAME
        self._torch = torch
        self._device = torch_device(device)
        torch.set_num_threads(num_threads)
        started = time.perf_counter()
        try:
            if is_aoti_package(path):
                self._load_package(path)
            else:
                self._load_program(path, compiled)
        except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            words = " ".join(str(error).split())[:200]
            raise InputError(f"{path} can't be loaded by PyTorch: {words}.") from error
        self.load_ms = (time.perf_counter() - started) * 1e3
        self._given: list[Any] = []
        self._taken: Any = None

    def _load_program(self, path: Path, compiled: bool) -> None:
        program = self._torch.export.load(path)
        module = program.module().to(self._device)
        self._run = self._torch.compile(module) if compiled else module
        names = program.graph_signature.user_inputs
        nodes = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
        self.inputs = tuple(_spec(str(name), nodes[name]) for name in names)
        last = next(node for node in reversed(program.graph.nodes) if node.op == "output")
        values = {arg.name: arg.meta["val"] for arg in last.args[0] if hasattr(arg, "meta")}
        self.outputs = tuple(
            _spec(str(name), values[name]) for name in program.graph_signature.user_outputs if name in values
        )

    def _load_package(self, path: Path) -> None:
        self._run = self._torch._inductor.aoti_load_package(str(path))
        # A package tells names at best: shapes are checked by the compiled code itself.
        self.inputs, self.outputs, self.takes_any_inputs = (), (), True

    def prepare(self, inputs: Sequence[np.ndarray]) -> None:
        self._given = [self._torch.from_numpy(np.array(value)).to(self._device) for value in inputs]

    def invoke(self) -> None:
        try:
            with self._torch.inference_mode():
                self._taken = self._run(*self._given)
            if self._device.type == "cuda":
                self._torch.cuda.synchronize()
        except RuntimeError as error:
            words = " ".join(str(error).split())[:200]
            raise EdgeoptError(f"{self.path.name} failed while running: {words}.") from error

    def fetch(self) -> list[np.ndarray]:
        leaves, _ = self._torch.utils._pytree.tree_flatten(self._taken)
        return [_array(value) for value in leaves]

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not self.takes_any_inputs:
            return super().run(inputs)
        self.prepare(inputs)
        self.invoke()
        return self.fetch()


def torch_device(name: str) -> Any:
    """The device of that name.

    Raises:
        EdgeoptError: CUDA was asked for and isn't there.
    """
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        built = (
            "this PyTorch is built without CUDA" if torch.version.cuda is None else "no CUDA GPU was found"
        )
        raise EdgeoptError(
            f"{built}: run on a machine with one, or measure the server path with --server cpu."
        )
    return torch.device(name)


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(int(size) if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(name, shape, str(value.dtype).removeprefix("torch."))


def _array(value: Any) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
