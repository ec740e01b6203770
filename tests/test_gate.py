"""gate: regressions that hold on a noisy machine, and baselines."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stored_records import stored

from edgeopt.cli.app import main
from edgeopt.errors import InputError
from edgeopt.results import gate as gating
from edgeopt.results.artifacts import Artifact
from edgeopt.results.gate import gate, load_baseline
from edgeopt.results.records import Record


def fake_bench(monkeypatch: pytest.MonkeyPatch, values: list[float], path: Path) -> list[int]:
    calls: list[int] = []

    def records(artifact: Artifact, _measurement: Any) -> list[Record]:
        calls.append(1)
        return [stored(values[min(len(calls), len(values)) - 1], path)]

    monkeypatch.setattr(gating, "measure", lambda *_: None)
    monkeypatch.setattr(gating, "records_of", records)
    return calls


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "m.tflite").write_bytes(b"x")
    return Artifact(tmp_path / "m.tflite", "m.tflite", "tflite")


def test_a_gate_passes_what_is_within_its_limit(monkeypatch: pytest.MonkeyPatch, artifact: Artifact) -> None:
    calls = fake_bench(monkeypatch, [1.03], artifact.path)
    checks, _ = gate([artifact], [stored(1.0, artifact.path)], max_regression=0.05)
    assert checks[0].ok
    assert len(calls) == 1


def test_a_gate_measures_twice_before_it_fails(monkeypatch: pytest.MonkeyPatch, artifact: Artifact) -> None:
    calls = fake_bench(monkeypatch, [1.3, 1.3], artifact.path)
    checks, _ = gate([artifact], [stored(1.0, artifact.path)], max_regression=0.05)
    assert len(calls) == 2
    assert not checks[0].ok
    assert "more than the 1.05 allowed" in checks[0].sentence
    fake_bench(monkeypatch, [1.3, 1.0], artifact.path)
    checks, _ = gate([artifact], [stored(1.0, artifact.path)], max_regression=0.05)
    assert checks[0].ok


def test_a_gate_of_sizes_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, artifact: Artifact, tmp_path: Path
) -> None:
    """It took the latencies of old and new first, once for each number of threads."""
    calls = fake_bench(monkeypatch, [1.0], artifact.path)
    old = Artifact(tmp_path / "old.tflite", "old.tflite", "tflite")
    old.path.write_bytes(b"old")
    artifact.path.write_bytes(b"new 1")
    checks, records = gate([artifact], [old], max_regression=0.05, metrics=["size_bytes"])
    assert not calls and [(check.ratio, check.ok) for check in checks] == [(pytest.approx(5 / 3), False)]
    assert [record.metric for record in records] == ["size_bytes"]
    size = stored(5, artifact.path, metric="size_bytes", threads=0, ci95=None)
    baseline = [stored(1.0, artifact.path), stored(1.0, artifact.path, threads=2), size]
    checks, _ = gate([artifact], baseline, max_regression=0.05, metrics=["latency_ms", "size_bytes"])
    assert [check.metric for check in checks] == ["size_bytes", "latency_ms"]  # each size once


def test_a_gate_takes_one_older_file_of_another_name(
    monkeypatch: pytest.MonkeyPatch, artifact: Artifact, tmp_path: Path
) -> None:
    """``gate new.tflite --baseline old.tflite`` found nothing to compare."""
    old = Artifact(tmp_path / "old.tflite", "old.tflite", "tflite")
    fake_bench(monkeypatch, [1.0], old.path)
    checks, _ = gate([artifact], [old], max_regression=0.05)
    assert checks[0].ok
    other = Artifact(tmp_path / "n.tflite", "n.tflite", "tflite")
    other.path.write_bytes(b"n")
    with pytest.raises(InputError, match="nothing to compare"):  # which of two is meant can't be known
        gate([artifact, other], [old], max_regression=0.05)


def test_a_failed_gate_says_each_sentence_once(
    monkeypatch: pytest.MonkeyPatch, artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_bench(monkeypatch, [1.3], artifact.path)
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"measurements": [stored(1.0, artifact.path).as_json()]}))
    assert main(["gate", str(artifact.path), "--baseline", str(baseline), "--no-store"]) == 3
    assert " ".join(capsys.readouterr().err.split()).count("more than the 1.05 allowed") == 1


@pytest.mark.parametrize("entry", [{"metric": "latency_ms", "value": 1.0}, 1])
def test_a_baseline_of_another_command_is_refused(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "estimate.json"
    path.write_text(json.dumps({"measurements": [entry]}))
    with pytest.raises(InputError, match=r"estimate\.json is not what edgeopt bench --json prints"):
        load_baseline(str(path), None)


def test_a_gate_refuses_another_device(monkeypatch: pytest.MonkeyPatch, artifact: Artifact) -> None:
    fake_bench(monkeypatch, [1.3], artifact.path)
    other = stored(1.0, artifact.path, conditions={"device": "Pixel 7"})
    with pytest.raises(InputError, match="measured on Pixel 7"):
        gate([artifact], [other], max_regression=0.05)
    with pytest.raises(InputError, match="nothing to compare"):
        gate([artifact], [stored(1.0, Path("other.tflite"))], max_regression=0.05)
    with pytest.raises(InputError, match=r"m\.tflite is of emulator: counts are gated with --on emulator"):
        gate([artifact], [stored(1.0, artifact.path, target="emulator")], max_regression=0.05)


def test_baselines_are_runs_files_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(InputError, match="no run 'r123'"):
        load_baseline("r123", None)
    with pytest.raises(InputError, match="does not exist"):
        load_baseline("no/such.json", None)
    file = tmp_path / "b.json"
    file.write_text("{}")
    with pytest.raises(InputError, match="not what edgeopt bench --json prints"):
        load_baseline(str(file), None)
    file.write_text(json.dumps({"measurements": [stored(1.0, Path("a.tflite")).as_json()]}))
    assert load_baseline(str(file), None) == [stored(1.0, Path("a.tflite"))]


@pytest.mark.slow
def test_the_gate_command_fails_a_slower_file_and_passes_the_same(
    runnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    new = tmp_path / "new"
    new.mkdir()
    old = tmp_path / "model.tflite"
    shutil.copy(runnable / "two.tflite", old)
    shutil.copy(runnable / "cnn.tflite", new / "model.tflite")
    assert main(["bench", str(old), "--json", "--max-time", "3"]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    arguments = ["--baseline", run_id, "--rounds", "2", "--max-time", "3", "--json"]
    assert main(["gate", str(new / "model.tflite"), *arguments]) == 3
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["checks"][0]["side_by_side"]
    assert found["errors"]
    assert main(["gate", str(old), *arguments, "--max-regression", "100%"]) == 0


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_tables_keep_the_verdict(width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "model.int8-dynamic.tflite"
    file.write_bytes(b"x")
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, color_system=None, width=width)
    monkeypatch.setattr("edgeopt.cli.reporter.console", lambda **_: terminal)
    fake_bench(monkeypatch, [1.0], file)
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"measurements": [stored(1.0, file).as_json()]}))
    assert main(["gate", str(file), "--baseline", str(baseline), "--no-store"]) == 0
    row = next(line for line in out.getvalue().splitlines() if "model.int8-dynamic.tflite  " in line)
    assert row.rstrip().endswith("ok") and "1.000" in row
