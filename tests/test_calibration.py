"""Calibration: the fit on a device that is made up, the journal, the profile it writes, and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_standins import fake_payload
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.android_harness import device_facts
from edgeopt.calibration import run as calibration_run
from edgeopt.calibration.files import SuiteFile
from edgeopt.calibration.measuring import Journal, measure_here, measure_on
from edgeopt.cli import main
from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.calibrate import Fit, fit_device, share_within
from edgeopt.cost_model.corrections import Corrections, operator_of
from edgeopt.cost_model.machine import machine_of, stale_calibration
from edgeopt.cost_model.observed import Observation
from edgeopt.device_profiles import DeviceProfile, load_profile
from edgeopt.errors import InputError

SILENT = lambda what, fraction=None: None  # noqa: E731
SETTINGS = [(runtime, threads) for runtime in ("executorch", "litert") for threads in (1, 2)]


def conv(
    inputs: int, outputs: int, side: int, size: int, precision: str = "fp32", depthwise: bool = False
) -> Kernel:
    width = {"fp32": 4, "int8": 1}[precision]
    taps = 1 if depthwise else inputs
    kind = "depthwise" if depthwise else "pointwise" if size == 1 else "conv"
    return Kernel(
        f"{kind}{inputs}", kind, precision, macs=side * side * outputs * taps * size * size,
        bytes_in=side * side * inputs * width, bytes_out=side * side * outputs * width,
        bytes_weights=outputs * taps * size * size * width, in_channels=taps, out_channels=outputs,
        spatial=side * side, kernel_size=size, delegate="XNNPACK",
    )  # fmt: skip


def network(seed: int, precision: str = "fp32", least: int = 2) -> tuple[Kernel, ...]:
    """A chain of random convolutions."""
    random = np.random.default_rng(seed)
    kernels = []
    for _ in range(least + int(random.integers(3))):
        inputs, outputs = (int(x) for x in random.choice([16, 24, 40, 64, 96, 160, 240], 2))
        side, size = int(random.choice([7, 14, 28, 56])), int(random.choice([1, 3]))
        depthwise = bool(size == 3 and random.random() < 0.5)
        kernels.append(conv(inputs, inputs if depthwise else outputs, side, size, precision, depthwise))
    return tuple(kernels)


def made_up(kernel: Kernel, runtime: str, threads: int) -> float:
    """How much slower than the formula says a device that never was runs a kernel: smooth in the shape, other
    for each class, runtime and precision, worse with threads."""
    factor = 1.7 + 0.5 * np.sin(np.log(kernel.macs) / 3) + 0.2 * np.cos(np.log(kernel.spatial))
    factor *= {"depthwise": 2.2, "pointwise": 0.8, "conv": 1.0}[kernel.kind]
    factor *= 1.25 if runtime == "litert" else 1.0
    factor *= 0.6 if kernel.precision == "int8" else 1.0
    return float(factor * (1.1 if threads > 1 else 1.0))


def measured(
    name: str, kernels: tuple[Kernel, ...], runtime: str, threads: int, seed: int = 0
) -> Observation:
    found = predict(kernels, load_profile("pixel7"), runtime=runtime, num_threads=threads)
    truth = 0.02 + sum(k.latency_ms * made_up(k.kernel, runtime, threads) for k in found.kernels)
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.01))
    return Observation(name, runtime, threads, kernels, float(truth * noise), 0.01)


@pytest.fixture(scope="module")
def suite() -> list[Observation]:
    return [
        measured(f"n{seed}", network(seed, precision), runtime, threads, seed)
        for seed in range(40)
        for precision in ("fp32", "int8")
        for runtime, threads in SETTINGS
    ]


@pytest.fixture(scope="module")
def fit(suite: list[Observation]) -> Fit:
    return fit_device(suite, load_profile("pixel7"))


@pytest.fixture(scope="module")
def calibrated(fit: Fit, suite: list[Observation], tmp_path_factory: pytest.TempPathFactory) -> DeviceProfile:
    path = tmp_path_factory.mktemp("calibrated") / "pixel7_calibrated.toml"
    table = {
        "date": "2026-01-02T03:04:05+00:00", "device": "a device that never was", "conditions": "made up",
        "runtimes": {"executorch": "1.5.1", "litert": "2.3.0"}, "suite": 1, "measurements": len(suite),
        "threads": [1, 2], **calibration_run.fields_of(fit),
    }  # fmt: skip
    return calibration_run.write_calibrated(load_profile("pixel7"), "pixel7", path, table)


def errors_on(profile: DeviceProfile, observations: list[Observation]) -> np.ndarray:
    return np.array([
        np.log(each.ms / predict(each.kernels, profile, runtime=each.runtime, num_threads=each.threads).latency_ms)
        for each in observations
    ])  # fmt: skip


def test_networks_never_seen_are_predicted_within_ten_percent(calibrated: DeviceProfile) -> None:
    unseen = [
        measured(f"new{seed}", network(seed, precision, least=8), runtime, threads)
        for seed in range(100, 110)
        for precision in ("fp32", "int8")
        for runtime, threads in SETTINGS
    ]
    before, after = errors_on(load_profile("pixel7"), unseen), errors_on(calibrated, unseen)
    assert share_within(before, 0.1) < 0.3
    assert share_within(after, 0.1) >= 0.9


def chain(inputs: int, outputs: int, layers: int) -> tuple[Kernel, ...]:
    """Pointwise convolutions of one position after the other: nearly all of their bytes are weights."""
    return tuple(conv(*(inputs, outputs)[:: 1 if i % 2 else -1], 2, 1) for i in range(layers))


def test_what_others_leave_of_the_caches_is_learned_from_large_networks() -> None:
    pixel7 = load_profile("pixel7")
    # A device with a third of the last-level cache that its data sheet tells and a third of the bandwidth.
    truth = replace(machine_of(pixel7).with_llc(-1.05), factors={"dram": 1.1})

    def timed(name: str, kernels: tuple[Kernel, ...], runtime: str, threads: int) -> Observation:
        found = predict(kernels, truth, runtime=runtime, num_threads=threads)
        return Observation(name, runtime, threads, kernels, found.latency_ms, 0.01)

    networks = {f"n{seed}": network(seed) for seed in range(20)}
    networks |= {
        f"d{width}x{n}": chain(width, width + 64, n)
        for width, n in ((320, 6), (384, 12), (448, 16), (512, 24))
    }
    suite = [timed(name, kernels, *where) for name, kernels in networks.items() for where in SETTINGS]
    fit = fit_device(suite, pixel7)
    assert fit.factors["llc"] < 0 < fit.factors["dram"]
    found = replace(machine_of(pixel7).with_llc(fit.factors["llc"]), factors=fit.factors)
    for width, layers in ((352, 12), (416, 20)):
        unseen = timed("unseen", chain(width, width + 48, layers), "litert", 1)
        before = predict(unseen.kernels, pixel7, runtime="litert").latency_ms
        after = predict(unseen.kernels, found, runtime="litert").latency_ms
        assert abs(after / unseen.ms - 1) < 0.05 < abs(before / unseen.ms - 1)


def test_a_written_profile_predicts_what_was_fitted(
    calibrated: DeviceProfile, fit: Fit, suite: list[Observation]
) -> None:
    assert np.allclose(errors_on(calibrated, suite), fit.residuals, atol=0.01)
    assert share_within(fit.residuals, 0.05) > 0.9
    # Left out, a network is predicted worse than when it is known, and better than without calibration.
    assert fit.within(0.1) > share_within(fit.before, 0.1) + 0.3
    assert np.abs(fit.errors).mean() > np.abs(fit.residuals).mean()


def test_an_estimate_says_that_it_is_calibrated(calibrated: DeviceProfile, fit: Fit) -> None:
    found = predict(network(7), calibrated, runtime="litert")
    assert found.grade == "calibrated"
    assert "a device that never was" in found.basis and "litert 2.3.0" in found.basis
    assert found.low_ms == pytest.approx(found.latency_ms * fit.band[0], rel=1e-3)
    assert found.high_ms == pytest.approx(found.latency_ms * fit.band[1], rel=1e-3)
    assert found.latency_ms == pytest.approx(sum(k.latency_ms for k in found.kernels) + found.call_ms)
    # tflite_runtime has LiteRT's kernels; ncnn's were not measured.
    assert predict(network(7), calibrated, runtime="tflite_runtime").grade == "calibrated"
    assert predict(network(7), calibrated, runtime="ncnn").grade != "calibrated"


def test_the_profile_keeps_what_it_extends(calibrated: DeviceProfile) -> None:
    base = load_profile("pixel7")
    assert calibrated.name == "pixel7_calibrated"
    assert calibrated.cpu == base.cpu and calibrated.figures() == base.figures()
    assert calibrated.fingerprint() != base.fingerprint()


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 4096), outputs=st.integers(1, 4096), side=st.integers(1, 512), size=st.sampled_from([1, 3, 5, 7]),
    precision=st.sampled_from(["fp32", "int8"]), runtime=st.sampled_from(["executorch", "litert", "tflite_runtime"]),
    threads=st.integers(1, 8),
)  # fmt: skip
def test_corrections_are_bounded_and_smooth(
    calibrated: DeviceProfile, inputs: int, outputs: int, side: int, size: int, precision: str, runtime: str, threads: int
) -> None:  # fmt: skip
    assert calibrated.calibration is not None
    corrections = Corrections.of(calibrated.calibration)
    kernel = conv(inputs, outputs, side, size, precision)
    near = conv(inputs, outputs, side + max(1, side // 100), size, precision)
    here, there = np.log(corrections.factors([kernel, near], runtime, threads))
    assert abs(here) <= 3.0 and abs(there) <= 3.0
    step = np.log(near.spatial / kernel.spatial)
    assert abs(here - there) <= 2.0 * step + 1e-9


def test_more_work_of_measured_kinds_is_not_predicted_faster(calibrated: DeviceProfile) -> None:
    """Corrections may bend the formula; over the range that was measured they must not turn it round."""
    for depthwise in (False, True):
        times = [
            predict([conv(64, 64, side, 3, depthwise=depthwise)], calibrated, runtime="litert").latency_ms
            for side in (7, 10, 14, 20, 28, 40, 56)
        ]
        assert times == sorted(times)


def test_too_few_networks_and_impossible_times_are_refused(suite: list[Observation]) -> None:
    profile = load_profile("pixel7")
    with pytest.raises(InputError, match="5 networks or more; there are 2"):
        fit_device([each for each in suite if each.network in ("n0", "n1")], profile)
    wrong = [*suite[:200], Observation("n0", "litert", 1, network(0), float("nan"))]
    with pytest.raises(InputError, match="which no inference can take"):
        fit_device(wrong, profile)


def test_operators_of_all_readers_fall_into_the_same_families() -> None:
    def family(op: str) -> str:
        return operator_of(Kernel("k", "elementwise", "fp32", bytes_out=4, op=op))

    assert family("logistic") == family("Sigmoid") == family("sigmoid")
    assert family("dequantize") == family("Convert")
    assert family("hard_swish") == family("hardswish") == family("HardSwish")
    assert family("embedding_byte") == family("embedding") == family("gather") == "embedding"
    assert family("add") == family("Multiply") == family("") == "plain"
    assert operator_of(conv(8, 8, 8, 3)) == "plain"


def test_a_calibration_on_top_of_other_constants_is_not_used(calibrated: DeviceProfile) -> None:
    assert calibrated.calibration is not None
    kernels = [conv(64, 64, 28, 3)]
    assert predict(kernels, calibrated, runtime="litert").grade == "calibrated"
    other = calibrated.calibration.model_copy(update={"constants": "0" * 16})
    stale = calibrated.model_copy(update={"calibration": other})
    found = predict(kernels, stale, runtime="litert")
    plain = predict(kernels, load_profile("pixel7"), runtime="litert")
    assert (found.latency_ms, found.grade) == (plain.latency_ms, plain.grade)
    assert "Calibrate again" in str(stale_calibration(stale))
    assert stale_calibration(calibrated) is None
    assert stale_calibration(load_profile("pixel7")) is None


def test_a_table_of_another_form_is_refused(calibrated: DeviceProfile, tmp_path: Path) -> None:
    text = 'extends = "pixel7"\n[calibration]\ndate = "today"\n'
    (tmp_path / "half.toml").write_text(text)
    with pytest.raises(InputError, match=r"calibration\.device"):
        load_profile(tmp_path / "half.toml")


# The journal, and measuring on this machine.


def test_a_journal_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    files = [SuiteFile(f"n{i}", "fp32", "litert", tmp_path / f"{i}.tflite") for i in range(3)]
    journal = Journal.open(tmp_path / "j.jsonl", {"suite": 1})
    journal.add(files[0].key, 1, 0, 1.0)
    journal.add(files[0].key, 1, 1, 1.2)
    journal.add(files[1].key, 1, 0, None)
    journal.add_problems(["other processes used 20% of the CPUs", "other processes used 30% of the CPUs"])
    again = Journal.open(tmp_path / "j.jsonl", {"suite": 1})
    assert again.missing(files, 1, 0) == [files[2]]  # the one that fails isn't tried again
    (latency,) = again.latencies(files, [1], 2)
    # The fastest round: other work can only slow one down.
    assert latency.ms == pytest.approx(1.0) and latency.spread == pytest.approx(0.2)
    assert again.problems == ["other processes used 30% of the CPUs"]
    assert Journal.open(tmp_path / "j.jsonl", {"suite": 2}).times == {}


def test_a_line_torn_by_a_kill_costs_one_time_not_the_journal(tmp_path: Path) -> None:
    files = [SuiteFile(f"n{i}", "fp32", "litert", tmp_path / f"{i}.tflite") for i in range(2)]
    journal = Journal.open(tmp_path / "j.jsonl", {"suite": 1})
    journal.add(files[0].key, 1, 0, 1.0)
    with journal.path.open("a") as stream:
        stream.write('{"key": "n1 fp32 lit')
    again = Journal.open(tmp_path / "j.jsonl", {"suite": 1})
    assert again.missing(files, 1, 0) == [files[1]]
    again.add(files[1].key, 1, 0, 2.0)
    assert Journal.open(tmp_path / "j.jsonl", {"suite": 1}).missing(files, 1, 0) == []


def test_what_ctrl_c_cut_short_on_a_device_is_taken_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = SimpleNamespace(
        threads=1, metric="latency_ms", value=3.0, partial=False, conditions={"problems": []}
    )
    run = SimpleNamespace(run=SimpleNamespace(records=[record]), failures=[], interrupted=True)
    monkeypatch.setattr("edgeopt.results.device_bench.bench_on_devices", lambda *a, **k: (run, []))
    monkeypatch.setattr("edgeopt.results.artifacts.find_artifacts", lambda paths: paths)
    files = [SuiteFile("n", "fp32", "litert", tmp_path / "n.tflite")]
    journal = Journal.open(tmp_path / "j.jsonl", {})
    with pytest.raises(KeyboardInterrupt):
        measure_on(SimpleNamespace(name="phone"), load_profile("pixel7"), files, [1, 4], 2, journal, SILENT)  # type: ignore[arg-type]
    assert journal.missing(files, 1, 0) == []
    assert journal.missing(files, 4, 0) == files


def test_rounds_beyond_those_asked_for_are_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on with fewer rounds than before said 150% and more."""
    monkeypatch.setattr("edgeopt.calibration.measuring._batch", lambda *_: None)
    file = SuiteFile("n", "fp32", "litert", tmp_path / "n.tflite")
    journal = Journal.open(tmp_path / "j.jsonl", {})
    for turn in range(3):
        journal.add(file.key, 1, turn, 1.0)
    said: list[float | None] = []
    measure_here([file], [1, 2], 1, journal, lambda _, fraction: said.append(fraction))
    assert said == [0.5]


