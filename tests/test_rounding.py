"""How far two correct machines may differ: the float16 bound against simulated sums and a real file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeopt.android_harness.emulator import check_parity, cpu_of, run
from edgeopt.android_harness.emulator.parity import agreement
from edgeopt.android_harness.emulator.rounding import (
    FLOAT_TOLERANCE,
    LARGEST_TOLERANCE,
    half_tolerance,
    tolerance_of,
)
from edgeopt.android_harness.emulator.verification import BundleCheck
from edgeopt.device_profiles import load_profile
from edgeopt.runtimes import run_isolated


def sums_in(dtype: type, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, K) @ (K, M) with every partial sum rounded to ``dtype``, as a fused multiply-add of that type does."""
    total = np.zeros((values.shape[0], weights.shape[1]), dtype)
    for k in range(values.shape[1]):
        exact = total.astype(np.float64) + values[:, k : k + 1].astype(np.float64) * weights[k].astype(
            np.float64
        )
        total = exact.astype(dtype)
    return total


@pytest.mark.parametrize(
    ("length", "positive"),
    # Of one sign and longer, float16 sums stagnate: what is below half a step vanishes.
    [(27, False), (144, False), (576, False), (1152, False), (27, True), (144, True), (576, True)],
)
def test_the_bound_holds_for_one_sum_and_is_not_idle(length: int, positive: bool) -> None:
    generator = np.random.default_rng(length)
    values = generator.standard_normal((64, length)).astype(np.float16)
    weights = generator.standard_normal((length, 32)).astype(np.float16)
    if positive:
        values, weights = np.abs(values), np.abs(weights)
    half = sums_in(np.float16, values, weights)
    single = sums_in(np.float32, values, weights).astype(np.float16)
    found = agreement([half], [single]).relative
    bound = half_tolerance([length], sums_in_half=True)
    assert bound / 20 < found <= bound


def test_the_bound_holds_through_layers() -> None:
    generator = np.random.default_rng(7)
    half = single = generator.standard_normal((64, 256)).astype(np.float16)
    for _ in range(4):
        weights = (generator.standard_normal((256, 256)) / 16).astype(np.float16)
        half = np.maximum(sums_in(np.float16, half, weights), 0)
        single = np.maximum(sums_in(np.float32, single, weights).astype(np.float16), 0)
    assert 1e-3 < agreement([half], [single]).relative <= half_tolerance([256] * 4, sums_in_half=True)


def test_the_bound_has_a_floor_and_an_end() -> None:
    assert half_tolerance([], sums_in_half=True) == 2.0**-10
    assert half_tolerance([4608] * 100, sums_in_half=True) == LARGEST_TOLERANCE
    assert half_tolerance([288] * 4, sums_in_half=False) == half_tolerance([0] * 4, sums_in_half=True)


@pytest.mark.slow
@pytest.mark.emulator
def test_a_float16_unet_differs_by_its_rounding_and_no_more(emulated_models: Path) -> None:
    """float16 sums of a Cortex-A76 against float32 sums of this machine; float32 outside, so no dtype tells."""
    path = emulated_models / "unet_fp16.pte"
    golden = np.load(emulated_models / "golden.npz")
    image, reference = golden["unet_fp16/input"], [golden["unet_fp16/output"]]
    host = run_isolated(path, [[image]])[0]
    done = run(path, [image], cpu_of(load_profile("raspberry_pi_5")), count=False)
    tolerance = tolerance_of(path, done.cpu_features)
    assert not check_parity(done.outputs, host).ok  # one constant for float32 outputs refused a correct run
    assert check_parity(done.outputs, host, tolerance=tolerance).ok
    right = done.outputs[0]
    plain = run(path, [image], cpu_of(load_profile("raspberry_pi_3b_plus")), count=False)
    narrower = tolerance_of(path, plain.cpu_features)
    assert narrower < tolerance / 3  # no float16 sums there
    assert check_parity(plain.outputs, host, tolerance=narrower).ok
    wrong = {
        "5% off": right * 1.05,
        "negated": -right,
        "channels last": right.transpose(0, 2, 3, 1).reshape(right.shape),
        "one channel lost": right * np.array([1, 1, 1, 0], np.float32).reshape(1, 4, 1, 1),
        "one wrong value": np.where(right == right.max(), 0, right),
    }
    for what, outputs in wrong.items():
        parity = check_parity([outputs], host, reference, tolerance=tolerance)
        check = BundleCheck("unet.pte", "cortex-a76", parity, agreement(host, reference), ())
        assert not check.ok, what


@pytest.mark.slow
@pytest.mark.emulator
def test_only_float16_arithmetic_is_given_more(emulated_models: Path) -> None:
    for name in ("cnn.pte", "cnn_int8.pte", "cnn.tflite"):
        assert tolerance_of(emulated_models / name, ("neon", "fp16")) == FLOAT_TOLERANCE
    assert tolerance_of(emulated_models / "cnn_fp16.pte", ("neon", "fp16")) > FLOAT_TOLERANCE
