"""Casts a captured graph to float16 arithmetic with float32 inputs and outputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.export import ExportedProgram

from ..models.program import Capture


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

    Weights and constants are cast, and operators that name float32 as a dtype name float16 instead.
    """
    # A copy: the unlifted module shares its weights with the program, which others still convert.
    graph = copy.deepcopy(capture.program.module())
    for tensor in [*graph.parameters(), *graph.buffers()]:
        if tensor.dtype is torch.float32:
            tensor.data = tensor.data.half()
    for name, value in list(vars(graph).items()):
        if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
            setattr(graph, name, value.half())
    for node in graph.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(_half_dtype(argument) for argument in node.args)
            node.kwargs = {key: _half_dtype(argument) for key, argument in node.kwargs.items()}
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
