"""Equal forms of operators that take whole numbers as positions; see `equal_forms`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

_ATEN = torch.ops.aten
Form = Callable[..., Any]
_MOST_COPIES = 16


def masked_assignment(node: torch.fx.Node) -> Form | None:
    """``x[mask] = value`` with a mask of x's shape: LiteRT wants masks to be constants.

    where(mask, value, x), for a value that is one number.
    """
    target, indices, value = node.args[:3]
    accumulate = len(node.args) > 3 and bool(node.args[3])
    mask = indices[0] if isinstance(indices, list | tuple) and len(indices) == 1 else None
    if accumulate or not isinstance(mask, torch.fx.Node) or not isinstance(value, torch.fx.Node):
        return None
    whole = mask.meta["val"].dtype is torch.bool and mask.meta["val"].shape == target.meta["val"].shape  # type: ignore[union-attr]
    if not whole or value.meta["val"].numel() != 1:
        return None
    order = node.all_input_nodes
    in_place = node.target is _ATEN.index_put_.default

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, m, v = (tensors[order.index(n)] for n in (target, mask, value))  # type: ignore[arg-type]
        found = torch.where(m, v.reshape(()).to(x.dtype), x)
        return x.copy_(found) if in_place else found

    return form


def one_hot(node: torch.fx.Node) -> Form | None:
    """One-hot rows: torch checks the range of the classes with assertions that litert-torch can't lower.

    x[..., None] == arange(classes), for a number of classes that the model says.
    """
    classes = node.args[1] if len(node.args) > 1 else node.kwargs.get("num_classes", -1)
    if not isinstance(classes, int) or classes < 1:
        return None
    return lambda x: (x.unsqueeze(-1) == torch.arange(classes, dtype=x.dtype)).to(x.dtype)


def index_copy(node: torch.fx.Node) -> Form | None:
    """A copy to positions along an axis (a cache of keys and values): LiteRT writes a loop in subgraphs of its own.

    where(arange(n) == index, source, x), one for each of a few positions.
    """
    x, dim, index, source = node.args[:4]
    value = x.meta["val"]  # type: ignore[union-attr]
    count = index.meta["val"].numel()  # type: ignore[union-attr]
    if not value.ndim or not 1 <= count <= _MOST_COPIES:
        return None
    axis = int(dim) % value.ndim  # type: ignore[arg-type]
    shape = [-1 if each == axis else 1 for each in range(value.ndim)]
    order = node.all_input_nodes
    in_place = node.target is _ATEN.index_copy_.default

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        held, places, rows = (tensors[order.index(n)] for n in (x, index, source))  # type: ignore[arg-type]
        found, positions = held, torch.arange(held.shape[axis], dtype=places.dtype).reshape(shape)
        for number in range(count):
            row = rows.narrow(axis, number, 1)
            found = torch.where(positions == places.reshape(-1).narrow(0, number, 1), row, found)
        return held.copy_(found) if in_place else found

    return form


def embedding_bag(node: torch.fx.Node) -> Form | None:
    """Embedding bags of equal length: neither format has them. Embedding, then a sum, mean or maximum."""
    arguments = [*node.args, *[None] * (9 - len(node.args))]
    weights, indices, offsets, _, mode, _, per_sample, include_last, padding = arguments
    read = {user.args[1] for user in node.users if user.users}
    plain = per_sample is None and not include_last and padding in (None, -1) and read <= {0}
    if not plain or not isinstance(offsets, torch.fx.Node) or not _counts_evenly(offsets):
        return None
    bags = offsets.meta["val"].shape[0]
    order = node.all_input_nodes

    def form(*tensors: torch.Tensor) -> list[torch.Tensor]:
        table, index = tensors[order.index(weights)], tensors[order.index(indices)]  # type: ignore[arg-type]
        rows = functional.embedding(index.reshape(bags, -1), table)
        found = (rows.sum(1), rows.mean(1), rows.amax(1))[int(mode or 0)]  # type: ignore[call-overload]
        return [found]

    return form


def _counts_evenly(offsets: torch.fx.Node) -> bool:
    """Whether a node is ``arange(0, n, step)``, which is how a two-dimensional input of bags is written."""
    return offsets.target in (_ATEN.arange.start_step, _ATEN.arange.default)
