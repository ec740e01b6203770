"""Sums and other reductions at given positions as products with masks, and branches as a selection: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from rewritten import assert_equal, captured, operators
from torch import nn

from edgeopt.converters.rewrites import rewrite_capture, rewrite_program

_PLACES = torch.tensor([0, 2, 2, 5, 2])


class Reducing(nn.Module):
    """A model of a function of values and positions."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> Any:
        return self._function(x, places)


def _columns(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Another position for each element."""
    return (places[:, None] + torch.arange(x.shape[1])) % 6


SUMS = {
    "index_add": lambda x, i: torch.ones(6, 4).index_add(0, i, x),
    "index_add of the last axis, scaled": lambda x, i: torch.ones(4, 6).index_add(-1, i, x.T, alpha=0.5),
    "index_add in place": lambda x, i: torch.ones(6, 4).index_add_(0, i, x) * 2,
    "scatter_add of rows": lambda x, i: torch.ones(6, 4).scatter_add(0, i[:, None].expand(5, 4), x),
    "scatter_add of elements": lambda x, i: torch.ones(6, 4).scatter_add(0, _columns(x, i), x),
    "scatter_add in place": lambda x, i: torch.ones(4, 6).scatter_add_(1, _columns(x, i).T, x.T) + 1,
    "scatter_add of three axes": lambda x, i: torch.ones(2, 6, 4).scatter_add(
        1, i.reshape(1, 5, 1).expand(2, 5, 4), torch.stack([x, x * 2])
    ),
    "scatter_add of another row each": lambda x, i: torch.ones(2, 6, 4).scatter_add(
        1, torch.stack([i, i.flip(0)])[:, :, None].expand(2, 5, 4), torch.stack([x, x * 2])
    ),
    "index_put": lambda x, i: torch.ones(6, 4).index_put((i,), x, accumulate=True),
    "index_put from the end": lambda x, i: torch.ones(6, 4).index_put((i - 6,), x, accumulate=True),
    "index_put in place": lambda x, i: torch.ones(6, 4).index_put_((i,), x, accumulate=True) * 2,
    "index_put of two axes": lambda x, i: torch.ones(6, 8).index_put((i, i + 1), x[:, 0], accumulate=True),
    "index_put of one number": lambda x, i: torch.ones(6, 4).index_put((i,), x[0, 0], accumulate=True),
    "whole numbers": lambda x, i: torch.zeros(6, dtype=torch.int64).scatter_add(0, i, i + 1),
}
REDUCTIONS = {
    f"{reduction}, {'with' if include else 'without'} itself": (
        lambda x, i, reduction=reduction, include=include: (
            torch.ones(6, 4).scatter_reduce(0, i[:, None].expand(5, 4), x, reduction, include_self=include),
            torch.ones(6, 4).index_reduce(
                0, i, x, "mean" if reduction == "sum" else reduction, include_self=include
            ),
        )
    )
    for reduction in ("sum", "mean", "amax", "amin")
    for include in (True, False)
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_at_given_positions(name: str) -> None:
    before = captured(Reducing(SUMS[name]), (torch.randn(5, 4), _PLACES))
    program, notes = rewrite_program(rewrite_capture(before).program, "tflite")
    assert [note.severity for note in notes] == ["note"]
    assert not any(part in op for op in operators(program) for part in ("index_", "scatter"))
    assert_equal(before, program)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("output_format", ["pte", "tflite"])
def test_other_reductions_at_given_positions(name: str, output_format: str) -> None:
    before = captured(Reducing(REDUCTIONS[name]), (torch.randn(5, 4), _PLACES))
    program, notes = rewrite_program(rewrite_capture(before).program, output_format)
    assert len(notes) == 2
    assert not any(part in op for op in operators(program) for part in ("index_", "scatter"))
    assert_equal(before, program)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: torch.zeros(2**19, 4).index_add(0, i, x),
        lambda x, i: torch.ones(6, 4).scatter_reduce(0, i[:, None].expand(5, 4), x, "prod"),
        lambda x, i: torch.ones(6, 5).scatter_add(0, i[:, None].expand(5, 4), x),
        lambda x, i: (
            torch.ones(6, 4).index_put((i > 2,), x[0, 0], accumulate=True)
            if x.shape[0] == 6
            else torch.ones(5, 4).index_put((i > 2,), x[0, 0], accumulate=True)
        ),
    ],
    ids=["too large a mask", "a product", "a larger target", "a mask of booleans"],
)
def test_what_has_no_form_stays(function: Callable[..., Any]) -> None:
    before = captured(Reducing(function), (torch.randn(5, 4), _PLACES))
    program = rewrite_capture(before).program
    assert rewrite_program(program, "tflite")[0] is program


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((6, 6), {"kernel_size": 3}),
        ((7, 8), {"kernel_size": 3, "stride": 2}),
        ((7, 8), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 1)}),
        ((9, 6), {"kernel_size": 3, "stride": 3, "padding": 1}),
    ],
)
def test_fold_as_a_transposed_convolution(size: tuple[int, int], options: dict[str, Any]) -> None:
    class Overlapping(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.fold(F.unfold(x, **options) * 0.5, size, **options)

    before = captured(Overlapping(), torch.randn(2, 3, *size))
    program, notes = rewrite_program(before.program, "tflite")
    assert notes and "aten.col2im.default" not in operators(program)
    assert_equal(before, program)


class Branching(nn.Module):
    """A condition within a condition, with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def inner(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.cond(x.max() > 1.5, lambda x: (x * 2, x + 1), lambda x: (self.b(x), x - 1), (x,))

        y, z = torch.cond(x.sum() > 0, lambda x: (self.a(x), x * 3), inner, (x,))
        return y + z


def test_branches_are_computed_both_and_selected() -> None:
    torch.manual_seed(0)
    before = captured(Branching(), torch.randn(1, 8))
    after = rewrite_capture(before)
    (note,) = after.findings
    assert "both branches" in note.message and note.source is not None
    assert note.source.startswith("test_scatter_forms.py:")
    assert not any("cond" in op for op in operators(after.program))
    taken = set()
    for seed in range(12):
        torch.manual_seed(seed)
        x = torch.randn(1, 8)
        taken.add((bool(x.sum() > 0), bool(x.max() > 1.5)))
        torch.testing.assert_close(after.program.module()(x)["output"], before.program.module()(x)["output"])
    assert {(True, False), (False, True), (False, False)} <= taken


def test_a_selection_hides_what_the_other_branch_makes_of_its_input() -> None:
    class Rooted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.min() > 0, lambda x: x.sqrt(), lambda x: x * 2, (x,))

    before = captured(Rooted(), torch.ones(1, 4))
    found = rewrite_capture(before).program.module()(-torch.ones(1, 4))["output"]
    assert torch.equal(found, torch.full((1, 4), -2.0))
