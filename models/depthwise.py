"""Which depthwise convolutions are too large for XNNPACK's kernels, and into which parts they go."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .nodes import argument_of, as_list
from .workload import node_shape

MAX_TAPS = 25  # of the largest unipass kernel, XNNPACK of ExecuTorch 1.5 and LiteRT 2.3


def is_large_depthwise(node: torch.fx.Node) -> bool:
    """Whether a node is a two-dimensional depthwise convolution with more taps than XNNPACK has kernels for."""
    if node.target is not torch.ops.aten.conv2d.default:
        return False
    data, weight = (node_shape(each) for each in node.args[:2])
    alone = len(data) == 4 and weight[1] == 1 and weight[0] == argument_of(node, "groups", 1) == data[1]
    close = all(each == 1 for each in as_list(argument_of(node, "dilation", 1)))
    return alone and close and weight[2] * weight[3] > MAX_TAPS


def rows_of_parts(weight: Sequence[int]) -> list[tuple[int, int]]:
    """(first row, rows) of the parts of a filter (channels, 1, height, width); empty where a row alone is too long."""
    height, width = weight[2], weight[3]
    each = MAX_TAPS // width
    return [(first, min(each, height - first)) for first in range(0, height, each)] if each else []
