"""Equal forms of operators that add, or reduce otherwise, into a tensor at given positions; see `equal_forms`.

LiteRT's converter writes them as a STABLEHLO_SCATTER with a subgraph for the sum, which its runtime doesn't take, and
ExecuTorch has no kernel for other reductions than sums. Here positions become a mask over (position, element), and a
sum is a product with it: index_add(x, i, s) = x + [arange(n) = i] · s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ..models.nodes import argument_of, as_list

_ATEN = torch.ops.aten
Form = Callable[..., Any]
# Beyond it (a mask of 4 MiB in float32) the mask costs more than its use is worth.
_MOST_ELEMENTS = 2**20
_IN_PLACE = (
    _ATEN.index_add_.default, _ATEN.scatter_add_.default, _ATEN.scatter_reduce_.two, _ATEN.index_put_.default,
    _ATEN.index_reduce_.default,
)  # fmt: skip


def scatter_by_mask(node: torch.fx.Node) -> Form | None:
    """scatter_add and scatter_reduce: one position for each element along an axis."""
    held, axis, index, source = node.args[:4]
    shape, size = held.meta["val"].shape, index.meta["val"].shape  # type: ignore[union-attr]
    if not shape:
        return None
    axis = int(axis) % len(shape)  # type: ignore[arg-type]
    # Of a source that is larger only the first part is read; a larger target is left alone beyond it.
    if source.meta["val"].shape != size or any(  # type: ignore[union-attr]
        a != axis and shape[a] != size[a] for a in range(len(shape))
    ):
        return None
    alike = _repeated_axes(index) - {axis}  # type: ignore[arg-type]
    return _form(node, axis, alike)


def index_by_mask(node: torch.fx.Node) -> Form | None:
    """index_add and index_reduce: one position for each slice along an axis."""
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    if not shape:
        return None
    axis = int(node.args[1]) % len(shape)  # type: ignore[arg-type]
    return _form(node, axis, set(range(len(shape))) - {axis})


def put_by_mask(node: torch.fx.Node) -> Form | None:
    """``x.index_put((i, j), values, accumulate=True)``: positions along the first axes."""
    held, indices, values = node.args[:3]
    if not argument_of(node, "accumulate", False) or not isinstance(indices, list | tuple):
        return None
    if not all(isinstance(i, torch.fx.Node) and not i.meta["val"].dtype.is_floating_point for i in indices):
        return None
    if any(i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices):
        return None
    shape = list(held.meta["val"].shape)  # type: ignore[union-attr]
    positions, rest = math.prod(shape[: len(indices)]), shape[len(indices) :]
    count = math.prod(torch.broadcast_shapes(*(i.meta["val"].shape for i in indices)))
    if positions * count > _MOST_ELEMENTS:
        return None
    order = node.all_input_nodes
    in_place = node.target in _IN_PLACE

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, v = (tensors[order.index(n)] for n in (held, values))  # type: ignore[arg-type]
        given = [tensors[order.index(n)] for n in indices]
        place = torch.zeros((), dtype=torch.int64)
        for each, size in zip(given, shape, strict=False):
            place = place * size + torch.where(each < 0, each + size, each)
        rows = v.expand(*place.shape, *rest).reshape(count, math.prod(rest))
        flat = place.reshape(count, 1)
        found = _reduced("sum", x.reshape(positions, -1), 0, flat, rows, include_self=True).reshape(shape)
        return x.copy_(found) if in_place else found

    return form


def fold_by_convolution(node: torch.fx.Node) -> Form | None:
    """``F.fold``: columns are added where their patches overlap, as a transposed convolution with ones does."""
    size, kernel, dilation, padding, stride = (as_list(each) for each in node.args[1:6])
    columns = node.args[0].meta["val"]  # type: ignore[union-attr]
    if dilation != [1, 1] or columns.ndim != 3:
        return None
    taps = math.prod(kernel)
    counts = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, kernel, stride, strict=True)]
    batch, channels = columns.shape[0], columns.shape[1] // taps
    one_a_tap = torch.eye(taps, dtype=columns.dtype).reshape(taps, 1, *kernel)

    def form(x: torch.Tensor) -> torch.Tensor:
        patches = x.reshape(batch * channels, taps, *counts)
        whole = functional.conv_transpose2d(patches, one_a_tap, stride=stride)
        missing = [n + 2 * p - w for n, p, w in zip(size, padding, whole.shape[2:], strict=True)]
        if any(missing):
            whole = functional.pad(whole, (0, missing[1], 0, missing[0]))
        for axis in (0, 1):
            whole = whole.narrow(axis + 2, padding[axis], size[axis])
        return whole.reshape(batch, channels, *size)

    return form


def _form(node: torch.fx.Node, axis: int, alike: set[int]) -> Form | None:
    """The form of a node of (held, axis, index, source, ...).

    Args:
        alike: axes along which the index is the same.
    """
    held, _, index, source = node.args[:4]
    reduction = str(argument_of(node, "reduce", "sum"))
    if reduction not in ("sum", "mean", "amax", "amin"):
        return None
    alpha = argument_of(node, "alpha", 1)
    include_self = bool(argument_of(node, "include_self", True))
    value, order = source.meta["val"], node.all_input_nodes  # type: ignore[union-attr]
    rank, length = value.ndim, held.meta["val"].shape[axis]  # type: ignore[union-attr]
    # A product keeps the axes apart along which the index is the same; other reductions need all at once.
    product = reduction in ("sum", "mean") and value.is_floating_point()
    kept = [value.shape[a] for a in range(rank) if not product or a not in alike]
    if length * math.prod(kept) > _MOST_ELEMENTS:
        return None
    in_place = node.target in _IN_PLACE

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, places, parts = (tensors[order.index(n)] for n in (held, index, source))  # type: ignore[arg-type]
        if places.ndim != rank:
            places = places.reshape([-1 if a == axis else 1 for a in range(rank)])
        for each in alike:
            places = places.narrow(each, 0, 1)
        parts = parts * alpha if alpha != 1 else parts
        found = _reduced(reduction, x, axis, places, parts, include_self=include_self)
        return x.copy_(found) if in_place else found

    return form


def _reduced(
    reduction: str,
    held: torch.Tensor,
    axis: int,
    places: torch.Tensor,
    parts: torch.Tensor,
    *,
    include_self: bool,
) -> torch.Tensor:
    """``held`` with ``parts`` reduced into the positions ``places`` along an axis.

    Args:
        places: of the rank of ``parts``, with one element along axes where it is the same.
    """
    others = [a for a in range(held.ndim) if a != axis]
    differ = [a for a in others if places.shape[a] != 1]
    order = [*differ, axis, *(a for a in others if a not in differ)]
    back = [order.index(a) for a in range(held.ndim)]
    count, length = parts.shape[axis], held.shape[axis]
    rows = parts.permute(order).reshape(
        -1, count, math.prod(parts.shape[a] for a in order[len(differ) + 1 :])
    )
    positions = torch.arange(length, dtype=places.dtype).reshape(1, length, 1)
    mask = positions == places.permute(order).reshape(-1, 1, count)

    def as_held(value: torch.Tensor) -> torch.Tensor:
        sizes = [length if a == axis else held.shape[a] for a in order]
        return value.expand(*value.shape[:2], rows.shape[2]).reshape(sizes).permute(back)

    if reduction in ("amax", "amin"):
        sign = -1 if reduction == "amin" else 1
        found = as_held(_largest(mask, rows * sign)) * sign
        if include_self:
            return torch.maximum(held, found) if sign > 0 else torch.minimum(held, found)
        return torch.where(as_held(mask.any(-1, keepdim=True)), found, held)
    found = as_held(_sum(mask, rows))
    if reduction == "sum" and include_self:
        return held + found
    counts = as_held(mask.to(parts.dtype).sum(-1, keepdim=True))
    if reduction == "sum":
        return torch.where(counts > 0, found, held)
    if include_self:
        return (held + found) / (counts + 1)
    return torch.where(counts > 0, found / counts.clamp(min=1), held)


def _sum(mask: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    if not rows.is_floating_point():
        return torch.where(mask.unsqueeze(-1), rows.unsqueeze(1), 0).sum(2, dtype=rows.dtype)
    ones = mask.to(rows.dtype)
    # A product without a batch is one that delegates know.
    return (ones[0] @ rows[0]).unsqueeze(0) if len(ones) == 1 else ones @ rows


def _largest(mask: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    limits = torch.finfo(rows.dtype) if rows.is_floating_point() else torch.iinfo(rows.dtype)
    return torch.where(mask.unsqueeze(-1), rows.unsqueeze(1), limits.min).amax(2)


def _repeated_axes(node: torch.fx.Node) -> set[int]:
    """The axes along which an expansion repeats what it expands."""
    if node.target is not _ATEN.expand.default:
        return set()
    sizes, before = node.meta["val"].shape, node.args[0].meta["val"].shape  # type: ignore[union-attr]
    new = len(sizes) - len(before)
    return {a for a, n in enumerate(sizes) if n != 1 and (a < new or before[a - new] == 1)}
