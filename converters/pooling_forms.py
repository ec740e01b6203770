"""Poolings in terms of operators that both formats have, or have fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ..models.nodes import argument_of, as_list


def max_over_bins(node: torch.fx.Node) -> Callable[..., Any] | None:
    """Adaptive max pooling: neither format has it. Bin i covers floor(i·n/m) to ceil((i+1)·n/m)."""
    if any(user.args[1] == 1 and user.users for user in node.users):
        return None  # Someone reads the positions of the maxima.
    bins = as_list(node.args[1])
    axes = list(range(-len(bins), 0))

    def form(x: torch.Tensor) -> list[torch.Tensor]:
        if bins == [1] * len(bins):
            return [x.amax(axes, keepdim=True)]
        if all(x.shape[axis] % count == 0 for axis, count in zip(axes, bins, strict=True)):
            kernel = [x.shape[axis] // count for axis, count in zip(axes, bins, strict=True)]
            pool = functional.max_pool1d if len(bins) == 1 else functional.max_pool2d
            return [pool(x, kernel, kernel)]
        for axis, count in zip(axes, bins, strict=True):
            x = _largest_of_bins(x, axis, count)
        return [x]

    return form


def _largest_of_bins(x: torch.Tensor, dim: int, bins: int) -> torch.Tensor:
    size = x.shape[dim]
    parts = []
    for index in range(bins):
        start, end = index * size // bins, math.ceil((index + 1) * size / bins)
        parts.append(x.narrow(dim, start, end - start).amax(dim, keepdim=True))
    return torch.cat(parts, dim)


def mean_of_all(node: torch.fx.Node) -> Callable[..., Any] | None:
    """Average pooling with one window over the whole image.

    Some models write a window larger than any image (1280 × 1280 in transformers' EfficientNet); kernels walk all of it,
    two seconds long. What lies outside the image counts for nothing, so this is the mean.
    """
    image, result = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    padding = node.args[3] if len(node.args) > 3 else 0
    divisor = node.args[6] if len(node.args) > 6 else None
    window = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
    sizes = [int(size) for size in (*window, *window)[:2]] if window else []  # type: ignore[call-overload]
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    covers = len(sizes) == 2 and sizes[0] >= image.shape[-2] and sizes[1] >= image.shape[-1]
    if padded or divisor is not None or not covers or tuple(result.shape[-2:]) != (1, 1):
        return None
    return lambda x: x.mean((-2, -1), keepdim=True)


def pool_by_axes(node: torch.fx.Node) -> Callable[..., Any] | None:
    """Pooling of a volume: ExecuTorch has none. First over height and width, then over depth.

    A maximum comes apart so in any case, an average where every window counts as many elements.
    """
    names = ("input", "kernel", "stride", "padding")
    maximum = "max" in str(node.target)
    more = ("dilation", "ceil_mode") if maximum else ("ceil_mode", "count_include_pad", "divisor_override")
    given = {**dict(zip((*names, *more), node.args, strict=False)), **node.kwargs}

    def sizes(name: str, default: Any) -> list[int]:
        value = given.get(name) or default
        values = list(value) if isinstance(value, list | tuple) else [value]
        return [int(each) for each in (values * 3 if len(values) == 1 else values)]

    kernel = sizes("kernel", 1)
    stride, padding, dilation = sizes("stride", kernel), sizes("padding", 0), sizes("dilation", 1)
    uneven = any(padding) and not given.get("count_include_pad", True)
    unbatched = node.meta["val"].ndim != 5
    if unbatched or given.get("ceil_mode") or uneven or given.get("divisor_override") is not None:
        return None

    def pool(
        x: torch.Tensor, window: list[int], step: list[int], edge: list[int], spread: list[int]
    ) -> torch.Tensor:
        if maximum:
            return functional.max_pool2d(x, window, step, edge, spread)
        return functional.avg_pool2d(x, window, step, edge)

    def form(x: torch.Tensor) -> torch.Tensor:
        batch, channels, depth, height, width = x.shape
        flat = x.reshape(batch, channels * depth, height, width)
        plane = pool(flat, kernel[1:], stride[1:], padding[1:], dilation[1:])
        height, width = plane.shape[-2:]
        rows = plane.reshape(batch, channels, depth, height * width)
        found = pool(rows, [kernel[0], 1], [stride[0], 1], [padding[0], 0], [dilation[0], 1])
        return found.reshape(batch, channels, found.shape[2], height, width)

    return form


def largest_along_axis(node: torch.fx.Node) -> Callable[..., Any] | None:
    """The largest value along an axis (``x.max(-1)[0]``), in .pte files: XNNPACK's part of ExecuTorch takes it of images, and
    then breaks off; where rows or columns are kept, a quantised file may fail when it runs."""
    read = {user.args[1] for user in node.users if user.users}
    dim, kept = node.args[1], bool(argument_of(node, "keepdim", False))
    if 1 in read:
        return None
    return lambda x: (x.amax(dim, keepdim=kept),)
