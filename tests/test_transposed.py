"""Transposed convolutions: in integers in static int8 .tflite files, and with what normalises them folded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeopt.converters import litert
from edgeopt.converters.checks import check_file_outputs, make_checks
from edgeopt.converters.tflite_file import operator_code, read_model
from edgeopt.models import load_calibration
from edgeopt.models.program import capture
from edgeopt.models.source import load_source_model
from edgeopt.optimizers.cleanup import fold_batch_norm
from edgeopt.optimizers.passes import Context, Optimizer
from edgeopt.optimizers.recipe import load_recipe


class UNet(nn.Module):
    """Down, up, and what was there before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.out = nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.up(self.down(x)), x], 1))


def _decoder(*, of_rows: bool) -> nn.Module:
    """Two after one another, with and without bias, output padding and a ReLU."""
    conv, up = (nn.Conv1d, nn.ConvTranspose1d) if of_rows else (nn.Conv2d, nn.ConvTranspose2d)
    return nn.Sequential(
        conv(3, 8, 3, 2, 1), nn.ReLU(), up(8, 6, 4, 2, 1, bias=False), nn.ReLU(), up(6, 4, 3, 2, 1, 1), conv(4, 2, 1)
    )  # fmt: skip


def _ready(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr,operator]
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape"),
    [(UNet(), (1, 3, 16, 16)), (_decoder(of_rows=False), (1, 3, 16, 16)), (_decoder(of_rows=True), (1, 3, 32))],
    ids=["unet", "images", "rows"],
)  # fmt: skip
def test_a_static_int8_tflite_computes_them_in_integers(
    model: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """They were computed in float32, those of one dimension with a filter turned over at each inference."""
    from ai_edge_litert import schema_py_generated as schema

    samples = [(torch.randn(shape),) for _ in range(4)]
    source = load_source_model(_ready(model), example_inputs=samples[0])
    context = Context(load_calibration(source, samples), lambda what: None)
    optimized = Optimizer(capture(source), context).run(load_recipe("int8-static"))
    path = tmp_path / "model.tflite"
    litert.convert_static(optimized, path, lambda what: None)
    file = read_model(path)
    (graph,) = file.subgraphs
    transposed = [
        each for each in graph.operators if operator_code(file, each) == schema.BuiltinOperator.TRANSPOSE_CONV
    ]
    assert transposed
    for operator in transposed:
        for tensor in (operator.inputs[1], operator.inputs[2], operator.outputs[0]):
            assert graph.tensors[tensor].type == schema.TensorType.INT8
    (parity,) = check_file_outputs(
        path, "int8-static", make_checks(source, context.calibration, None, None)
    ).parity
    assert parity.snr_db is not None and parity.snr_db > 28


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_a_normalisation_behind_one_is_folded(groups: int, bias: bool) -> None:
    """It wasn't; with groups it still isn't: their weights don't have the output channels along one axis."""
    model = _ready(
        nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, 2, 1, bias=bias, groups=groups), nn.BatchNorm2d(6), nn.ReLU()
        )
    )
    x = torch.randn(1, 4, 5, 5)
    program = capture(load_source_model(model, example_inputs=(x,))).program
    folded, count = fold_batch_norm(program)
    assert count == (1 if groups == 1 else 0)
    (found,) = folded.module()(x).values()
    assert torch.allclose(found, model(x), atol=1e-5)
