"""Infinities of masks in static int8 .tflite files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.converters.finite_masks import use_finite_masks


class _Masked(nn.Module):
    """Attention that is told by a mask of booleans what to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        causal = torch.ones(16, 16).tril() > 0
        parts = (part(x)[None] for part in (self.q, self.k, self.v))
        return nn.functional.scaled_dot_product_attention(*parts, causal) + x


@pytest.mark.slow
def test_infinite_masks_are_taken_by_both_formats(tmp_path: Path) -> None:
    """LiteRT's converter failed on the scale of the infinity that such attention is written with."""
    torch.manual_seed(0)
    example = torch.randn(1, 16, 32)
    bundle = edgeopt.export(
        _Masked().eval(), profile="pixel7", precision="int8-static", example_inputs=(example,),
        calibration=[(example,)], output=tmp_path / "b",
    )  # fmt: skip
    assert [artifact.format for artifact in bundle.artifacts] == ["pte", "tflite"]
    assert min(artifact.parity[0]["snr_db"] for artifact in bundle.artifacts) > 30


def test_infinities_stay_where_a_model_asks_for_them() -> None:
    class Sum(nn.Module):
        def __init__(self, asks: bool) -> None:
            super().__init__()
            self.asks = asks
            self.register_buffer("mask", torch.tensor([0.0, -math.inf]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x + self.mask
            return torch.where(torch.isinf(total), x, total) if self.asks else total

    for asks in (False, True):
        program = torch.export.export(Sum(asks), (torch.randn(2),), strict=False)
        use_finite_masks(program)
        (mask,) = program.state_dict.values()
        assert bool(torch.isinf(mask).any()) == asks
