"""Static int8 .tflite files of models in which values of different ranges meet."""

from __future__ import annotations

import math
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


class Causal(nn.Module):
    """Attention as it is written by hand: scores of what comes later are filled with minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (each.unsqueeze(1) for each in self.qkv(x).split(32, -1))
        scores = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(32))
        scores = scores.masked_fill(torch.ones(16, 16).tril() == 0, -math.inf)
        return self.out((scores.softmax(-1) @ v).squeeze(1))


class Cache(nn.Module):
    """A cache of what came before, in which larger numbers stand than in what is new."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, place: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        return held.index_copy(1, place, self.keys(x))


class Edges(nn.Module):
    """Nodes of a graph, joined by twos along its edges, and with what was computed of them."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.edge, self.out = nn.Linear(8, 8), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        along = self.edge(torch.cat([x[edges[0]], x[edges[1]]], -1))
        return self.out(torch.cat([x, 4 * self.node(x)], -1)) + along.mean(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Causal(), lambda: (torch.randn(1, 16, 32),)),
        (Cache(), lambda: (torch.randn(1, 1, 32), torch.tensor([5]), 4 * torch.randn(1, 16, 32))),
        (Edges(), lambda: (torch.randn(10, 8), torch.randint(0, 6, (2, 12)))),
    ],
    ids=["causal", "cache", "edges"],
)
def test_scales_that_meet_stay_apart(model: nn.Module, inputs, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """LiteRT's converter took one scale for all: 6 dB, 3 dB, and no file at all."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    samples = [inputs() for _ in range(4)]
    source = load_source_model(model.eval(), example_inputs=samples[0])
    context = Context(load_calibration(source, samples), lambda what: None)
    optimized = Optimizer(capture(source), context).run(load_recipe("int8-static"))
    litert.convert_static(optimized, tmp_path / "model.tflite", lambda what: None)
    checks = make_checks(source, context.calibration, None, None)
    (parity,) = check_file_outputs(tmp_path / "model.tflite", "int8-static", checks).parity
    assert parity.snr_db is not None and parity.snr_db > 28
