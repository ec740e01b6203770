"""Weights far below those of other layers keep their 8 bits, and biases beside them their values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt


class _TwoLayers(nn.Module):
    """A layer whose inputs, weights and bias are as large as they are said to be."""

    def __init__(self, inputs: float, weights: float, bias: float) -> None:
        super().__init__()
        self.inputs, self.a, self.b = inputs, nn.Linear(64, 64), nn.Linear(64, 8)
        with torch.no_grad():
            self.a.weight.mul_(weights)
            self.a.bias.fill_(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x * self.inputs))


def _signal(module: nn.Module, folder: Path) -> dict[str, float]:
    generator = torch.Generator().manual_seed(1)
    samples = [torch.randn(1, 64, generator=generator) for _ in range(8)]
    bundle = edgeopt.export(
        module.eval(), profile="pixel7", precision="int8-static", example_inputs=(samples[0],),
        calibration=[(each,) for each in samples], use_cache=False, output=folder / "b",
    )  # fmt: skip
    return {artifact.format: artifact.parity[0]["snr_db"] for artifact in bundle.artifacts}


@pytest.mark.slow
def test_small_weights_keep_their_bits(tmp_path: Path) -> None:
    """XNNPACK's quantizer has no step below 2^-12, a seventh of the largest of these weights."""
    torch.manual_seed(0)
    found = _signal(_TwoLayers(100.0, 0.012, 0.0), tmp_path)
    assert min(found.values()) > 33, found


@pytest.mark.slow
def test_a_large_bias_beside_tiny_weights_and_inputs_fits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = _signal(_TwoLayers(0.006, 0.01, 20.0), tmp_path)
    assert min(found.values()) > 30, found
