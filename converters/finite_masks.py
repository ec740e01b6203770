"""Writes the infinities of masks as large numbers in a static int8 .tflite file.

LiteRT's converter gives every constant of a quantised graph a scale, used or not, and fails on that of an infinity.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram

_ATEN = torch.ops.aten
# Far below any score, so that its exponential is 0, and far from overflowing when two masks are added.
_FAR = 1e30
_MAKING = {
    _ATEN.scalar_tensor.default: 0, _ATEN.full.default: 1, _ATEN.full_like.default: 1,
    _ATEN.masked_fill.Scalar: 2,
}  # fmt: skip
_ASKING = (_ATEN.isinf, _ATEN.isfinite, _ATEN.isneginf, _ATEN.isposinf)
_COMPARING = (_ATEN.eq, _ATEN.ne, _ATEN.lt, _ATEN.le, _ATEN.gt, _ATEN.ge)


def use_finite_masks(program: ExportedProgram) -> None:
    """Put ±1e30 for ±infinity in every constant of a program, in place; one that asks for infinities stays as it is."""
    graph = program.graph_module.graph
    if any(_asks(node) for node in graph.nodes):
        return
    for node in graph.nodes:
        position = _MAKING.get(node.target)
        if position is not None and len(node.args) > position and _is_infinite(node.args[position]):
            node.update_arg(position, math.copysign(_FAR, node.args[position]))
    program.graph_module.recompile()
    for held in (program.state_dict, program.constants):
        for name, value in list(held.items()):
            floats = isinstance(value, torch.Tensor) and value.dtype == torch.float32
            if floats and bool(torch.isinf(value).any()):
                finite = value.detach().clamp(-_FAR, _FAR)
                held[name] = torch.nn.Parameter(finite) if isinstance(value, torch.nn.Parameter) else finite


def _asks(node: torch.fx.Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return packet in _ASKING or (packet in _COMPARING and any(_is_infinite(each) for each in node.args))


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)
