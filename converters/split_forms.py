"""Splits as slices: XNNPACK has slices, and ExecuTorch computes splits outside of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch

from ..models.nodes import argument_of


def pieces(x: torch.Tensor, count: int) -> list[torch.Tensor]:
    """``x.chunk(count, -1)``, as slices."""
    width = x.shape[-1] // count
    return [x[..., i * width : (i + 1) * width] for i in range(count)]


def slices_of_split(node: torch.fx.Node) -> Callable[..., Any] | None:
    """``chunk`` and ``split``: a slice for each piece.

    A split between two convolutions cut the delegate in two and had its values turned to channels first and back;
    in static int8 it was computed in float32, between conversions.
    """
    dim = int(argument_of(node, "dim", 0))
    widths = [value.shape[dim] for value in node.meta["val"]]
    if len(widths) < 2:
        return None
    ends = list(accumulate(widths))
    starts = [0, *ends[:-1]]

    def form(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.ops.aten.slice.Tensor(x, dim, start, end) for start, end in zip(starts, ends, strict=True)
        ]

    return form
