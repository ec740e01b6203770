"""Products of batches of matrices, and attention, written as ExecuTorch's delegate executes them in one piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Form = Callable[..., Any]


def plain_attention(node: torch.fx.Node) -> Form | None:
    """Attention in which no row can be masked as a whole: softmax(q·kᵀ·scale)·v (arXiv:1706.03762, equation 1).

    ExecuTorch writes it with a softmax that gives zeros where everything is masked, for which it compares all
    scores, and expands and copies both sides of each product: 5 of 13 ms of a SegFormer-B0.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    query, key, value = (given[name] for name in names[:3])
    shapes = [tuple(each.meta["val"].shape) for each in (query, key, value)]
    if given.get("attn_mask") is not None or given.get("dropout_p") or given.get("enable_gqa"):
        return None
    if len(shapes[0]) < 3 or len({shape[:-2] for shape in shapes}) != 1:
        return None
    rows, width, columns = shapes[0][-2], shapes[0][-1], shapes[1][-2]
    scale = given.get("scale") or 1 / math.sqrt(width)
    causal = bool(given.get("is_causal"))
    bias = torch.full((rows, columns), -math.inf).triu(1) if causal else None
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
