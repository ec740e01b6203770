"""Paddings in terms that both exporters read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ..models.nodes import argument_of, as_list

_MOST_JOINED = 5
_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def padding_in_numbers(node: torch.fx.Node) -> Callable[..., Any]:
    """A convolution whose padding is a word (``same``, ``valid``): LiteRT's exporter reads numbers only, and with numbers
    ExecuTorch's needs no padding of its own before a layer."""
    weight = node.args[1].meta["val"]  # type: ignore[union-attr]
    axes = weight.ndim - 2
    stride, dilation = (
        (as_list(argument_of(node, name, 1)) * axes)[:axes] for name in ("stride", "dilation")
    )
    same = argument_of(node, "padding", "valid") == "same"
    groups = int(argument_of(node, "groups", 1))
    totals = [d * (size - 1) if same else 0 for d, size in zip(dilation, weight.shape[2:], strict=True)]
    # Of an odd number of rows PyTorch adds the one more behind.
    uneven = [side for total in reversed(totals) for side in (0, total % 2)]
    order, roles = node.all_input_nodes, [node.args[0], node.args[1], argument_of(node, "bias", None)]

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        x, filters, bias = (tensors[order.index(role)] if role is not None else None for role in roles)  # type: ignore[arg-type]
        assert x is not None
        x = functional.pad(x, uneven) if any(uneven) else x
        padding = [total // 2 for total in totals]
        found: torch.Tensor = _CONVOLUTIONS[weight.ndim](x, filters, bias, stride, padding, dilation, groups)
        return found

    return form


def without_padding(node: torch.fx.Node) -> Callable[..., Any] | None:
    """Padding by nothing, as models that take images of any size have it (Swin): both runtimes copy the tensor."""
    source = node.args[0]
    if any(side != 0 for side in node.args[1]) or source.op == "placeholder":  # type: ignore[union-attr]
        return None
    return lambda x: x


def border_by_slices(node: torch.fx.Node) -> Callable[..., Any] | None:
    """A border that reflects or repeats the image, in .pte files: ExecuTorch computes positions and picks each pixel by
    them, outside of XNNPACK, between two turns of the whole image."""
    mode, sides = argument_of(node, "mode", "constant"), as_list(node.args[1])
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    if mode not in ("reflect", "replicate") or not all(0 <= side <= _MOST_JOINED for side in sides):
        return None

    def form(x: torch.Tensor) -> torch.Tensor:
        for axis, (before, after) in enumerate(pairs, start=1):
            last = x.shape[-axis] - 1
            # Counted from the edge inwards; the outermost row is the furthest one in.
            inward = range(1, max(before, after) + 1) if mode == "reflect" else [0] * max(before, after)
            first = [x.narrow(-axis, row, 1) for row in reversed(inward[:before])]
            end = [x.narrow(-axis, last - row, 1) for row in inward[:after]]
            # XNNPACK joins five tensors at most.
            parts = [torch.cat(rows, -axis) if len(rows) > 1 else rows[0] for rows in (first, end) if rows]
            if parts:
                x = torch.cat([*parts[: bool(first)], x, *parts[bool(first) :]], -axis)
        return x

    return form
