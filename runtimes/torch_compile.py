"""PyTorch with ``torch.compile``: runs exported programs (.pt2); the first inference compiles."""

from __future__ import annotations

from pathlib import Path

from .protocol import LoadedModel
from .torch import TorchModel, preload, version

__all__ = ["NAME", "open_model", "preload", "version"]

NAME = "torch_compile"


def open_model(path: Path, *, num_threads: int = 1, use_xnnpack: bool = True) -> LoadedModel:
    """Load an exported program to be compiled on its first inference. ``use_xnnpack`` has no effect here."""
    return TorchModel(path, num_threads=num_threads, compiled=True)
