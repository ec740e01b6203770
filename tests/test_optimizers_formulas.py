"""Each formula of the passes against a value worked out by hand or by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn import functional

from edgeopt.converters.packed_weights import int8_rows
from edgeopt.optimizers.cluster import codebook, codebook_bytes
from edgeopt.optimizers.distillation import feature_loss, soft_loss
from edgeopt.optimizers.equalization import factors_of
from edgeopt.optimizers.figures import count_macs, figures
from edgeopt.optimizers.importance import gradients, weight_scores
from edgeopt.optimizers.mixed import choose_float_layers
from edgeopt.optimizers.observers import activation_observer, percentile_range
from edgeopt.optimizers.sensitivity import LayerDamage, _Switch
from edgeopt.optimizers.sparsity import lowest_mask, pattern_mask, scheduled_sparsity
from edgeopt.optimizers.training import TrainingData
from edgeopt.optimizers.training.data import Batch
from edgeopt.optimizers.training.loop import learning_rate
from edgeopt.optimizers.training.objectives import chosen_output

floats = st.floats(-1e4, 1e4, width=32)
arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=16), elements=floats
)


# quantisation


@settings(max_examples=60, deadline=None)
@given(values=arrays, name=st.sampled_from(["min-max", "moving-average"]))
def test_rounding_to_int8_and_back_is_off_by_half_a_step_at_most(values: np.ndarray, name: str) -> None:
    """q = round(x / s) + z inside the observed range: |x̂ − x| ≤ s / 2."""
    data = torch.from_numpy(values)
    observer = activation_observer(name)(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine
    )
    observer(data)
    scale, zero_point = (part.item() for part in observer.calculate_qparams())
    assert -128 <= zero_point <= 127
    quantized = torch.clamp(torch.round(data / scale) + zero_point, -128, 127)
    restored = (quantized - zero_point) * scale
    assert float((restored - data).abs().max()) <= scale / 2 * (1 + 1e-4) + 1e-6
    # The switch that sensitivity is measured with rounds in the same way.
    switched = _Switch(observer)(data)
    assert torch.allclose(switched, restored, atol=scale * 1e-3)


@settings(max_examples=60, deadline=None)
@given(values=hnp.arrays(np.float32, (3, 12), elements=floats))
def test_int8_tables_are_off_by_half_a_step_of_their_row(values: np.ndarray) -> None:
    table = torch.from_numpy(values)
    quantized, scales = int8_rows(table)
    assert quantized.dtype == torch.int8 and int(quantized.min()) >= -127
    error = (quantized.float() * scales[:, None] - table).abs().amax(1)
    assert bool((error <= scales / 2 * (1 + 1e-3) + 1e-30).all())
    assert torch.allclose(scales * 127, table.abs().amax(1), rtol=1e-5, atol=1e-30)


def test_the_percentile_cuts_both_tails_alike() -> None:
    histogram = torch.zeros(100)
    histogram[[0, 99]] = 1.0
    histogram[40:60] = 10.0  # 200 of 202 values
    low, high = percentile_range(histogram, torch.tensor(-50.0), torch.tensor(50.0), 98.0)
    assert (float(low), float(high)) == (-10.0, 10.0)
    low, high = percentile_range(histogram, torch.tensor(-50.0), torch.tensor(50.0), 100.0)
    assert (float(low), float(high)) == (-50.0, 50.0)


def test_the_percentile_observer_ignores_what_min_max_must_follow() -> None:
    options = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127, "qscheme": torch.per_tensor_affine}
    data = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([1000.0])])
    scales = {}
    for name in ("min-max", "percentile"):
        observer = activation_observer(name, 99.9)(**options)
        observer(data)
        scales[name] = float(observer.calculate_qparams()[0])
    assert scales["min-max"] == pytest.approx(1001 / 255, rel=1e-3)
    assert scales["percentile"] < scales["min-max"] / 20


def test_the_moving_average_moves_by_a_tenth() -> None:
    observer = activation_observer("moving-average")(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine
    )
    observer(torch.tensor([-1.0, 1.0]))
    observer(torch.tensor([-3.0, 11.0]))
    assert float(observer.min_val) == pytest.approx(-1.2)
    assert float(observer.max_val) == pytest.approx(2.0)


# distillation


def test_the_soft_loss_is_t_squared_times_the_divergence() -> None:
    """By hand for two classes: teacher (2, 0), student (0, 0), T = 2: p = σ(1), KL = ln 2 − H(p)."""
    p = 1 / (1 + math.exp(-1))
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    found = soft_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), 2.0)
    assert float(found) == pytest.approx(4 * (math.log(2) - entropy), rel=1e-5)


def test_t_squared_keeps_the_gradient_of_high_temperatures() -> None:
    """For T → ∞ the gradient is (student − teacher) / N whatever T is (Hinton et al., 2015, section 2.1)."""
    teacher = torch.tensor([[3.0, -1.0, -2.0]])
    grads = []
    for temperature in (50.0, 100.0):
        student = torch.tensor([[1.0, 0.5, -1.5]], requires_grad=True)
        soft_loss(student, teacher, temperature).backward()
        grads.append(student.grad)
    assert torch.allclose(grads[0], grads[1], rtol=0.05)
    assert torch.allclose(grads[1], (torch.tensor([[1.0, 0.5, -1.5]]) - teacher) / 3, rtol=0.1)


@pytest.mark.parametrize("shape", [(4, 5), (4, 7, 5), (4, 5, 3, 3)])
def test_the_soft_loss_equals_torchs_divergence(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=generator) for _ in range(2))
    axis = 1 if len(shape) == 4 else -1
    wanted = functional.kl_div(
        functional.log_softmax(student / 3, axis), functional.softmax(teacher / 3, axis), reduction="sum"
    )
    answers = student.numel() / student.shape[axis]
    assert float(soft_loss(student, teacher, 3.0)) == pytest.approx(9 * float(wanted) / answers, rel=1e-5)


def test_features_of_larger_images_are_pooled() -> None:
    teacher = torch.arange(4.0).reshape(1, 1, 2, 2)
    student = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3) + 1
    assert float(feature_loss(student, teacher)) == pytest.approx(1.0)


# importance and sparsity


def test_taylor_importance_is_weight_times_gradient() -> None:
    """L = mean of w·x over rows: ∂L/∂w is the mean of x, so |w · g| is known."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -3.0]]))
    inputs = torch.tensor([[1.0, 4.0]] * 20)
    data = TrainingData(20, lambda rows: Batch((inputs[rows],), torch.zeros(len(rows))), "toy")

    class Sum:
        def loss(self, forward: object, batch: Batch) -> torch.Tensor:
            return model(batch.inputs[0]).mean()

    slope = gradients(model, Sum(), data, 4)["weight"]
    assert torch.allclose(slope, torch.tensor([[1.0, 4.0]]))
    assert weight_scores(model.weight, "taylor", slope).tolist() == [[2.0, 12.0]]
    assert weight_scores(model.weight, "l1", None).tolist() == [[2.0, 3.0]]
    assert weight_scores(model.weight, "l2", None).tolist() == [[4.0, 9.0]]
    assert model.weight.grad is None


