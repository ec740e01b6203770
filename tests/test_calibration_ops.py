"""Op profiles in a calibration: whose time is whose, and that they tell kernels apart where sums can't."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeopt.calibration import measuring
from edgeopt.calibration.files import SuiteFile
from edgeopt.calibration.measuring import Journal, measure_here, profile_here, settle_here
from edgeopt.calibration.op_times import kernel_times
from edgeopt.calibration.run import fields_of, observations, write_calibrated
from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.calibrate import fit_device
from edgeopt.cost_model.observed import Observation, starts_of
from edgeopt.device_profiles import load_profile
from edgeopt.errors import InputError

SILENT = lambda what, fraction=None: None  # noqa: E731


def plain(op: str, elements: int, delegate: str | None = "XNNPACK") -> Kernel:
    return Kernel(
        op, "elementwise", "fp32", bytes_in=4 * elements, bytes_out=4 * elements, in_channels=64, out_channels=64,
        spatial=elements // 64, delegate=delegate, op=op,
    )  # fmt: skip


def conv(channels: int) -> Kernel:
    return Kernel(
        "conv", "conv", "fp32", macs=196 * channels * channels * 9, bytes_in=784 * channels,
        bytes_out=784 * channels, bytes_weights=36 * channels * channels, in_channels=channels,
        out_channels=channels, spatial=196, kernel_size=3.0, delegate="XNNPACK", op="conv2d",
    )  # fmt: skip


def test_operators_of_a_family_are_joined_in_order() -> None:
    kernels = [conv(64), plain("clamp", 640), conv(32), plain("native_layer_norm", 64, None)]
    ops = [
        ("Convolution (NHWC, F32) IGEMM #1", 3.0, True),
        ("Static Reshape (NC) #1", 0.0, True),
        ("Clamp (NC) #1", 0.5, True),
        ("Fully Connected (NC, F32) GEMM #1", 1.0, True),
        ("native_layer_norm.out #1", 0.25, False),
    ]
    assert kernel_times(kernels, ops) == (3.0, 0.5, 1.0, 0.25)


def test_a_family_that_is_counted_differently_is_unknown_and_the_others_are_not() -> None:
    kernels = [conv(64), plain("concatenate3", 640), plain("clamp", 640)]
    ops = [("Convolution (NHWC, F32) IGEMM", 3.0, True)] * 2 + [
        ("Copy (NC, X32) #1", 0.1, True), ("Clamp (NC)", 0.5, True),
    ]  # fmt: skip
    found = kernel_times(kernels, ops)
    assert math.isnan(found[0]) and found[1:] == (0.1, 0.5)


def _observed(told: bool) -> list[Observation]:
    """Networks of one convolution and two clamps each; on this device the formula's convolution takes 3 times, and its
    clamps a tenth, of what the formula says. All sums are so near each other that they don't tell which is which."""
    found = []
    for step in range(12):
        # The share of a clamp's time in the whole hardly changes from one network to the next.
        kernels = (conv(96 + 8 * step), plain("clamp", 64 * (3000 + 600 * step)), plain("clamp", 64 * (2000 + 400 * step)))  # fmt: skip
        times = [
            each.latency_ms * (3.0 if each.kernel.macs else 0.1)
            for each in predict(kernels, load_profile("pixel7"), runtime="litert").kernels
        ]
        found.append(
            Observation(f"n{step}", "litert", 1, kernels, sum(times), 0.01, tuple(times) if told else ())
        )
    return found


def _clamp_error(told: bool, folder: Path) -> float:
    """How far a network of nothing but clamps is then predicted from what it takes."""
    fit = fit_device(_observed(told), load_profile("pixel7"))
    table = {
        "date": "2026-01-02T03:04:05+00:00", "device": "none", "conditions": "made up", "runtimes": {"litert": "2.3.0"},
        "suite": 1, "measurements": 12, "threads": [1], **fields_of(fit),
    }  # fmt: skip
    profile = write_calibrated(load_profile("pixel7"), "pixel7", folder / f"told_{told}.toml", table)
    asked = [plain("clamp", 64 * 4200)] * 4
    truth = 0.1 * predict(asked, load_profile("pixel7"), runtime="litert").latency_ms
    return abs(math.log(predict(asked, profile, runtime="litert").latency_ms / truth))


def test_times_of_kernels_tell_apart_what_sums_of_networks_cannot(tmp_path: Path) -> None:
    """Sums alone laid what convolutions took at the door of the clamps behind them (7.8 ms instead of 1.0 in a
    DenseNet)."""
    blind, told = _clamp_error(False, tmp_path), _clamp_error(True, tmp_path)
    assert told < 0.5 and blind > 1.0


def test_a_slow_run_of_the_profiler_says_what_a_quick_one_says() -> None:
    """Others used the machine while operators were timed: only their shares count, as they can't exceed the whole."""
    quick = _observed(True)
    slow = [replace(each, kernel_ms=tuple(2.5 * ms for ms in each.kernel_ms)) for each in quick]
    found, expected = (fit_device(some, load_profile("pixel7")) for some in (slow, quick))
    assert np.abs(found.residuals - expected.residuals).max() < 0.01
    for one, other in zip(found.anchors, expected.anchors, strict=True):
        assert one["weights"] == pytest.approx(other["weights"], abs=0.02)


