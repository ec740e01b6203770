"""Graph clean-up that pays on every device and changes no result beyond rounding."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, TensorArgument
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..models.nodes import argument_of, state_names
from .passes import Context, OptimizedModel
from .registry import name_recipe, recipe_pass, register

_ATEN = torch.ops.aten
_TRANSPOSED = (_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input, _ATEN.conv_transpose3d.input)
_CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default, *_TRANSPOSED)


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
    states = state_names(folded)
    count = 0
    for norm in list(graph.find_nodes(op="call_function", target=_ATEN.batch_norm.default)):
        # One that shares its weights with an earlier one may be gone.
        if norm.users:
            count += _fold_one(folded, norm, states)
    if count:
        graph.eliminate_dead_code()
        _drop_unused_weights(folded)
        folded.graph_module.recompile()
    return folded, count


def _fold_one(program: ExportedProgram, norm: torch.fx.Node, states: dict[str, str]) -> int:
    """Fold ``norm``, and those that share all weights with it; how many were folded."""
    conv = norm.args[0]
    if not isinstance(conv, torch.fx.Node) or conv.target not in _CONVOLUTIONS or len(conv.users) != 1:
        return 0
    weight, bias = [*conv.args, None][1:3]
    scale, shift, mean, var = norm.args[1:5]
    training, eps = norm.args[5], norm.args[7]
    nodes = [node for node in (weight, bias, scale, shift, mean, var) if node is not None]
    known = all(isinstance(n, torch.fx.Node) and n.name in states for n in nodes)
    # The weights of a transposed convolution in groups don't have its output channels along one axis.
    in_groups = conv.target in _TRANSPOSED and argument_of(conv, "groups", 1) != 1
    if training or not known or shift is None or scale is None or in_groups:
        return 0
    state = program._state_dict

    def value(node: Any) -> torch.Tensor | None:
        return None if node is None else state[states[node.name]]

    folded = fuse_conv_bn_weights(
        value(weight), value(bias), value(mean), value(var), eps, value(scale), value(shift),
        transpose=conv.target in _TRANSPOSED,
    )  # fmt: skip
    # The shift's place takes the new bias where there was none.
    holders = [weight, shift if bias is None else bias]
    calls = _calls_alike(conv, norm)
    if not calls:
        # Others read these weights unfolded: the exporters' own folding would spoil them.
        calls = [(conv, norm)]
        holders = [_of_its_own(program, holder, conv, states) for holder in holders]
    for holder, tensor in zip(holders, folded, strict=True):
        state[states[holder.name]] = tensor
    for each, its_norm in calls:
        each.args = (each.args[0], *holders, *each.args[3:])
        for spec in program.graph_signature.output_specs:
            if getattr(spec.arg, "name", "") == its_norm.name:
                spec.arg = TensorArgument(each.name)
        its_norm.replace_all_uses_with(each)
        program.graph_module.graph.erase_node(its_norm)
    return len(calls)


def _calls_alike(conv: torch.fx.Node, norm: torch.fx.Node) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """All calls of a convolution and its normalisation, if nothing else reads what they read; else none.

    One call is the rule; heads that are applied to several sizes have several.
    """
    weights = [*conv.args, None][1:3]
    convs = list(weights[0].users)
    norms = [next(iter(each.users)) for each in convs if len(each.users) == 1]
    alike = len(norms) == len(convs) and all(
        each.target in _CONVOLUTIONS
        and [*each.args, None][1:3] == weights
        and its_norm.target is norm.target
        and its_norm.args[0] is each
        and its_norm.args[1:] == norm.args[1:]
        for each, its_norm in zip(convs, norms, strict=True)
    )
    read = [(node, convs) for node in weights if node is not None] + [
        (node, norms) for node in norm.args[1:5]
    ]
    alone = all(isinstance(node, torch.fx.Node) and set(node.users) == set(by) for node, by in read)
    return list(zip(convs, norms, strict=True)) if alike and alone else []


def _of_its_own(
    program: ExportedProgram, shared: torch.fx.Node, conv: torch.fx.Node, states: dict[str, str]
) -> torch.fx.Node:
    """A weight like ``shared`` that only ``conv`` reads; its tensor is for the caller to set."""
    specs = program.graph_signature.input_specs
    position, spec = next((i, s) for i, s in enumerate(specs) if getattr(s.arg, "name", "") == shared.name)
    name = f"{shared.name}_of_{conv.name}"
    with program.graph_module.graph.inserting_after(shared):
        node = program.graph_module.graph.placeholder(name)
    node.meta = dict(shared.meta)
    target = f"{spec.target}_of_{conv.name}"
    specs.insert(position + 1, InputSpec(spec.kind, TensorArgument(node.name), target, spec.persistent))
    states[node.name] = target
    return node


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
