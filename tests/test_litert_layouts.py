"""Static int8 .tflite files of images from which several operators read channels, in either layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeopt.converters import litert
from edgeopt.converters.checks import check_file_outputs, make_checks
from edgeopt.models import load_calibration
from edgeopt.models.program import capture
from edgeopt.models.source import load_source_model
from edgeopt.optimizers.passes import Context, Optimizer
from edgeopt.optimizers.recipe import load_recipe


class Boxes(nn.Module):
    """A detector's head: the first corner from a box's middle and its width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y[:, 0] - y[:, 2] / 2


class Pooled(nn.Module):
    """Tokens of an image, and where they look."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.out(y.flatten(2).transpose(1, 2)) * y.select(1, 0).flatten(1).unsqueeze(-1)


@pytest.mark.parametrize(
    "model", [Boxes(6), Boxes(8), Pooled()], ids=["another size", "the image's size", "tokens"]
)
def test_readers_of_one_image_each_get_its_layout(model: nn.Module, tmp_path: Path) -> None:
    """LiteRT's exporter turned it for the first one only: sizes that don't fit, or another axis where they do."""
    torch.manual_seed(0)
    samples = [torch.randn(1, 3, 8, 8) for _ in range(8)]
    source = load_source_model(model.eval(), example_inputs=samples[0])
    context = Context(load_calibration(source, samples), lambda what: None)
    optimized = Optimizer(capture(source), context).run(load_recipe("int8-static"))
    litert.convert_static(optimized, tmp_path / "model.tflite", lambda what: None)
    checks = make_checks(source, context.calibration, None, None)
    (parity,) = check_file_outputs(tmp_path / "model.tflite", "int8-static", checks).parity
    assert parity.snr_db is not None and parity.snr_db > 28
