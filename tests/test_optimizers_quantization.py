"""The passes that quantise: training in int8, equalisation, bias correction, mixed precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import optimizer_models as models
import pytest
import torch
from optimizer_passes import a_pass, apply, quantized
from torch import nn

import edgeopt
from edgeopt.models.program import capture
from edgeopt.models.source import load_source_model
from edgeopt.optimizers.annotation import quantized_layers
from edgeopt.optimizers.cleanup import FoldBatchNorm
from edgeopt.optimizers.quantization import QuantizeStatic, prepare_dynamic, prepare_static

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.slow
def test_training_in_int8_is_what_the_file_will_compute() -> None:
    made = apply(a_pass("fold_batch_norm"), a_pass("qat", epochs=1))
    assert made.model.precision == "int8-static"
    assert made.model.prepared is not None and made.model.reference is not None
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    quantized = convert_pt2e(copy.deepcopy(made.model.prepared))
    image = models.example_inputs()
    with torch.no_grad():
        found, wanted = quantized(image)["output"], made.model.reference(image)["output"]
    assert torch.allclose(found, wanted, atol=0.1 * float(wanted.abs().max()))
    assert {report.name for report in made.reports} == {"fold_batch_norm", "qat"}


class Masked(nn.Module):
    """Attention over the parts of a picture, each of which sees only those before it."""

    def __init__(self) -> None:
        super().__init__()
        channels, side = models.example_inputs().shape[1:3]
        self.parts, self.project = nn.Conv2d(channels, 16, side // 4, side // 4), nn.Linear(16, 48)
        self.out = nn.Linear(16, 10)
        self.register_buffer("mask", torch.full((16, 16), torch.finfo(torch.float32).min).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(self.parts(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        return self.out(((q @ k.transpose(1, 2) + self.mask).softmax(-1) @ v).mean(1))


@pytest.mark.slow
def test_training_in_int8_leaves_sums_with_masks_in_float() -> None:
    torch.manual_seed(0)
    made = apply(a_pass("qat", epochs=1), model=Masked().eval())
    assert made.model.prepared is not None
    computed = {layer.operator for layer in quantized_layers(made.model.prepared)}
    assert {"conv2d", "linear"} <= computed and "add" not in computed


@pytest.mark.slow
def test_training_in_int8_keeps_zeros() -> None:
    made = apply(a_pass("sparsify", sparsity=0.5, epochs=1), a_pass("qat", epochs=1))
    assert made.model.prepared is not None
    state = made.model.prepared.state_dict()
    held = [name for name in made.model.masks if name in state]
    assert held
    for name in held:
        assert bool((state[name][made.model.masks[name] == 0] == 0).all())


@pytest.mark.slow
def test_equalising_rescues_outlier_channels_and_changes_nothing_in_float() -> None:
    plain, broken = quantized(models.outliers(), FoldBatchNorm(), QuantizeStatic())
    for by in ("activations", "weights"):
        made, probe = quantized(
            models.outliers(), FoldBatchNorm(), a_pass("equalize", by=by), QuantizeStatic()
        )
        assert probe.snr_db() > broken.snr_db() + 6
        image = models.example_inputs()
        with torch.no_grad():
            wanted = plain.capture.program.module()(image)["output"]
            found = made.capture.program.module()(image)["output"]
        assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()))
        assert any("evened out the channels" in change for change in made.changes)


@pytest.mark.slow
def test_equalising_reaches_linear_layers_behind_a_layer_normalisation() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a, self.b = nn.LayerNorm(64), nn.Linear(64, 32), nn.Linear(64, 32)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = self.norm(image.flatten(1))
            return self.a(found) + self.b(found)

    torch.manual_seed(0)
    model = Normed().eval()
    with torch.no_grad():
        model.norm.weight[3] = 200.0
        model.a.weight[:, 3] /= 200
        model.b.weight[:, 3] /= 200
    _, broken = quantized(model, QuantizeStatic())
    made, probe = quantized(model, a_pass("equalize"), QuantizeStatic())
    assert probe.snr_db() > broken.snr_db() + 6
    assert made.figures["equalize"]["layers"] == ["layer_norm"]


@pytest.mark.parametrize("by", ["activations", "weights"])
def test_equalising_stops_where_no_weights_can_make_up_for_it_and_says_so(by: str) -> None:
    """As all normalisations of BERT: a residual branch takes the same channels as the layer behind."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a = nn.LayerNorm(64), nn.Linear(64, 64)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = self.norm(image.flatten(1))
            return self.a(found) + found

    torch.manual_seed(0)
    made = apply(a_pass("equalize", by=by), model=Residual().eval(), training=None).model
    assert made.changes[-1].startswith("evened out nothing: every layer's channels also go where no weights")
    assert "equalize" not in made.figures


