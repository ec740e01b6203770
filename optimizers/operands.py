"""What the nodes of a graph are given before it is annotated: operands of their own, and whole numbers that stay whole."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch

_ATEN = torch.ops.aten
_CONVOLUTIONS = (
    _ATEN.conv1d.default,
    _ATEN.conv2d.default,
    _ATEN.conv3d.default,
    _ATEN.conv_transpose2d.input,
)
_WITH_BIAS = (*_CONVOLUTIONS, _ATEN.linear.default)


def operands_of_whole_numbers(model: torch.fx.GraphModule) -> dict[torch.fx.Node, Any]:
    """The operands of what computes with whole numbers: indices of a table of positions, say."""
    return {
        node: node.args
        for node in model.graph.nodes
        if node.op == "call_function"
        and isinstance(node.meta.get("val"), torch.Tensor)
        and not node.meta["val"].is_floating_point()
    }


def give_back(model: torch.fx.GraphModule, operands: dict[torch.fx.Node, Any]) -> None:
    """Give nodes their operands back: XNNPACK's quantizer turns every number that is added or multiplied into a
    float32 tensor, and indices into floats with it."""
    for node, args in operands.items():
        given = node.all_input_nodes
        node.args = args
        for constant in given:
            if constant.op == "get_attr" and not constant.users:
                model.graph.erase_node(constant)
    model.recompile()


def a_weight_for_each_call(model: torch.fx.GraphModule) -> None:
    """Let each call of a convolution read its weight by a node of its own; the weight stays one.

    XNNPACK's quantizer marks what it has quantised, and leaves a second call with a marked weight in float: half of a
    model that compares two images.
    """
    for node in list(model.graph.nodes):
        weight = node.args[1] if node.target in _CONVOLUTIONS else None
        if isinstance(weight, torch.fx.Node) and weight.op == "get_attr" and len(weight.users) > 1:
            with model.graph.inserting_before(node):
                read = model.graph.get_attr(str(weight.target))
            read.meta = dict(weight.meta)
            node.update_arg(1, read)
    model.recompile()


def a_bias_for_each_call(model: torch.fx.GraphModule) -> None:
    """Part the bias of a layer that is called several times, as heads for several sizes are.

    A bias is quantised with the scale of the input times that of the weights. With one for inputs of several scales
    XNNPACK doesn't load the file.
    """
    for node in list(model.graph.nodes):
        bias = node.args[2] if node.target in _WITH_BIAS and len(node.args) > 2 else None
        if not isinstance(bias, torch.fx.Node) or bias.op != "get_attr" or len(bias.users) == 1:
            continue
        shared = attrgetter(str(bias.target))(model)
        own = shared.detach().clone()
        # A dot would be another module's.
        name = f"{str(bias.target).replace('.', '_')}_of_{node.name}"
        if isinstance(shared, torch.nn.Parameter):
            model.register_parameter(name, torch.nn.Parameter(own, shared.requires_grad))
        else:
            model.register_buffer(name, own)
        with model.graph.inserting_before(node):
            read = model.graph.get_attr(name)
        read.meta = dict(bias.meta)
        node.update_arg(2, read)
    model.recompile()
