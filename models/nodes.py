"""What a node of a captured program is: the operator's name, its arguments, its type."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram


def op_name(node: torch.fx.Node) -> str:
    """The operator's name without library, overload and the mark of an in-place form."""
    target = node.target
    name = target._opname if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", "")
    return name.rstrip("_") if not name.startswith("__") else name


def argument_of(node: torch.fx.Node, name: str, default: Any) -> Any:
    """An operator's argument by its name, wherever it was given."""
    if name in node.kwargs:
        return node.kwargs[name]
    schema = getattr(node.target, "_schema", None)
    for index, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name == name:
            return node.args[index] if index < len(node.args) else argument.default_value
    return default


def draws(node: torch.fx.Node) -> bool:
    """Whether an operator draws random numbers: its kind can, and its arguments don't rule it out."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    trains = argument_of(node, "train", argument_of(node, "training", True))
    # Of dropout, of dropout in attention, and of dropout between recurrent layers; what has none of them always draws.
    shares = [argument_of(node, name, None) for name in ("p", "dropout_p", "dropout")]
    return bool(trains) and all(share is None or share != 0 for share in shares)


def as_list(value: Any) -> list[int]:
    """One number or several, as a list."""
    return [int(each) for each in value] if isinstance(value, list | tuple) else [int(value)]


def dtype_of(node: torch.fx.Node) -> str:
    """The element type of a node's (first) tensor."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) and value else value
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else "float32"


def state_names(program: ExportedProgram) -> dict[str, str]:
    """The placeholder of each parameter and buffer → its name in the state."""
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
