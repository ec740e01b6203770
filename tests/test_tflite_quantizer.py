"""What the quantizer of float .tflite files is told to leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt


class _LearnedQueries(nn.Module):
    """Attention from queries that the model holds, as detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, 96, 32))
        self.key = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys = self.key(x).reshape(-1, 2, 32).permute(1, 2, 0)
        return torch.softmax(torch.matmul(self.queries, keys), -1)


@pytest.mark.slow
def test_a_product_with_a_constant_left_side_stays_in_float(tmp_path: Path) -> None:
    """LiteRT didn't load the file: int8 on the left and float32 on the right have no kernel."""
    torch.manual_seed(0)
    bundle = edgeopt.export(
        _LearnedQueries().eval(), profile="pixel7", formats=("tflite",), precision="int8-dynamic",
        example_inputs=torch.randn(24, 64), output=tmp_path / "b",
    )  # fmt: skip
    (artifact,) = bundle.artifacts
    assert artifact.parity[0]["snr_db"] > 30
