"""Ranges that several tensors of a static int8 graph share: both formats load the file, and both compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.converters.kernels import file_kernels


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


class _Twins(nn.Module):
    """Compares two images by one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        first, second = (self.leave(torch.relu(self.enter(image))).mean((2, 3)) for image in (a, b))
        return first - second


@pytest.mark.slow
def test_every_call_of_a_shared_convolution_is_quantised(tmp_path: Path) -> None:
    """XNNPACK's quantizer left the second call in float."""
    torch.manual_seed(0)
    example = (torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16) * 3)
    bundle = edgeopt.export(
        _Twins().eval(), profile="pixel7", precision="int8-static", example_inputs=example,
        calibration=[example], output=tmp_path / "b",
    )  # fmt: skip
    assert len(bundle.artifacts) == 2
    for artifact in bundle.artifacts:
        kernels = [kernel for kernel in file_kernels(tmp_path / "b" / artifact.file) if kernel.macs]
        assert [kernel.precision for kernel in kernels] == ["int8"] * 4, artifact.file
        assert artifact.parity[0]["snr_db"] > 25
