"""compare: verdicts that hold on a noisy machine, and the server path."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stored_records import stored

from edgeopt.android_harness.conditions import Conditions
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.cli.app import main
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.results import comparison as comparing
from edgeopt.results.artifacts import find_artifacts
from edgeopt.results.comparison import Contender, Effort, Round, compare, contenders_of

FAST = Effort(rounds=4, slices=10, slice_s=0.03)


def contender(name: str) -> Contender:
    return Contender(name, Path(f"{name}.tflite"), MeasureOptions())


def fake_rounds(monkeypatch: pytest.MonkeyPatch, ratios: list[float]) -> list[int]:
    """Rounds in which B takes ``ratios[i]`` times as long as A; after the last it stays."""
    done: list[int] = []

    def one(contenders: Any, effort: Effort, number: int) -> Round:
        ratio = ratios[min(len(done), len(ratios) - 1)]
        done.append(number)
        slices = tuple(tuple((t,) * 5 for _ in range(effort.slices)) for t in (1.0, ratio))
        return Round(slices, ({}, {}), Conditions({}, ()))

    monkeypatch.setattr(comparing, "_round", one)
    return done


def test_a_difference_is_measured_again_before_it_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    done = fake_rounds(monkeypatch, [1.1, 1.11, 1.09, 1.1])
    found = compare([contender("a"), contender("b")], Effort(rounds=4))
    assert len(done) == 8
    assert found.duels[0].verdict == "slower"
    assert found.duels[0].remeasured
    assert found.duels[0].ratio.value == pytest.approx(1.1, rel=0.01)


def test_a_difference_that_does_not_come_back_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rounds(monkeypatch, [1.05, 1.051, 1.049, 1.05, 1.0, 1.001, 0.999, 1.0])
    found = compare([contender("a"), contender("b")], Effort(rounds=4))
    assert found.duels[0].verdict == "undecided"


def test_equal_files_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = fake_rounds(monkeypatch, [1.001, 0.999, 1.0, 1.0])
    found = compare([contender("a"), contender("b")], Effort(rounds=4))
    assert len(done) == 4
    assert found.duels[0].verdict == "same"


def test_a_set_that_is_too_noisy_is_repeated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = fake_rounds(monkeypatch, [0.7, 1.4, 0.8, 1.3, 1.0, 1.001, 1.0, 0.999])
    found = compare([contender("a"), contender("b")], Effort(rounds=4))
    assert len(done) == 8
    assert len(found.rounds) == 4
    assert found.duels[0].verdict == "same"


def test_an_interrupted_comparison_keeps_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rounds(monkeypatch, [1.0])
    whole = comparing._round
    count: list[int] = []

    def interrupted(*args: Any) -> Round:
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(comparing, "_round", interrupted)
    found = compare([contender("a"), contender("b")], Effort(rounds=6))
    assert found.partial
    assert len(found.rounds) == 3


@pytest.mark.slow
def test_the_json_of_an_interrupted_comparison_says_so(
    runnable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = comparing._round
    count: list[int] = []

    def interrupted(*args: Any) -> Round:
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(comparing, "_round", interrupted)
    files = [str(runnable / name) for name in ("cnn.tflite", "two.tflite")]
    assert main(["compare", *files, "--no-store", "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and found["errors"][0].startswith("interrupted: ")
    assert found["comparisons"]


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(InputError, match="at least two files"):
        compare([contender("a")], Effort())
    with pytest.raises(InputError, match="--rounds"):
        compare([contender("a"), contender("b")], Effort(rounds=1))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.tflite").write_bytes(b"x")
    artifacts = find_artifacts([tmp_path / "old", tmp_path / "new"])
    labels = [c.label for c in contenders_of(artifacts, MeasureOptions())]
    assert labels == ["old/m.tflite [1]", "new/m.tflite [2]"]


@pytest.mark.slow
def test_a_file_and_itself_are_not_told_apart(runnable: Path) -> None:
    verdicts = []
    for _ in range(4):
        pair = [Contender(name, runnable / "cnn.tflite", MeasureOptions()) for name in ("a", "b")]
        verdicts.append(compare(pair, FAST).duels[0].verdict)
    assert sum(v in ("slower", "faster") for v in verdicts) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tflite", "pte"])
def test_ten_percent_more_work_is_found(runnable: Path, suffix: str) -> None:
    pair = [Contender(n, runnable / f"{n}.{suffix}", MeasureOptions()) for n in ("cnn", "slower")]
    for rounds in (5, 7, 10):
        duel = compare(pair, replace(FAST, rounds=rounds)).duels[0]
        # A machine too busy to tell says so, which is no verdict: ask it with more rounds. A wrong one fails.
        if duel.verdict != "undecided":
            break
    assert duel.verdict == "slower"
    assert 1.03 < duel.ratio.value < 1.3


@pytest.mark.slow
def test_the_command_says_it_in_words(runnable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(runnable / "cnn.tflite"), str(runnable / "two.tflite")]
    assert main(["compare", *files, "--rounds", "2", "--no-store", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (comparison,) = found["comparisons"]
    assert comparison["verdict"] == "faster"
    assert comparison["ratio"] < 0.1
    assert comparison["ci95"][0] <= comparison["ratio"] <= comparison["ci95"][1]
    assert {m["grade"] for m in found["measurements"]} == {"measured"}


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_tables_keep_names_and_ratios(
    width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At 60 columns compare showed no file's name and broke each verdict into syllables."""
    files = [tmp_path / name for name in ("model.fp32.tflite", "model.int8-dynamic.tflite")]
    for file in files:
        file.write_bytes(file.name.encode())
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, color_system=None, width=width)
    monkeypatch.setattr("edgeopt.cli.reporter.console", lambda **_: terminal)
    fake_rounds(monkeypatch, [1.5])
    assert main(["compare", *map(str, files), "--no-store"]) == 0
    row = next(line for line in out.getvalue().splitlines() if line.startswith("model.int8-dynamic.tflite "))
    assert "1.500 (" in row and row.rstrip().endswith("slower")


