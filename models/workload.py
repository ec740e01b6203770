"""How much work a captured model is, and of what kind: multiply-accumulates by operator family."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

_ATEN = torch.ops.aten
_CONV = {_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default, _ATEN.convolution.default,
         _ATEN.conv1d.padding, _ATEN.conv2d.padding, _ATEN.conv3d.padding,
         _ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input, _ATEN.conv_transpose3d.input}  # fmt: skip
_LINEAR = {_ATEN.linear.default, _ATEN.addmm.default}
_MATMUL = {_ATEN.mm.default, _ATEN.bmm.default, _ATEN.matmul.default, _ATEN.baddbmm.default}
_RECURRENT = {_ATEN.lstm.input, _ATEN.gru.input, _ATEN.rnn_tanh.input, _ATEN.rnn_relu.input}


@dataclass(frozen=True)
class Workload:
    """Multiply-accumulates of one inference, by family; dynamic dimensions count at their example size."""

    conv_macs: int = 0
    linear_macs: int = 0
    attention_macs: int = 0
    recurrent_macs: int = 0
    recurrent_steps: int = 0

    @property
    def macs(self) -> int:
        """All multiply-accumulates of one inference."""
        return self.conv_macs + self.linear_macs + self.attention_macs + self.recurrent_macs

    @property
    def kind(self) -> str:
        """The family that dominates: ``recurrent``, ``transformer``, ``convolutional``, ``linear`` or ``other``."""
        if self.macs == 0:
            return "other"
        if self.recurrent_macs > 0.2 * self.macs or self.recurrent_steps:
            return "recurrent"
        if self.attention_macs > 0 and self.linear_macs > self.conv_macs:
            return "transformer"
        return "convolutional" if self.conv_macs >= self.linear_macs else "linear"


def workload(program: ExportedProgram) -> Workload:
    """The :class:`Workload` of a captured program, counted from the shapes in its graph."""
    totals = {"conv": 0, "linear": 0, "attention": 0, "recurrent": 0}
    steps = 0
    for node in program.graph.nodes:
        cell = _in_recurrent_layer(node)
        for family, macs in _node_macs(node):
            totals["recurrent" if cell else family] += macs
        if node.target in _RECURRENT:
            steps += _recurrent_steps(node)
        elif cell:
            # A layer written out has one linear layer a step; the first is that of all inputs.
            steps += 1 if node.target in _LINEAR else 0
    return Workload(totals["conv"], totals["linear"], totals["attention"], totals["recurrent"], steps)


def node_macs(node: torch.fx.Node) -> int:
    """Multiply-accumulates of one operator of a captured program; 0 for what has none."""
    return sum(macs for _, macs in _node_macs(node))


def _in_recurrent_layer(node: torch.fx.Node) -> bool:
    """Whether a node was a part of torch.nn.LSTM, GRU or RNN before the layer was written out."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return bool(stack) and "torch.nn.modules.rnn." in str(stack[-1][1])


def _node_macs(node: torch.fx.Node) -> Iterator[tuple[str, int]]:
    if node.op != "call_function":
        return
    if node.target in _CONV:
        weight = node_shape(node.args[1])
        data = node_shape(node.args[0] if "transpose" in str(node.target) else node)
        yield "conv", _product(data) // data[1] * _product(weight) if len(data) > 1 else 0
    elif node.target in _LINEAR:
        yield "linear", _product(node_shape(node)) * node_shape(node.args[1])[-1]
    elif node.target in _MATMUL:
        inner = node_shape(node.args[1 if node.target is _ATEN.baddbmm.default else 0])[-1]
        constant = any(isinstance(arg, torch.fx.Node) and arg.op == "placeholder" for arg in node.args[1:2])
        yield ("linear" if constant else "attention"), _product(node_shape(node)) * inner
    elif "scaled_dot_product" in str(node.target):
        query, key = node_shape(node.args[0]), node_shape(node.args[1])
        yield "attention", 2 * _product(query) * key[-2]
    elif node.target in _RECURRENT:
        yield "recurrent", _recurrent_macs(node)


def _recurrent_macs(node: torch.fx.Node) -> int:
    data = node_shape(node.args[0])
    weights = [node_shape(weight) for weight in node.args[2] if len(node_shape(weight)) == 2]  # type: ignore[union-attr]
    positions = _product(data[:-1])
    return positions * sum(_product(shape) for shape in weights)


def _recurrent_steps(node: torch.fx.Node) -> int:
    data = node_shape(node.args[0])
    batch_first = bool(node.args[-1])
    layers = int(node.args[4]) if isinstance(node.args[4], int) else 1
    return (data[1] if batch_first else data[0]) * layers


def node_shape(node: object) -> tuple[int, ...]:
    """Sizes of a node's (first) tensor, dynamic ones at their example size; empty for anything else."""
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    if isinstance(value, list | tuple):
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return ()
    return tuple(size if isinstance(size, int) else int(size.node.hint or 1) for size in value.shape)


def _product(shape: tuple[int, ...]) -> int:
    return math.prod(shape) if shape else 0