@pytest.mark.slow
def test_correcting_biases_puts_the_means_right() -> None:
    from edgeopt.optimizers.bias_correction import channel_means

    model = models.outliers(factor=60.0)
    samples = [(sample,) for sample in models.calibration()[::4]]
    shifts, wanted = [], None
    for passes in ((), (a_pass("correct_bias", samples=16),)):
        made, probe = quantized(model, FoldBatchNorm(), QuantizeStatic(observer="min-max"), *passes)
        if wanted is None:
            wanted = channel_means(probe, ["linear"], samples, quantized=False)["linear"]
        found = channel_means(probe, ["linear"], samples, quantized=True)["linear"]
        shifts.append(float((wanted - found).abs().mean()))
    assert any("corrected the biases of 5 layers" in change for change in made.changes)
    assert shifts[1] < 0.2 * shifts[0]
    before, after = made.figures["correct_bias"]["snr_db"]
    assert after > before


def test_mixed_in_a_recipe_that_trains_is_reported() -> None:
    """A graph pass that leaves figures once broke the report of a recipe that also trains."""
    made = apply(a_pass("finetune", epochs=1), a_pass("quantize_mixed"))
    assert [report.name for report in made.reports] == ["finetune", "quantize_mixed"]
    assert made.model.precision == "mixed"
    assert json.dumps(made.to_dict())


class _Shared(nn.Module):
    """One convolution for two sizes, whose inputs have other ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.stem(x).relu()
        return self.head(a), self.head(5 * a[:, :, ::2, ::2])


def test_a_layer_called_twice_has_a_bias_for_each_scale(tmp_path: Path) -> None:
    """A file with one bias for inputs of two scales wasn't loaded by ExecuTorch."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 16, 16)
    bundle = edgeopt.export(
        _Shared().eval(), profile="pixel7", precision="int8-static", example_inputs=x, calibration=[(x,)],
        output=tmp_path / "b",
    )  # fmt: skip
    assert {artifact.format for artifact in bundle.artifacts} == {"pte", "tflite"}
    assert min(parity["snr_db"] for artifact in bundle.artifacts for parity in artifact.parity) > 25


class Relative(nn.Module):
    """Positions looked up by sums and products of whole numbers, as T5's are."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(16, 8), nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        positions = (image[0, 0, 0, :4] > 0).long() * 3 + 2
        return self.out(self.table(positions))


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-static"])
def test_whole_numbers_stay_whole_when_a_graph_is_quantised(name: str) -> None:
    captured = capture(load_source_model(Relative().eval(), example_inputs=models.example_inputs()))
    samples = [(sample,) for sample in models.calibration()]
    if name == "int8-static":
        prepared = prepare_static(captured, samples, per_channel=True)
    else:
        prepared = prepare_dynamic(captured)
    with torch.no_grad():
        found = prepared(models.example_inputs())["output"]
    wanted = captured.source.module(models.example_inputs())["output"]
    assert torch.allclose(found, wanted, atol=0.1)
