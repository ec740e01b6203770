"""Products with a constant matrix, written as the linear layers that quantizers and delegates know.

``x @ w``, ``einsum("bnd,dhk->bnhk", x, w)`` and ``addmm(bias, x, w)`` (GPT-2's layers) compute what a linear layer
does. XNNPACK's quantizer leaves them in float, and ExecuTorch's delegate leaves products with some constants outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.nn import functional

from ..models.nodes import argument_of
from .rewriting import add_constant, copy_program, fake_mode, finish, held_tensors, is_view, replace

_ATEN = torch.ops.aten
Tensors = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class _Product:
    """A node that multiplies by a constant.

    Attributes:
        weight: the constant.
        matrix: makes [outputs, inputs], as a linear layer has it, of its value.
        others: the node's other tensors.
        apply: the node's value of the matrix and the others.
    """

    weight: torch.fx.Node
    matrix: Callable[[torch.Tensor], torch.Tensor]
    others: tuple[torch.fx.Node, ...]
    apply: Tensors


def linear_from_products(program: ExportedProgram, *, parameters_only: bool) -> ExportedProgram:
    """``program`` with its products with constants as linear layers; itself when it has none.

    Args:
        parameters_only: only of the model's own parameters, which may be quantised then. Constants that were
            computed, as the waves of a Fourier transform, lose more by that than weights do.
    """
    values = _values(program, parameters_only=parameters_only)
    if not any(_product(node, values) for node in program.graph.nodes):
        return program
    changed = copy_program(program)
    values = _values(changed, parameters_only=parameters_only)
    matrices = _Matrices(changed)
    for node in list(changed.graph.nodes):
        product = _product(node, values)
        if product is None:
            continue
        with torch.no_grad():
            matrix = product.matrix(values[product.weight]).contiguous()
        weight = matrices.node(product.weight, matrix)
        replace(changed, node, product.apply, (weight, *product.others))
    finish(changed)
    matrices.drop_unused()
    return changed


def _values(program: ExportedProgram, *, parameters_only: bool) -> dict[torch.fx.Node, torch.Tensor]:
    """What the program holds, and views of it, by node."""
    names = program.graph_signature.inputs_to_parameters
    values = {
        node: value
        for node, value in held_tensors(program).items()
        if value.is_floating_point() and (node.name in names or not parameters_only)
    }
    with torch.no_grad():
        for node in program.graph.nodes:
            sources = node.all_input_nodes
            if sources and is_view(node) and all(each in values for each in sources):
                args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
                found = node.target(*args, **kwargs)
                if isinstance(found, torch.Tensor):
                    values[node] = found
    return values


def _product(node: torch.fx.Node, values: dict[torch.fx.Node, torch.Tensor]) -> _Product | None:
    find = _PRODUCTS.get(node.target) if node.op == "call_function" else None
    if find is None or node in values or not node.meta["val"].is_floating_point():
        return None
    product = find(node, values)
    if product is None or any(each in values for each in product.others[:1]):
        return None
    types = {values[product.weight].dtype, *(each.meta["val"].dtype for each in product.others)}
    return product if len(types) == 1 else None


def _of_matmul(node: torch.fx.Node, values: dict[torch.fx.Node, torch.Tensor]) -> _Product | None:
    left, right = node.args[:2]
    if right in values and values[right].ndim == 2 and left.meta["val"].ndim > 1:  # type: ignore[index,union-attr]
        return _Product(right, torch.t, (left,), lambda m, x: functional.linear(x, m))  # type: ignore[arg-type]
    if left in values and values[left].ndim == 2 and right.meta["val"].ndim > 1:  # type: ignore[index,union-attr]

        def from_the_left(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(x.transpose(-1, -2), matrix).transpose(-1, -2)

        return _Product(left, lambda value: value, (right,), from_the_left)  # type: ignore[arg-type]
    return None


def _of_addmm(node: torch.fx.Node, values: dict[torch.fx.Node, torch.Tensor]) -> _Product | None:
    bias, data, weight = node.args[:3]
    scaled = any(argument_of(node, name, 1) != 1 for name in ("alpha", "beta"))
    if scaled or weight not in values or bias.meta["val"].ndim != 1:  # type: ignore[union-attr]
        return None

    def apply(matrix: torch.Tensor, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        # A delegate's layer takes no bias that is computed.
        return functional.linear(x, matrix, added) if bias in values else functional.linear(x, matrix) + added

    return _Product(weight, torch.t, (data, bias), apply)  # type: ignore[arg-type]


def _of_einsum(node: torch.fx.Node, values: dict[torch.fx.Node, torch.Tensor]) -> _Product | None:
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    constant = [each in values for each in operands]
    sides, _, result = equation.partition("->")
    if sum(constant) != 1 or len(operands) != 2 or not result or "." in equation or _is_symbolic(node):
        return None
    place = constant.index(True)
    of_weight, of_data = sides.split(",")[place], sides.split(",")[1 - place]
    summed = [each for each in of_weight if each in of_data and each not in result]
    kept = [each for each in of_data if each not in of_weight]
    made = [each for each in of_weight if each not in of_data]
    plain = all(len(set(letters)) == len(letters) for letters in (of_weight, of_data, result))
    # An axis of both that stays (a batch), or one of a single operand that is summed, is no linear layer's.
    if not plain or not summed or not kept or not made or sorted(result) != sorted(kept + made):
        return None
    weight, data = operands[place], operands[1 - place]
    sizes = dict(zip(of_weight, values[weight].shape, strict=True))
    inner = math.prod(sizes[each] for each in summed)

    def matrix(value: torch.Tensor) -> torch.Tensor:
        return value.permute([of_weight.index(each) for each in made + summed]).reshape(-1, inner)

    def apply(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        moved = x.permute([of_data.index(each) for each in kept + summed])
        outer = moved.shape[: len(kept)]
        found = functional.linear(moved.reshape(*outer, inner), weights)
        found = found.reshape(*outer, *(sizes[each] for each in made))
        return found.permute([(kept + made).index(each) for each in result])

    return _Product(weight, matrix, (data,), apply)


_PRODUCTS: dict[Any, Callable[[torch.fx.Node, dict[torch.fx.Node, torch.Tensor]], _Product | None]] = {
    _ATEN.matmul.default: _of_matmul,
    _ATEN.mm.default: _of_matmul,
    _ATEN.addmm.default: _of_addmm,
    _ATEN.einsum.default: _of_einsum,
}


def _is_symbolic(node: torch.fx.Node) -> bool:
    return any(not isinstance(size, int) for each in node.all_input_nodes for size in each.meta["val"].shape)


class _Matrices:
    """The matrices of linear layers that a program is given, each once."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._held = held_tensors(program)
        self._made: list[tuple[torch.fx.Node, torch.Tensor, torch.fx.Node]] = []

    def node(self, source: torch.fx.Node, matrix: torch.Tensor) -> torch.fx.Node:
        """The node of ``matrix``, which was made of the constant ``source`` or a view of it.

        That constant itself where it is the matrix already, as a table of embeddings that is used twice; else a
        parameter if it is one, so that it can still be trained.
        """
        while source.op != "placeholder":
            source = source.all_input_nodes[0]
        for origin, known, node in [(source, self._held[source], source), *self._made]:
            if origin is source and known.shape == matrix.shape and torch.equal(known, matrix):
                return node
        node = self._add(source, matrix)
        self._made.append((source, matrix, node))
        return node

    def _add(self, source: torch.fx.Node, matrix: torch.Tensor) -> torch.fx.Node:
        name = self._program.graph_signature.inputs_to_parameters.get(source.name)
        if name is None:
            return add_constant(self._program, matrix)
        taken = set(self._program.state_dict)
        new = next(f"{name}_{n}" for n in range(len(taken) + 1) if f"{name}_{n}" not in taken)
        graph = self._program.graph_module.graph
        with graph.inserting_before(source):
            node = graph.placeholder(f"{source.name}_as_linear")
        node.meta["val"] = fake_mode(self._program).from_tensor(matrix, static_shapes=True)
        specs = self._program.graph_signature.input_specs
        place = next(i for i, spec in enumerate(specs) if getattr(spec.arg, "name", None) == source.name)
        specs.insert(place, InputSpec(InputKind.PARAMETER, TensorArgument(node.name), new))
        trained = self._held[source].requires_grad
        self._program.state_dict[new] = torch.nn.Parameter(matrix.detach().clone(), requires_grad=trained)
        return node

    def drop_unused(self) -> None:
        """Take out the parameters that only products read, which would be stored for nothing."""
        graph, specs = self._program.graph_module.graph, self._program.graph_signature.input_specs
        unread = {origin.name: origin for origin, _, _ in self._made if not origin.users}
        for spec in [spec for spec in specs if getattr(spec.arg, "name", None) in unread]:
            source = unread[spec.arg.name]  # type: ignore[union-attr]
            specs.remove(spec)
            self._program.state_dict.pop(str(spec.target), None)
            graph.erase_node(source)
        self._program.graph_module.recompile()
