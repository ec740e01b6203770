"""``predict(*arrays)`` as the user's evaluation functions call it, around anything that runs one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .source import SourceModel

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def torch_run(run: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]) -> Run:
    """A function of arrays around one of tensors."""

    def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [t.numpy() for t in run([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])]

    return call


def predictor(source: SourceModel, run: Run) -> Callable[..., Any]:
    """``predict(*arrays)`` as evaluation functions call it.

    Takes one array an input, with any number of rows on the first axis, and gives the output array, or a
    dict of them when the model has several.
    """
    rows = source.example[0].shape[0] if source.example[0].ndim else 1
    batch = 1 if (0, 0) in source.dynamic else rows

    def predict(*arrays: Any) -> Any:
        values = [_as_input(a, source, index) for index, a in enumerate(arrays)]
        if not values or values[0].ndim == 0 or len(values[0]) == batch:
            results = run(values)
        else:
            count = len(values[0]) // batch * batch
            parts = [run([v[i : i + batch] for v in values]) for i in range(0, count, batch)]
            results = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if len(results) == 1:
            return results[0]
        return {info.name: value for info, value in zip(source.outputs, results, strict=True)}

    return predict


def _as_input(value: Any, source: SourceModel, index: int) -> np.ndarray:
    if index >= len(source.example):
        raise InputError(f"evaluate() called predict with more than {len(source.example)} arrays.")
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(str(source.example[index].dtype).removeprefix("torch."))
