"""Poolings in terms of operators that both formats have, or have fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


def max_over_bins(node: torch.fx.Node) -> Callable[..., Any] | None:
    """Adaptive max pooling: neither format has it. Bin i covers floor(i·n/m) to ceil((i+1)·n/m)."""
    if any(user.args[1] == 1 and user.users for user in node.users):
        return None  # Someone reads the positions of the maxima.
    height, width = node.args[1]  # type: ignore[misc]

    def form(x: torch.Tensor) -> list[torch.Tensor]:
        if x.shape[-2] % height == 0 and x.shape[-1] % width == 0:
            kernel = (x.shape[-2] // height, x.shape[-1] // width)
            found = functional.max_pool2d(x, kernel, kernel)
        else:
            found = _largest_of_bins(_largest_of_bins(x, -2, height), -1, width)
        return [found]

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
