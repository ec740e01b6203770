"""Models that ExecuTorch's lowering chokes on, or spoils, without what exporter_fixes mends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import nn

from edgeopt.converters import executorch
from edgeopt.converters.checks import check_file_outputs, make_checks
from edgeopt.converters.inspect_pte import inspect_pte
from edgeopt.models import load_calibration
from edgeopt.models.program import capture
from edgeopt.models.source import load_source_model
from edgeopt.optimizers.passes import Context, Optimizer
from edgeopt.optimizers.recipe import load_recipe


class Reduction(nn.Module):
    """The reduction of keys in efficient attention: a convolution over normalised tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.reduce, self.out = nn.LayerNorm(8), nn.Conv2d(8, 8, 2, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x).permute(0, 2, 1).reshape(1, 8, 4, 4)
        return self.out(self.reduce(y).reshape(1, 8, -1).permute(0, 2, 1))


class ChannelsLast(nn.Module):
    """A head over the channels of each position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 16, 3, 2), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x.permute(0, 3, 1, 2)).relu().permute(0, 2, 3, 1))


def test_a_convolution_over_tokens_quantised_at_run_time(tmp_path: Path) -> None:
    assert_dynamic_int8_agrees(Reduction(), torch.randn(1, 16, 8), tmp_path / "model.pte")


def test_a_linear_layer_over_channels_quantised_at_run_time(tmp_path: Path) -> None:
    assert_dynamic_int8_agrees(ChannelsLast(), torch.randn(1, 24, 24, 3), tmp_path / "model.pte")


class Fire(nn.Module):
    """A linear layer for each position and a convolution that read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.one(x), self.three(x)], 1).relu()


def test_each_layer_quantises_what_it_reads_itself(tmp_path: Path) -> None:
    """XNNPACK's kernel for a conversion that others read, too, took five times as long on an x86 core."""
    path = tmp_path / "model.pte"
    assert_dynamic_int8_agrees(Fire(), torch.randn(1, 3, 16, 16), path)
    counts = Counter(op.op for op in inspect_pte(path).ops)
    assert counts["Conv2d"] == counts["Convert"] == 3


def assert_dynamic_int8_agrees(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    torch.manual_seed(0)
    source = load_source_model(model.eval(), example_inputs=example)
    optimized = Optimizer(capture(source), Context(None, lambda what: None)).run(load_recipe("int8-dynamic"))
    executorch.convert(optimized, path, lambda what: None)
    result = check_file_outputs(path, "int8-dynamic", make_checks(source, None, None, None))
    assert result.passed, result.parity


class Scaled(nn.Module):
    """A number among the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).mean((2, 3))) * scale


def test_a_number_as_an_input_of_static_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = [(2 * torch.randn(1, 3, 16, 16), 2 * torch.randn(())) for _ in range(16)]
    source = load_source_model(Scaled(), example_inputs=rows[0])
    samples = load_calibration(source, rows)
    context = Context(samples, lambda what: None)
    optimized = Optimizer(capture(source), context).run(load_recipe("int8-static"))
    executorch.convert(optimized, tmp_path / "model.pte", lambda what: None)
    result = check_file_outputs(
        tmp_path / "model.pte", "int8-static", make_checks(source, samples, None, None)
    )
    assert result.passed, result.parity
