"""Keeps LiteRT's converter from giving one scale to what needs two in a static int8 .tflite file.

Operators that move or choose values (GATHER, SELECT_V2, CONCATENATION, ...) have one scale there for all they read and
write. The converter takes that of an operand that is quantised to the others, quantised or not: what a mask or a cache
holds beyond it is cut off. Where two scales meet it fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from ..models.nodes import op_name
from .rewriting import held_tensors

Scale = tuple[Any, ...]
_QUANTIZE = "quantize_per_tensor"
_DEQUANTIZE = "dequantize_per_tensor"
# Names without _copy.
_MOVING = {
    "view", "reshape", "_unsafe_view", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "contiguous",
    "clone", "flatten", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "getitem", "gather",
    "index", "index_select", "repeat", "flip", "roll", "alias", "constant_pad_nd", "amax", "amin", "max_pool2d",
    "max_pool2d_with_indices",
}  # fmt: skip
_CHOOSING = {
    "where", "masked_fill", "maximum", "minimum", "cat", "stack", "index_copy", "index_put", "select_scatter",
    "slice_scatter", "scatter", "copy",
}  # fmt: skip
_MAKING = {"scalar_tensor": 0, "full": 1, "full_like": 1}
# A factor of 1 would be dropped; this is the next float32.
ALMOST_ONE = 1 + 2**-23


def part_scales(program: ExportedProgram) -> None:
    """Put a multiplication between what has different scales, in place: to the converter it moves no values.

    It is computed in int8 where its result is quantised, and in float32 where it isn't, as is what it goes into.
    """
    graph = program.graph_module.graph
    held = held_tensors(program)
    scales = _scales_of_sources(graph)
    for node in list(graph.nodes):
        if _name(node) == _QUANTIZE:
            if _scale_of(node.args[0], scales) not in (None, _scale(node)):
                _part(node, node.args[0])  # type: ignore[arg-type]
        elif _name(node) in _CHOOSING:
            operands = {each: _scale_of(each, scales) for each in node.all_input_nodes if _is_float(each)}
            known = {scale for scale in operands.values() if scale is not None}
            others = [each for each, scale in operands.items() if scale is None]
            if len(known) > 1 or (known and not all(_fits(each, held, *known) for each in others)):
                for operand, scale in operands.items():
                    if scale is not None:
                        _part(node, operand)
    program.graph_module.recompile()


def _scales_of_sources(graph: torch.fx.Graph) -> dict[torch.fx.Node, Scale]:
    """What is dequantised, and what is quantised without being moved before: the converter has both in that scale."""
    scales = {node: _scale(node) for node in graph.nodes if _name(node) == _DEQUANTIZE}
    for node in graph.nodes:
        if _name(node) == _QUANTIZE and _name(node.args[0]) not in _CHOOSING | _MOVING:
            scales.setdefault(node.args[0], _scale(node))
    return scales


def _part(reader: torch.fx.Node, operand: torch.fx.Node) -> None:
    graph = reader.graph
    with graph.inserting_before(reader):
        product = graph.call_function(torch.ops.aten.mul.Tensor, (operand, ALMOST_ONE))
    product.meta = dict(operand.meta)
    reader.replace_input_with(operand, product)


def _scale_of(node: torch.fx.Node, scales: dict[torch.fx.Node, Scale]) -> Scale | None:
    """The scale of what ``node`` holds, moved perhaps or chosen from values of one scale."""
    if node in scales:
        return scales[node]
    if _name(node) in _MOVING:
        return _scale_of(node.args[0], scales)  # type: ignore[arg-type]
    if _name(node) in _CHOOSING:
        found = {_scale_of(each, scales) for each in node.all_input_nodes if _is_float(each)} - {None}
        return found.pop() if len(found) == 1 else None
    return None


def _scale(node: torch.fx.Node) -> Scale:
    """Scale, zero point and the limits of the integers."""
    return tuple(node.args[1:5])


def _fits(node: torch.fx.Node, held: dict[torch.fx.Node, torch.Tensor], scale_of_others: Scale) -> bool:
    """Whether a node is a constant within the range that a scale has."""
    scale, zero_point, low, high = scale_of_others
    while _name(node) in _MOVING:
        node = node.args[0]  # type: ignore[assignment]
    position = _MAKING.get(_name(node))
    value = held.get(node) if position is None else torch.tensor(float(node.args[position]))  # type: ignore[arg-type]
    if value is None or not isinstance(scale, float):
        return False
    least, most = (scale * (limit - zero_point) for limit in (low - 0.5, high + 0.5))
    return bool((value >= least).all() and (value <= most).all())


def _is_float(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _name(node: torch.fx.Node) -> str:
    return op_name(node).removesuffix("_copy")
