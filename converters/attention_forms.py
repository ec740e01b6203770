"""Products of batches of matrices, and attention, written as ExecuTorch's delegate executes them in one piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..models.attention import is_plain_attention
from ..models.nodes import argument_of
from ..models.workload import node_shape

Form = Callable[..., Any]


def plain_attention(node: torch.fx.Node) -> Form | None:
    """Attention in which no row can be masked as a whole: softmax(q·kᵀ·scale)·v (arXiv:1706.03762, equation 1).

    ExecuTorch writes it with a softmax that gives zeros where everything is masked, for which it compares all
    scores, and expands and copies both sides of each product: 5 of 13 ms of a SegFormer-B0.
    """
    if not is_plain_attention(node):
        return None
    query, key, value = node.args[:3]
    rows, width = node_shape(query)[-2:]
    scale = argument_of(node, "scale", None) or 1 / math.sqrt(width)
    causal = bool(argument_of(node, "is_causal", False))
    bias = torch.full((rows, node_shape(key)[-2]), -math.inf).triu(1) if causal else None
    order = node.all_input_nodes

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        q, k, v = (tensors[order.index(each)] for each in (query, key, value))
        scores = torch.bmm(_as_batch(q * scale), _as_batch(k).transpose(1, 2))
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        return torch.bmm(torch.softmax(scores, -1), _as_batch(v)).reshape(*q.shape[:-1], v.shape[-1])

    return form


def product_of_batches(node: torch.fx.Node) -> Form | None:
    """A product of two batches of equal sizes, as one of matrices: ExecuTorch expands and copies both sides else."""
    left, right = (each.meta["val"] for each in node.args[:2])  # type: ignore[union-attr]
    if left.ndim < 3 or left.shape[:-2] != right.shape[:-2]:
        return None
    order, roles = node.all_input_nodes, node.args[:2]

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, y = (tensors[order.index(each)] for each in roles)  # type: ignore[arg-type]
        return torch.bmm(_as_batch(x), _as_batch(y)).reshape(*x.shape[:-1], y.shape[-1])

    return form


def _as_batch(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, *x.shape[-2:])
