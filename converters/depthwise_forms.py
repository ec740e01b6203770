"""Large depthwise convolutions, in parts that XNNPACK has kernels for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ..models.depthwise import is_large_depthwise, rows_of_parts
from ..models.nodes import argument_of, as_list

Form = Callable[..., Any]


def depthwise_by_rows(node: torch.fx.Node) -> Form | None:
    """A depthwise convolution of more than 25 taps as a sum of some with fewer rows of the filter.

    XNNPACK's depthwise kernels end at 25 taps. What is larger it multiplies as matrices, one for each channel, of
    which a tile of eight to 32 columns uses one: a 7×7 of 48 channels on 56×56 positions took 2.5 ms of an x86 core, its three parts 0.3 ms.
    """
    weight = node.args[1]
    # A weight that is computed (quantised and back) belongs to its convolution.
    if not is_large_depthwise(node) or not isinstance(weight, torch.fx.Node) or weight.op != "placeholder":
        return None
    parts = rows_of_parts(weight.meta["val"].shape)
    if not parts:
        return None
    stride, padding = _pair(argument_of(node, "stride", 1)), _pair(argument_of(node, "padding", 0))
    order, (data, bias) = node.all_input_nodes, (node.args[0], argument_of(node, "bias", None))
    height, wanted = int(data.meta["val"].shape[2]), int(node.meta["val"].shape[2])  # type: ignore[union-attr]
    shifts = [_shift(first, rows, stride[0], padding[0], height, wanted) for first, rows in parts]

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, taps = (tensors[order.index(each)] for each in (data, weight))  # type: ignore[arg-type]
        added = tensors[order.index(bias)] if bias is not None else None
        total = None
        for (first, rows), shift in zip(parts, shifts, strict=True):
            above = padding[0] - first + stride[0] * shift
            part = functional.conv2d(
                x, taps[:, :, first : first + rows], added if total is None else None, stride,
                (above, padding[1]), 1, x.shape[1],
            )  # fmt: skip
            if part.shape[2] != wanted:
                part = part[:, :, shift : shift + wanted]
            total = part if total is None else total + part
        assert total is not None
        return total

    return form


def _shift(first: int, rows: int, stride: int, padding: int, height: int, wanted: int) -> int:
    """How many rows later a part's result begins when it is padded alike above and below.

    Rows of the input are not cut out: between a quantised tensor and a float convolution ExecuTorch can't.
    """
    above = math.ceil((first - padding) / stride)
    below = math.ceil((stride * (wanted - 1) + rows - height - 2 * padding + 2 * first) / stride)
    return max(0, above, below)


def _pair(value: Any) -> list[int]:
    values = as_list(value)
    return values * 2 if len(values) == 1 else values
