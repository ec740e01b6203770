"""Surgery on captured programs: replace operators by others and keep the place in the user's code they came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx.experimental.proxy_tensor import make_fx

from ..models.nodes import draws, state_names
from ..models.state import written_root

# What tells a user where an operator came from.
_PROVENANCE = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack")


def copy_program(program: ExportedProgram) -> ExportedProgram:
    """A copy whose graph can be changed; the tensors are shared."""
    copied = copy.copy(program)
    copied._graph_module = copy.deepcopy(program.graph_module)
    copied._graph_signature = copy.deepcopy(program.graph_signature)
    copied._state_dict = dict(program.state_dict)
    copied._constants = dict(program.constants)
    return copied


def finish(program: ExportedProgram) -> None:
    """Drop what nothing uses any more and make the changed graph runnable."""
    graph = program.graph_module.graph
    graph.eliminate_dead_code(is_impure_node=_has_effect)
    signature = program.graph_signature
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    kept = []
    for spec in signature.input_specs:
        node = placeholders.get(getattr(spec.arg, "name", ""))
        if spec.kind is InputKind.CONSTANT_TENSOR and node is not None and not node.users:
            graph.erase_node(node)
            program._constants.pop(str(spec.target), None)
        else:
            kept.append(spec)
    signature.input_specs[:] = kept
    graph.lint()
    program.graph_module.recompile()


def add_constant(program: ExportedProgram, tensor: torch.Tensor) -> torch.fx.Node:
    """A node for ``tensor``, which travels with the program as its weights do."""
    graph = program.graph_module.graph
    specs = program.graph_signature.input_specs
    # A constant of an earlier rewrite is a buffer after a recapture: its node has another name, but not its tensor.
    taken = {node.name for node in graph.nodes} | {spec.target for spec in specs} | set(program.constants)
    number = next(n for n in range(len(taken) + 1) if f"rewrite_constant_{n}" not in taken)
    name = f"rewrite_constant_{number}"
    # Constants come before the user's inputs.
    position = next((i for i, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT), len(specs))
    placeholders = list(graph.find_nodes(op="placeholder"))
    before = placeholders[position] if position < len(placeholders) else next(iter(graph.nodes))
    with graph.inserting_before(before):
        node = graph.placeholder(name)
    node.meta["val"] = fake_mode(program).from_tensor(tensor, static_shapes=True)
    specs.insert(position, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), name))
    program._constants[name] = tensor
    return node


def fake_mode(program: ExportedProgram) -> Any:
    """The fake-tensor mode that the program was captured in."""
    for node in program.graph_module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return torch._subclasses.FakeTensorMode()


def insert(
    program: ExportedProgram,
    before: torch.fx.Node,
    function: Callable[..., Any],
    inputs: Sequence[torch.fx.Node],
) -> list[torch.fx.Node]:
    """Add the operators of ``function(*inputs)`` before a node, with that node's place in the user's code.

    Tensors that ``function`` makes or closes over become constants of the program.

    Returns:
        The nodes of the function's results, in order.
    """
    graph = program.graph_module.graph
    with fake_mode(program), torch.no_grad():
        traced = make_fx(_as_list(function), pre_dispatch=True, _allow_non_fake_inputs=True)(
            *[node.meta["val"] for node in inputs]
        )
    known: dict[torch.fx.Node, torch.fx.Node] = {}
    sources = iter(inputs)
    results: list[torch.fx.Node] = []
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(sources)
        elif node.op == "get_attr":
            known[node] = add_constant(program, getattr(traced, str(node.target)))
        elif node.op == "output":
            results = [known[result] for result in node.args[0]]
        else:
            with graph.inserting_before(before):
                known[node] = graph.node_copy(node, lambda n: known[n])
            for key in _PROVENANCE:
                known[node].meta.pop(key, None)
                if key in before.meta:
                    known[node].meta[key] = before.meta[key]
    return results


def replace(
    program: ExportedProgram,
    node: torch.fx.Node,
    function: Callable[..., Any],
    inputs: Sequence[torch.fx.Node],
) -> None:
    """Put the operators of ``function(*inputs)`` in the place of ``node``.

    A node with several results (``getitem`` users) takes a function that gives as many.
    """
    results = insert(program, node, function, inputs)
    graph = program.graph_module.graph
    if isinstance(node.meta.get("val"), list | tuple):
        for user in list(node.users):
            # A result that no one reads needs no stand-in.
            if user.users:
                _take_over(program, user, results[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    else:
        _take_over(program, node, results[0])
    graph.erase_node(node)


def separate_outputs(program: ExportedProgram) -> int:
    """Give outputs that are weights themselves a constant of their own, in place; the number of them.

    XNNPACK's part of ExecuTorch's lowering can't give away a weight that it also computes with.
    """
    signature, names = program.graph_signature, state_names(program)
    output = program.graph_module.graph.output_node()
    weights = [n for n in output.all_input_nodes if n.op == "placeholder" and n.name in names]
    for weight in weights:
        constant = add_constant(program, program.state_dict[names[weight.name]].detach().clone())
        output.replace_input_with(weight, constant)
        for spec in signature.output_specs:
            if getattr(spec.arg, "name", None) == weight.name:
                spec.arg.name = constant.name  # type: ignore[union-attr]
    return len(weights)


def fold_constants(program: ExportedProgram, max_bytes: int = 2**20, *, views: bool = False) -> int:
    """Work out now what depends on no input, in place; the number of results kept.

    Results that are changed in place later, random ones and those of more than ``max_bytes`` stay operators:
    a large tensor of zeros is better made than stored. What is computed from weights (a weight normalisation,
    standardised filters) may take as many bytes as they do; a view of a weight alone is left, unless ``views``
    asks for it.
    """
    graph = program.graph_module.graph
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    values: dict[torch.fx.Node, Any] = dict(held_tensors(program))
    # What a result was computed from, where a weight is among it.
    origins = {node: {node} for node in values if node.name not in lifted}
    computed: set[torch.fx.Node] = set()
    written = {written_root(node) for node in graph.nodes}
    with torch.no_grad():
        for node in graph.nodes:
            sources = node.all_input_nodes
            if not _can_fold(node, written) or not all(source in values for source in sources):
                continue
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            if any(source in origins for source in sources):
                origins[node] = set().union(*(origins.get(source, {source}) for source in sources))
            if not is_view(node) or any(source in computed for source in sources):
                computed.add(node)
    # What torch.export checks about a constant holds for good.
    for check in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        if check.args[0] in values:
            graph.erase_node(check)

    def worth_keeping(node: torch.fx.Node) -> bool:
        # A pure result of nothing but constants; a lifted constant that is only copied stays as it is.
        value = values[node]
        if not isinstance(value, torch.Tensor) or (node in origins and not views and node not in computed):
            return False
        return _bytes(value) <= (
            sum(_bytes(values[n]) for n in origins[node]) if node in origins else max_bytes
        )

    border = []
    for node in reversed([node for node in values if node.op == "call_function"]):
        if any(user not in values for user in node.users):
            if worth_keeping(node):
                border.append(node)
            else:
                del values[node]
    for node in reversed(border):
        constant = add_constant(program, values[node].detach().contiguous().clone())
        node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
    return len(border)


def held_tensors(program: ExportedProgram) -> dict[torch.fx.Node, torch.Tensor]:
    """The tensors that the program holds and never changes, by their nodes."""
    signature, state = program.graph_signature, state_names(program)
    found = {}
    for node in program.graph_module.graph.find_nodes(op="placeholder"):
        if node.name in signature.inputs_to_lifted_tensor_constants:
            found[node] = program.constants[signature.inputs_to_lifted_tensor_constants[node.name]]
        elif node.name in state:
            name = state[node.name]
            found[node] = program.state_dict[name] if name in program.state_dict else program.constants[name]
    changed = {written_root(node) for node in program.graph_module.graph.nodes}
    return {node: tensor for node, tensor in found.items() if node not in changed}


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def is_view(node: torch.fx.Node) -> bool:
    """Whether a node's value lies in the memory of its first input."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return any(result.alias_info is not None for result in target._schema.returns)


def _can_fold(node: torch.fx.Node, written: set[torch.fx.Node | None]) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or node in written:
        return False
    return not target._schema.is_mutable and not draws(node)


def _has_effect(node: torch.fx.Node) -> bool:
    """Whether a node matters though nothing reads it; torch takes every dropout for one that draws numbers."""
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return bool(node.is_impure()) and (not seeded or draws(node))


def _take_over(program: ExportedProgram, old: torch.fx.Node, new: torch.fx.Node) -> None:
    old.replace_all_uses_with(new)
    for spec in program.graph_signature.output_specs:
        if getattr(spec.arg, "name", None) == old.name:
            spec.arg.name = new.name  # type: ignore[union-attr]


def _as_list(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    def flat(*tensors: torch.Tensor) -> list[Any]:
        result = function(*tensors)
        return list(result) if isinstance(result, list | tuple) else [result]

    return flat