MODEL = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
def example_inputs():
    return (torch.randn(1, 32),)
def evaluate(predict):
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = net(x).argmax(1).numpy()
    return {"agreement": float((predict(x.numpy()).argmax(1) == labels).mean()), "samples": 40}
convolution = torch.nn.Conv2d(1, 2, 3)
def convolution_example_inputs():
    return (torch.randn(1, 1, 8, 8),)
"""


@pytest.mark.slow
def test_the_server_path_stands_beside_the_edge(
    runnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "served.py").write_text(MODEL)
    arguments = ["--server", "cpu", "--model", f"{tmp_path}/served.py:net", "--largest-batch", "4"]
    arguments += ["--server-precision", "fp32,bf16,int8,int8_weights", "--no-store", "--json"]
    arguments += ["--eval", f"{tmp_path}/served.py:evaluate"]
    import litert_torch
    import torch

    names: dict[str, Any] = {}
    exec(MODEL, names)
    litert_torch.convert(names["net"].eval(), (torch.zeros(1, 32),)).export(str(tmp_path / "net.tflite"))
    capsys.readouterr()  # the converter prints
    assert main(["compare", str(tmp_path / "net.tflite"), *arguments]) == 0
    measurements = json.loads(capsys.readouterr().out)["measurements"]
    accuracies = {
        (m["target"], m["precision"]): (m["value"], m["details"]["samples"])
        for m in measurements
        if m["metric"] == "accuracy"
    }
    assert accuracies[("host", None)] == accuracies[("server:cpu", "fp32")] == (1.0, 40)
    assert all(0.9 <= value <= 1 for value, _ in accuracies.values())
    assert len(accuracies) == 5
    served = [m for m in measurements if m["target"] == "server:cpu"]
    rates = [
        m["details"]["batch"]
        for m in served
        if m["metric"] == "throughput_per_s" and m["precision"] == "fp32"
    ]
    assert rates == [1, 2, 4]
    for precision in ("bf16", "int8", "int8_weights"):
        low = [m for m in served if m["precision"] == precision]
        assert 15 < low[0]["details"]["snr_db"] < 80
    assert low[0]["details"]["int8_share"] > 0.9


def test_the_server_needs_its_model_and_says_when_there_is_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert main(["compare", str(tmp_path / "m.tflite"), "--server", "cpu"]) == 2
    assert "--model" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_server_cannot_do_leaves_the_files_figures(
    runnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "served.py").write_text(MODEL)
    arguments = [
        "--server",
        "cpu",
        "--model",
        f"{tmp_path}/served.py:convolution",
        "--server-precision",
        "int8",
    ]
    assert main(["compare", str(runnable / "two.tflite"), *arguments, "--no-store", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert "no linear or recurrent layer" in found["errors"][0]
    assert any(m["metric"] == "latency_ms" for m in found["measurements"])


@pytest.mark.slow
def test_energy_stands_beside_each_file(runnable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.android_harness.power import Energy
    from edgeopt.results import beside

    energy = Energy(1.5, (1.4, 1.6), 3000.0, 1000.0, 5, 100, "fake", "board", "1%")
    asked: list[int] = []

    def fake(_meter: Any, run_for: Any) -> Energy:
        asked.append(run_for(0.01))
        return energy

    monkeypatch.setattr(beside, "measure_energy", fake)
    artifacts = find_artifacts([runnable / "two.tflite"])
    latency = stored(1.0, artifacts[0].path)
    meter: Any = type("Meter", (), {"name": "fake"})()
    (record,), failures = beside.measure_beside([latency], artifacts, MeasureOptions(), meter=meter)
    assert (record.metric, record.value, record.ci95, record.unit) == ("energy_mj", 1.5, (1.4, 1.6), "mJ")
    assert asked[0] >= 1
    assert not failures


@pytest.mark.slow
def test_batches_that_do_not_fit_are_halved() -> None:
    code = """
import torch
from edgeopt.android_harness.server import ServerModel, ServerOptions
class Hungry(torch.nn.Module):
    def forward(self, x):
        if x.shape[0] > 6:
            raise torch.OutOfMemoryError("no")
        return x * 2
model = ServerModel(Hungry(), [torch.ones(1, 4)], ServerOptions())
points, notes = model.sweep(64, 0.01)
print([p.batch for p in points], notes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[1, 2, 4, 6] ['batch 8 does not fit")


@pytest.mark.slow
def test_without_a_gpu_the_server_says_so() -> None:
    import torch

    from edgeopt.runtimes.torch import torch_device

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EdgeoptError, match=r"CUDA.*--server cpu"):
        torch_device("cuda")


@pytest.mark.cuda
def test_the_gpu_is_timed_by_events() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    from edgeopt.android_harness.server import ServerModel, ServerOptions

    model = ServerModel(torch.nn.Linear(64, 64), [torch.ones(1, 64)], ServerOptions(device="cuda"))
    points, _ = model.sweep(4, 0.05)
    assert [p.batch for p in points] == [1, 2, 4]
    assert all(p.peak_mib is not None and min(p.times_ms) > 0 for p in points)