@pytest.mark.slow
def test_files_are_timed_here_and_broken_ones_left_out(runnable: Path, tmp_path: Path) -> None:
    source = next(iter(sorted(runnable.glob("*.tflite"))))
    shutil.copy(source, tmp_path / "good.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(200))
    files = [SuiteFile(name, "fp32", "litert", tmp_path / f"{name}.tflite") for name in ("broken", "good")]
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert not measure_here(files, [1], 1, journal, SILENT, budget_s=0.0)
    assert measure_here(files, [1], 1, journal, SILENT)
    (latency,) = journal.latencies(files, [1], 1)
    assert latency.file.carrier == "good" and 0 < latency.ms < 1000


# The command.


@pytest.fixture
def quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEOPT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["host", "--on", "emulator"], "an emulator's times say nothing about a device"),
        (["host", "--on", "moon"], "a profile is calibrated on host, adb"),
        (["pixel7", "--on", "host"], "profile pixel7 describes an arm64 device and this machine is"),
        (["nosuch", "--on", "host"], "nosuch"),
        (["host", "--num-threads", "9999"], "--num-threads 9999"),
        (["host", "--output", "there.toml"], "there.toml exists"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], words: str, quiet_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(quiet_home)
    (quiet_home / "there.toml").write_text("")
    assert main(["profiles", "calibrate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_no_device_is_an_error(adb_server: Any, quiet_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "calibrate", "pixel7", "--on", "adb"]) in (1, 2)
    assert "error:" in capsys.readouterr().err


@pytest.mark.slow
def test_a_phone_is_calibrated_through_adb(
    phones: Callable[..., Any], runnable: Path, quiet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = phones()
    source = next(iter(sorted(runnable.glob("*.tflite"))))
    files = []
    for index in range(5):
        path = quiet_home / f"n{index}.tflite"
        shutil.copy(source, path)
        files.append(SuiteFile(f"n{index}", "fp32", "litert", path))
    monkeypatch.setattr(calibration_run, "suite_files", lambda names, say: files)
    payload = fake_payload(quiet_home)

    def calibrate() -> calibration_run.Calibrated:
        return calibration_run.calibrate(
            "pixel7", quiet_home / "mine.toml", SILENT, target=phone.target(), threads=[1], rounds=1,
            make_payload=lambda runtime: payload,
        )  # fmt: skip

    # The stand-in has this machine's processor, which is seen; only a device that has its own may be calibrated.
    with pytest.raises(InputError, match="its times say nothing about a device"):
        calibrate()
    monkeypatch.setattr(device_facts, "_emulation", lambda *told: None)
    done = calibrate()
    assert [each.ms for each in done.latencies] == [1.0] * 5
    from edgeopt.converters.kernels import file_kernels

    found = predict(file_kernels(source), load_profile(quiet_home / "mine.toml"), runtime="litert")
    assert found.grade == "calibrated" and found.latency_ms == pytest.approx(1.0, rel=0.05)


@pytest.mark.slow
def test_this_machine_is_calibrated_by_the_command(
    quiet_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quiet_home / "this.toml"
    arguments = [
        "host",
        "--quick",
        "--rounds",
        "1",
        "--num-threads",
        "1",
        "-o",
        str(path),
        "--json",
        "--quiet",
    ]
    assert main(["profiles", "calibrate", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)["calibration"]
    assert told["measurements"] == told["profiled"] == 36
    assert told["shares"]["after"]["within_20"] > told["shares"]["before"]["within_20"]
    assert main(["profiles", "validate", str(path)]) == 0
    assert main(["profiles", "show", str(path)]) == 0
    assert "calibrated 20" in capsys.readouterr().out
