"""Graph clean-up that pays on every device and changes no result beyond rounding."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .passes import Context, OptimizedModel
from .registry import name_recipe, recipe_pass, register

_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)


@recipe_pass("fold_batch_norm")
@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold each batch normalisation that follows a convolution into its weights (eval mode, exact)."""


name_recipe("fp32", FoldBatchNorm())


@register(FoldBatchNorm)
def _fold(config: FoldBatchNorm, model: OptimizedModel, context: Context) -> OptimizedModel:
    program, count = fold_batch_norm(model.capture.program)
    if not count:
        return model
    return replace(
        model,
        capture=replace(model.capture, program=program),
        changes=(*model.changes, f"folded {count} batch normalisations into convolutions"),
    )


def fold_batch_norm(program: ExportedProgram) -> tuple[ExportedProgram, int]:
    """Fold each eval-mode batch normalisation into the convolution before it.

    w' = w · γ/√(σ²+ε), b' = (b − μ) · γ/√(σ²+ε) + β. The exporters fuse some of these themselves, late;
    doing it on the captured graph makes the graph smaller for everything that walks it afterwards.

    Returns:
        A program that shares the unfolded weights with ``program``, and the number of layers folded.
    """
    folded = copy.copy(program)
    folded._graph_module = copy.deepcopy(program.graph_module)
    folded._graph_signature = copy.deepcopy(program.graph_signature)
    folded._state_dict = dict(program.state_dict)
    graph = folded.graph_module.graph
    state_names = _state_names(folded)
    output = graph.output_node()
    count = 0
    for norm in list(graph.find_nodes(op="call_function", target=_ATEN.batch_norm.default)):
        if output not in norm.users and _fold_one(folded, norm, state_names):
            count += 1
    if count:
        graph.eliminate_dead_code()
        _drop_unused_weights(folded)
        folded.graph_module.recompile()
    return folded, count


def _state_names(program: ExportedProgram) -> dict[str, str]:
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}


def _fold_one(program: ExportedProgram, norm: torch.fx.Node, state_names: dict[str, str]) -> bool:
    conv = norm.args[0]
    if not isinstance(conv, torch.fx.Node) or conv.target not in _CONVOLUTIONS or len(conv.users) != 1:
        return False
    arguments = [*conv.args, *[None] * (3 - len(conv.args))]
    weight, bias = arguments[1:3]
    scale, shift, mean, var = norm.args[1:5]
    training, eps = norm.args[5], norm.args[7]
    nodes = [node for node in (weight, bias, scale, shift, mean, var) if node is not None]
    # A shared weight must stay as it is for its other users; the shift's place takes the new bias.
    own = all(isinstance(n, torch.fx.Node) and n.name in state_names and len(n.users) == 1 for n in nodes)
    if training or not own or shift is None or scale is None:
        return False
    state = program._state_dict

    def value(node: Any) -> torch.Tensor | None:
        return None if node is None else state[state_names[node.name]]

    old_bias = value(bias)
    new_weight, new_bias = fuse_conv_bn_weights(
        value(weight), old_bias, value(mean), value(var), eps, value(scale), value(shift)
    )
    state[state_names[weight.name]] = new_weight
    holder = shift if bias is None else bias
    state[state_names[holder.name]] = new_bias
    if bias is None:
        arguments[2] = shift
        conv.args = tuple(arguments)
    norm.replace_all_uses_with(conv)
    program.graph_module.graph.erase_node(norm)
    return True


def _drop_unused_weights(program: ExportedProgram) -> None:
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph_module.graph.find_nodes(op="placeholder")}
    kept = []
    for spec in signature.input_specs:
        droppable = spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        if droppable and not isinstance(spec.arg, ConstantArgument) and not nodes[spec.arg.name].users:
            program.graph_module.graph.erase_node(nodes[spec.arg.name])
            program._state_dict.pop(str(spec.target), None)
        else:
            kept.append(spec)
    signature.input_specs[:] = kept
