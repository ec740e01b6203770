"""Which attention needs no softmax that looks for rows which are masked as a whole."""

from __future__ import annotations

import torch

from .nodes import argument_of
from .workload import node_shape


def is_plain_attention(node: torch.fx.Node) -> bool:
    """Whether no row of a ``scaled_dot_product_attention`` can be masked as a whole, and all its batches are alike."""
    shapes = [tuple(node_shape(each)) for each in node.args[:3]]
    altered = ("attn_mask", "dropout_p", "enable_gqa")
    if any(argument_of(node, name, None) not in (None, 0.0, False) for name in altered):
        return False
    return len(shapes[0]) > 2 and len({shape[:-2] for shape in shapes}) == 1
