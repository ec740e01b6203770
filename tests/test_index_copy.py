"""Copies to positions along an axis in .tflite files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.converters.rewrites import rewrite_program


class _Cache(nn.Module):
    """One step of a decoder with a cache of keys and values as inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(
        self, x: torch.Tensor, place: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        keys = keys.index_copy(1, place, self.k(x))
        values = values.index_copy(1, place, self.v(x))
        return torch.softmax(self.q(x) @ keys.transpose(1, 2) * 0.2, -1) @ values, keys, values


@pytest.mark.slow
def test_a_cache_is_written_without_loops(tmp_path: Path) -> None:
    """LiteRT wrote the copies as loops, and the static int8 file had subgraphs that no one expected."""
    torch.manual_seed(0)
    # A cache holds earlier keys and values: its range is theirs.
    samples = [
        (torch.randn(1, 1, 32), torch.tensor([place]), *torch.randn(2, 1, 16, 32) * 0.5)
        for place in (3, 0, 15)
    ]
    bundle = edgeopt.export(
        _Cache().eval(), profile="pixel7", formats=("tflite",), precision="int8-static",
        example_inputs=samples[0], calibration=samples, output=tmp_path / "b",
    )  # fmt: skip
    assert min(parity["snr_db"] for parity in bundle.artifacts[0].parity) > 25


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("in_place", [False, True])
def test_copies_to_positions_are_the_same_numbers(axis: int, in_place: bool) -> None:
    class Copy(nn.Module):
        def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            place = torch.tensor([4, 1])
            if in_place:
                return x.clone().index_copy_(axis, place, rows)
            return x.index_copy(axis, place, rows)

    x, rows = torch.randn(5, 5), torch.randn(2, 5) if axis == 0 else torch.randn(5, 2)
    program = torch.export.export(Copy(), (x, rows), strict=False)
    changed, notes = rewrite_program(program, "tflite")
    assert notes and torch.equal(changed.module()(x, rows), Copy()(x, rows))
