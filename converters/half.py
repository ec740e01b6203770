"""Casts a captured graph to float16 arithmetic with float32 inputs and outputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.export import ExportedProgram

from ..models.program import Capture

_ATEN = torch.ops.aten
# ExecuTorch's kernels of these add up in float16, which makes NaN of numbers that PyTorch normalises in float32; its
# other norms are exact enough.
_SUMMING = (_ATEN.layer_norm.default, _ATEN.instance_norm.default)


class _HalfInside(torch.nn.Module):
    """float32 tensors in, float16 arithmetic, float32 tensors out."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.model = graph

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        halved = [t.half() if t.dtype is torch.float32 else t for t in tensors]
        outputs = self.model(*halved)
        return {k: v.float() if v.dtype is torch.float16 else v for k, v in outputs.items()}


def cast_to_half(capture: Capture) -> ExportedProgram:
    """A program that computes what ``capture`` does in float16.

    Weights and constants are cast, and operators that name float32 as a dtype name float16 instead. Layer and
    instance normalisations stay in float32, with their weights.
    """
    # A copy: the unlifted module shares its weights with the program, which others still convert.
    graph = copy.deepcopy(capture.program.module())
    kept = _kept_weights(graph)
    for name, tensor in [*graph.named_parameters(), *graph.named_buffers()]:
        if tensor.dtype is torch.float32 and name not in kept:
            tensor.data = tensor.data.half()
    for name, value in list(vars(graph).items()):
        if isinstance(value, torch.Tensor) and value.dtype is torch.float32 and name not in kept:
            setattr(graph, name, value.half())
    for node in list(graph.graph.nodes):
        if node.op == "call_function":
            node.args = tuple(_half_dtype(argument) for argument in node.args)
            node.kwargs = {key: _half_dtype(argument) for key, argument in node.kwargs.items()}
            if node.target in _SUMMING:
                _compute_in_float(node, kept)
    # The guards were written for float32 inputs.
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and "guard" in str(node.target):
            graph.graph.erase_node(node)
    graph.recompile()
    shapes = capture.dynamic_shapes
    with torch.no_grad():
        return torch.export.export(
            _HalfInside(graph), capture.source.example, dynamic_shapes=shapes, strict=False
        )


def _half_dtype(argument: Any) -> Any:
    return torch.float16 if argument is torch.float32 else argument


def _kept_weights(graph: torch.fx.GraphModule) -> set[str]:
    """The weights of normalisations and of nothing else."""
    users: dict[str, list[torch.fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            users.setdefault(str(node.target), []).extend(node.users)
    return {name for name, nodes in users.items() if all(node.target in _SUMMING for node in nodes)}


def _compute_in_float(node: torch.fx.Node, kept: set[str]) -> None:
    """Cast what ``node`` takes to float32, and its result back to float16."""
    graph = node.graph
    with graph.inserting_before(node):
        for source in node.all_input_nodes:
            if source.op != "get_attr" or source.target not in kept:
                node.replace_input_with(source, graph.call_function(_ATEN.to.dtype, (source, torch.float32)))
    with graph.inserting_after(node):
        result = graph.call_function(_ATEN.to.dtype, (node, torch.float16))
    node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