def test_the_schedule_is_zhu_and_guptas() -> None:
    """s_f (1 − (1 − t)³): 0, 0.8 · 0.875 half way, s_f, and held."""
    assert scheduled_sparsity(0.0, 0.8) == 0.0
    assert scheduled_sparsity(0.5, 0.8) == pytest.approx(0.7)
    assert scheduled_sparsity(1.0, 0.8) == 0.8 == scheduled_sparsity(2.0, 0.8)


@given(values=hnp.arrays(np.float32, st.integers(1, 200), elements=floats), share=st.floats(0, 1))
def test_the_lowest_go_and_as_many_as_asked(values: np.ndarray, share: float) -> None:
    score = torch.from_numpy(np.abs(values))
    mask = lowest_mask(score, share).bool()
    assert int((~mask).sum()) == round(len(values) * share)
    if mask.any() and not mask.all():
        assert float(score[~mask].max()) <= float(score[mask].min())


@settings(deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 33), n=st.integers(1, 7), extra=st.integers(1, 8))
def test_n_of_m_keeps_exactly_the_n_largest_of_each_block(
    rows: int, columns: int, n: int, extra: int
) -> None:
    m = n + extra
    score = torch.rand(rows, columns, generator=torch.Generator().manual_seed(columns))
    mask = pattern_mask(score, n, m)
    for row in range(rows):
        for start in range(0, columns, m):
            block, kept = score[row, start : start + m], mask[row, start : start + m]
            wanted = n if len(block) == m else min(len(block), -(-len(block) * n // m))
            assert int(kept.sum()) == wanted
            assert torch.equal(kept.bool(), block >= block.sort(descending=True).values[wanted - 1])


# clustering


def test_the_codebook_finds_the_clusters_that_are_there() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([-2.0, -0.5, 0.75, 3.0])
    which = torch.randint(0, 4, (20, 30), generator=generator)
    weight = centers[which] + 0.01 * torch.randn(20, 30, generator=generator)
    centroids, members = codebook(weight, 4, seed=0)
    assert torch.equal(members, which)
    assert torch.allclose(centroids, centers, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(
    values=hnp.arrays(np.float32, st.integers(2, 60), elements=st.floats(-10, 10, width=32)),
    k=st.integers(2, 8),
)
def test_every_weight_goes_to_its_nearest_centroid(values: np.ndarray, k: int) -> None:
    weight = torch.from_numpy(values)
    centroids, members = codebook(weight, k, seed=1)
    distance = (weight[:, None].double() - centroids.double()).abs()
    assert torch.allclose(distance.gather(1, members[:, None])[:, 0], distance.min(1).values, atol=1e-5)
    assert len(centroids) <= k


def test_zeros_of_a_sparse_weight_stay_zero() -> None:
    weight = torch.tensor([[0.0, 1.0, 1.1, 0.0], [5.0, 5.1, 0.0, -1.0]])
    centroids, members = codebook(weight, 4, seed=0, keep_zeros=True)
    clustered = centroids[members]
    assert torch.equal(clustered == 0, weight == 0)
    assert len(clustered.unique()) == 4


def test_codebook_bytes_count_packed_indices() -> None:
    """1,024 weights of 16 values that don't compress: 4 bits each and 64 bytes of values."""
    weight = torch.randint(0, 16, (1024,), generator=torch.Generator().manual_seed(0)).float()
    assert 512 + 64 <= codebook_bytes(weight) <= 512 + 64 + 32


# equalisation


def test_equal_ranges_after_cross_layer_equalisation() -> None:
    """s = √(r₁ / r₂) makes r₁ / s = r₂ · s, up to the common factor that the geometric mean takes out."""
    channels, weights = torch.tensor([100.0, 1.0, 4.0]), torch.tensor([1.0, 1.0, 0.25])
    factor = factors_of(channels, weights, 0.5)
    ratio = (channels / factor) / (weights * factor)
    assert torch.allclose(ratio, ratio[0].expand(3), rtol=1e-4)
    assert float(factor.log().sum()) == pytest.approx(0.0, abs=1e-5)


def test_dead_channels_are_left_alone() -> None:
    assert factors_of(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0]), 0.5).tolist() == [1.0, 1.0]
    assert float(factors_of(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0]), 0.5)[0]) == 1.0


