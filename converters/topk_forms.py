"""Equal forms of operators that put values in order; see `equal_forms`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..models.nodes import argument_of

Form = Callable[..., Any]


def sort_by_topk(node: torch.fx.Node) -> Form | None:
    """Sorting: neither format's runtime has it, and both have topk.

    The order of equal elements isn't kept, nor does torch.sort promise it.
    """
    dim = int(argument_of(node, "dim", -1))
    descending = bool(argument_of(node, "descending", False))
    if _is_scalar(node):
        return None
    return lambda x: list(torch.topk(x, x.shape[dim], dim=dim, largest=descending))


def order_by_topk(node: torch.fx.Node) -> Form | None:
    """The order of a sort alone: the same, without the values."""
    dim = int(argument_of(node, "dim", -1))
    descending = bool(argument_of(node, "descending", False))
    if _is_scalar(node):
        return None
    return lambda x: torch.topk(x, x.shape[dim], dim=dim, largest=descending)[1]


def topk_by_positions(node: torch.fx.Node) -> Form | None:
    """topk of another axis, of the smallest, or of which only the values are read: LiteRT's runtime takes none.

    Its topk is that of the largest along the last axis, and litert-torch knows it by its indices: the values
    are gathered with them.
    """
    k, dim = int(argument_of(node, "k", 1)), int(argument_of(node, "dim", -1))
    largest = bool(argument_of(node, "largest", True))
    value = node.args[0].meta["val"]  # type: ignore[union-attr]
    if _is_scalar(node):
        return None
    last = dim % value.ndim == value.ndim - 1
    if largest and last and any(user.args[1] == 1 and user.users for user in node.users):
        return None
    # Negating turns the smallest into the largest, except for the least of the integers.
    if not largest and not value.dtype.is_floating_point:
        return None

    def form(x: torch.Tensor) -> list[torch.Tensor]:
        moved = x if last else x.transpose(dim, -1)
        _, indices = torch.topk(moved if largest else -moved, k, dim=-1)
        values = moved.gather(-1, indices)
        return [values, indices] if last else [values.transpose(dim, -1), indices.transpose(dim, -1)]

    return form


def _is_scalar(node: torch.fx.Node) -> bool:
    return bool(node.args[0].meta["val"].ndim == 0)  # type: ignore[union-attr]
