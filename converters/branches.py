"""Writes ``torch.cond`` as both of its branches and a selection.

LiteRT's converter has no lowering for it; ExecuTorch runs one branch, but XNNPACK's part of its lowering breaks off on
layers inside of one, so that all of the model runs on portable kernels. Branches change nothing and give tensors of the
same shapes, so that computing both is only a matter of time; what a branch makes of inputs that aren't meant for it
(a NaN, say) is not selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from .rewriting import copy_program, finish, replace


def select_branches(program: ExportedProgram) -> tuple[ExportedProgram, list[torch.fx.Node]]:
    """``program`` without ``torch.cond``, and the operators that were replaced; the program itself where it has none."""
    if not any(_selects(node) for node in program.graph.nodes):
        return program, []
    changed = copy_program(program)
    replaced = [node for node in changed.graph.nodes if _selects(node)]
    for node in replaced:
        _replace_by_both(changed, node)
    finish(changed)
    return changed, replaced


def _selects(node: torch.fx.Node) -> bool:
    # A condition on sizes is a number that is known at run time only.
    return (
        node.target is torch.ops.higher_order.cond
        and isinstance(node.args[0], torch.fx.Node)
        and isinstance(node.args[0].meta.get("val"), torch.Tensor)
        and all(isinstance(each, torch.Tensor) for each in node.meta["val"])
    )


class _Both(torch.fx.Interpreter):
    """Runs a branch; where it holds branches itself, both of them."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.ops.higher_order.cond and isinstance(args[0], torch.Tensor):
            return _both(*args)
        return super().call_function(target, args, kwargs)


def _both(condition: torch.Tensor, one: Any, other: Any, operands: Sequence[Any]) -> list[torch.Tensor]:
    results = zip(*(_Both(branch).run(*operands) for branch in (one, other)), strict=True)
    return [torch.where(condition, first, second) for first, second in results]


def _replace_by_both(program: ExportedProgram, node: torch.fx.Node) -> None:
    condition, *branches = node.args[:3]
    modules = [getattr(program.graph_module, str(branch.target)) for branch in branches]  # type: ignore[union-attr]
    operands: Any = node.args[3]
    nodes = list(dict.fromkeys(each for each in operands if isinstance(each, torch.fx.Node)))

    def form(selector: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
        given = [tensors[nodes.index(o)] if isinstance(o, torch.fx.Node) else o for o in operands]
        return _both(selector, modules[0], modules[1], given)

    replace(program, node, form, [condition, *nodes])  # type: ignore[list-item]