# what counts


def test_macs_and_parameters_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, padding=1)
            self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
            self.c = nn.Linear(8, 5)
            self.d = nn.ConvTranspose2d(8, 4, 2, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.b(self.a(x))
            return self.c(x.mean((2, 3))).sum() + self.d(x).sum()

    net, example = Net().eval(), (torch.zeros(1, 3, 8, 8),)
    assert count_macs(net, example) == 64 * 8 * 27 + 16 * 8 * 9 + 8 * 5 + 16 * 8 * 4 * 4
    found = figures(net, example)
    assert found.parameters == (216 + 8) + (72 + 8) + 45 + (128 + 4)
    assert found.weight_bytes == 4 * found.parameters


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[52] == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95)))


def test_mixed_keeps_the_noisiest_for_what_they_cost() -> None:
    def layer(name: str, snr: float, macs: int) -> LayerDamage:
        return LayerDamage(name, name, "conv2d", snr, snr, 90.0, 90.0, macs, 10)

    layers = [layer("cheap", 10.0, 10), layer("dear", 10.0, 1000), layer("fine", 60.0, 10)]
    assert choose_float_layers(layers, lambda kept: True) == []
    assert choose_float_layers(layers, lambda kept: "cheap" in kept) == ["cheap"]
    assert set(choose_float_layers(layers, lambda kept: "dear" in kept)) == {"dear"}
    assert set(choose_float_layers(layers, lambda kept: len(kept) == 3)) == {"cheap", "dear", "fine"}


def test_the_output_to_train_is_the_only_one_or_logits() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert chosen_output({"a": one}, "") is one
    assert chosen_output({"a": one, "logits": two}, "") is two
    assert chosen_output({"a": one, "logits": two}, "a") is one
