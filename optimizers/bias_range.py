"""Leaves room for biases in the steps that weights are given."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch

from ..models.nodes import argument_of
from .annotation import quantized_layers

# A bias is a whole number of 32 bits, in steps of the input's times the weights'; the products are added to it.
_MOST_STEPS = 2.0**30


def leave_room_for_biases(prepared: torch.fx.GraphModule) -> None:
    """Give weights steps no finer than their layer's bias fits in, where ranges were found by calibration.

    A layer of tiny inputs and tiny weights with a large bias would overflow: 2 dB were left of one.
    """
    layers = {layer.name for layer in quantized_layers(prepared)}
    for node in prepared.graph.nodes:
        bias = argument_of(node, "bias", None) if node.name in layers else None
        if not isinstance(bias, torch.fx.Node) or bias.op != "get_attr":
            continue
        data, weight = (_observer(prepared, each) for each in node.args[:2])
        if not hasattr(data, "calculate_qparams") or not hasattr(weight, "eps"):
            continue
        step = float(data.calculate_qparams()[0].max())
        largest = float(attrgetter(str(bias.target))(prepared).detach().abs().max())
        weight.eps.fill_(max(float(weight.eps), largest / (step * _MOST_STEPS)))


def _observer(prepared: torch.fx.GraphModule, node: Any) -> Any:
    return prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
