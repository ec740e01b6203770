"""Models that keep state between calls in buffers that forward changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch.export import ExportedProgram


@contextmanager
def preserved(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put ``tensors`` back to what they held when the block began."""
    saved = [(tensor, tensor.clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in saved:
                tensor.copy_(before)


def preserved_state(module: torch.nn.Module) -> AbstractContextManager[None]:
    """Put every buffer of ``module`` back to what it held when the block began."""
    return preserved(module.buffers())


def changed_buffers(program: ExportedProgram) -> list[torch.fx.Node]:
    """The operators of a captured program that change a buffer in place."""
    signature = program.graph_signature
    found = []
    for node in program.graph.nodes:
        root = written_root(node)
        if root is not None and root.op == "placeholder" and root.name in signature.inputs_to_buffers:
            found.append(node)
    return found


def written_root(node: torch.fx.Node) -> torch.fx.Node | None:
    """The tensor that an in-place operator changes, seen through the views between; None for other operators."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    root = next(
        (a for a, s in zip(node.args, target._schema.arguments, strict=False) if s.alias_info and s.alias_info.is_write),
        None,
    )  # fmt: skip
    while isinstance(root, torch.fx.Node) and _shares_memory(root):
        root = root.args[0]  # type: ignore[assignment]
    return root if isinstance(root, torch.fx.Node) else None


def _shares_memory(node: torch.fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not node.args:
        return False
    return any(result.alias_info is not None for result in target._schema.returns)
