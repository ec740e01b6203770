"""Ranges that several tensors of a static int8 graph share: both formats load the file, and both compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt


class _Joined(nn.Module):
    """Joins scores to boxes, as detectors do, and what is padded to what isn't."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores, self.third = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        boxes, scores = self.boxes(x) * 3, self.scores(x)
        shifted = nn.functional.pad(scores, (1, 0))
        gate = scores.sigmoid()
        return (
            torch.cat([boxes, gate], 1),
            boxes * gate,
            torch.stack([boxes, scores.softmax(-1)], 1),
            torch.cat([boxes, nn.functional.pad(self.third(x), (1, 0)).tanh()], 1),
            torch.cat([shifted, boxes], 1),
            nn.functional.pad(boxes.view(4, 2, 4), (0, 1)).roll(1, 2),
        )


@pytest.mark.slow
def test_what_is_joined_is_loaded_by_both_runtimes(tmp_path: Path) -> None:
    """LiteRT's converter refused the joined scores, and XNNPACK the padding whose result had another scale."""
    torch.manual_seed(0)
    example = torch.randn(4, 8)
    bundle = edgeopt.export(
        _Joined().eval(), profile="pixel7", precision="int8-static", example_inputs=(example,),
        calibration=[(example,)], output=tmp_path / "b",
    )  # fmt: skip
    assert [artifact.format for artifact in bundle.artifacts] == ["pte", "tflite"]
    for pte, tflite in zip(*(artifact.parity for artifact in bundle.artifacts), strict=True):
        assert min(pte["snr_db"], tflite["snr_db"]) > 30
        assert pte["snr_db"] == pytest.approx(tflite["snr_db"], abs=2)