def test_as_many_kernel_times_as_kernels() -> None:
    wrong = Observation("n", "litert", 1, (conv(64),), 1.0, 0.0, (0.5, 0.5))
    with pytest.raises(InputError, match="2 kernel times for 1 kernels"):
        fit_device([*_observed(False), wrong], load_profile("pixel7"))


def test_operators_are_timed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, bool]] = []

    def run_job(_module: str, job: dict, folder: Path, **_: object) -> dict:
        asked.extend((file["key"], job["num_threads"], job["ops"]) for file in job["files"])
        what = '"ops": [["Clamp (NC)", 0.5, true]]' if job["ops"] else '"median_ms": 0.6'
        (folder / "times.jsonl").write_text(
            "".join(f'{{"key": "{f["key"]}", {what}}}\n' for f in job["files"])
        )
        return {}

    monkeypatch.setattr(measuring, "run_job", run_job)
    files = [SuiteFile(name, "fp32", "litert", tmp_path / f"{name}.tflite") for name in ("a", "b")]
    journal = Journal.open(tmp_path / "j.jsonl", {})
    for step in (measure_here, settle_here, profile_here):
        assert step(files, [1], 1, journal, SILENT)
    assert sorted(each for each in asked if each[2]) == [
        ("a fp32 litert", 1, True),
        ("b fp32 litert", 1, True),
    ]
    again = Journal.open(tmp_path / "j.jsonl", {})
    count = len(asked)
    assert profile_here(files, [1], 1, again, SILENT) and len(asked) == count
    assert [each.ops for each in again.latencies(files, [1], 1)] == [(("Clamp (NC)", 0.5, True),)] * 2


@pytest.mark.slow
def test_kernels_of_real_files_get_their_operators_times(runnable: Path, tmp_path: Path) -> None:
    files: Sequence[SuiteFile] = [
        SuiteFile(path.stem, "fp32", "executorch" if path.suffix == ".pte" else "litert", path)
        for path in sorted([*runnable.glob("*.pte"), *runnable.glob("*.tflite")])
    ]
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 1, journal, SILENT) and profile_here(files, [1], 1, journal, SILENT)
    found = observations(journal.latencies(files, [1], 1))
    assert len(found) == len(files)
    for each in found:
        told = np.array(each.kernel_ms)
        assert np.isfinite(told).any() and np.nansum(told) < 3 * each.ms + 0.1


def _one_call(count: int, ms: float | None = None) -> Observation:
    """Clamps of 4 µs each in a runtime that needs 30 µs a call and half a microsecond to start a kernel."""
    times = (0.004,) * count
    taken = 0.03 + sum(times) + 0.0005 * count
    return Observation(f"c{count}", "litert", 1, (plain("clamp", 6400),) * count, ms or taken, 0.01, times)


def test_what_operators_leave_of_a_latency_tells_what_starting_one_takes() -> None:
    told = [_one_call(count) for count in range(5, 105, 4)]
    assert starts_of(told)["litert"] == pytest.approx(0.0005, rel=0.05)
    # One that another process was in the way of changes little.
    assert starts_of([*told[:-1], _one_call(101, ms=3.0)])["litert"] == pytest.approx(0.0005, rel=0.1)
    assert starts_of(told[:5]) == {} == starts_of([replace(each, kernel_ms=()) for each in told])


def test_a_calibration_says_what_starting_a_kernel_takes_and_estimates_use_it(tmp_path: Path) -> None:
    base = load_profile("pixel7")
    told = [_one_call(count) for count in range(5, 105, 4)]
    fit = fit_device(told, base)
    uncalibrated = [predict(each.kernels, base, runtime="litert").latency_ms for each in told]
    assert np.exp(fit.before) == pytest.approx(np.array([each.ms for each in told]) / uncalibrated)
    table = {
        "date": "2026-01-02T03:04:05+00:00", "device": "none", "conditions": "made up",
        "runtimes": {"litert": "2.3.0"}, "suite": 1, "measurements": 25, "threads": [1], **fields_of(fit),
    }  # fmt: skip
    profile = write_calibrated(base, "pixel7", tmp_path / "started.toml", table)
    kernels = [plain("clamp", 6400)] * 50
    found = predict(kernels, profile, runtime="litert")
    assert found.kernels[0].dispatch_ms == pytest.approx(0.0005, rel=0.05)
    assert found.latency_ms == pytest.approx(_one_call(50).ms, rel=0.05)
    assert profile.calibration is not None
    older = profile.model_copy(
        update={"calibration": profile.calibration.model_copy(update={"start_ms": {}})}
    )
    by_formula = predict(kernels, older, runtime="litert").kernels[0].dispatch_ms
    assert by_formula == predict(kernels, base, runtime="litert").kernels[0].dispatch_ms
