"""The counts gate, the pytest plug-in and the commands, with counts that need no emulator where possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.android_harness.emulator import gate_counts, verify_on_emulator, write_counts_baseline
from edgeopt.android_harness.emulator.parity import agreement, check_parity
from edgeopt.android_harness.emulator.verification import BundleCheck
from edgeopt.cli.app import main
from edgeopt.cli.emulated import _row
from edgeopt.device_profiles import load_profile
from edgeopt.errors import InputError


def measurement(
    value: int, *, artifact: str = "a.pte", metric: str = "instructions", toolchain: str = "t"
) -> dict[str, Any]:
    conditions = {"profile": "pixel7", "toolchain": toolchain}
    return {"artifact": artifact, "metric": metric, "value": value, "conditions": conditions}


def test_one_per_cent_means_one_per_cent(tmp_path: Path) -> None:
    baseline = tmp_path / "counts.json"
    write_counts_baseline(baseline, [measurement(1_000_000)])
    for value, ok in ((1_000_000, True), (1_010_000, True), (1_010_001, False), (900_000, True)):
        checks, warnings = gate_counts([measurement(value)], baseline, max_regression=0.01)
        assert [check.ok for check in checks] == [ok]
        assert warnings == []
    assert "+1.00%" in checks[0].sentence or "-10.00%" in checks[0].sentence


def test_a_baseline_of_another_toolchain_warns(tmp_path: Path) -> None:
    write_counts_baseline(tmp_path / "b.json", [measurement(5, toolchain="old")])
    _, warnings = gate_counts([measurement(5, toolchain="new")], tmp_path / "b.json")
    assert "write it anew" in warnings[0]


def test_new_files_warn_and_nothing_in_common_is_refused(tmp_path: Path) -> None:
    baseline = tmp_path / "b.json"
    write_counts_baseline(baseline, [measurement(5)])
    checks, warnings = gate_counts([measurement(5), measurement(7, artifact="new.pte")], baseline)
    assert len(checks) == 1 and "new.pte" in warnings[0]
    with pytest.raises(InputError, match="holds no count"):
        gate_counts([measurement(7, artifact="new.pte")], baseline)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 9, "counts": []}'])
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(InputError, match=r"b\.json is not"):
        gate_counts([measurement(1)], tmp_path / "b.json")
    with pytest.raises(InputError, match="cannot be read"):
        gate_counts([measurement(1)], tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot be gated"):
        write_counts_baseline(tmp_path / "c.json", [measurement(1)])
        gate_counts([measurement(1)], tmp_path / "c.json", metrics=["latency_ms"])


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {},
        {"artifact": "a.pte", "profile": "pixel7", "metric": "instructions", "value": "x", "toolchain": "t"},
        {"artifact": "a.pte", "profile": "pixel7", "metric": "instructions", "value": 1},
    ],
)
def test_a_damaged_entry_is_one_sentence_and_costs_no_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: object
) -> None:
    baseline, model = tmp_path / "b.json", tmp_path / "a.pte"
    baseline.write_text(json.dumps({"schema_version": 1, "counts": [entry]}))
    model.write_bytes(b"nothing that could be counted")
    words = ["gate", str(model), "--on", "emulator", "--profile", "pixel7", "--baseline", str(baseline)]
    assert main([*words, "--no-store"]) == 2
    assert "b.json is damaged: an entry lacks" in capsys.readouterr().err


def test_two_files_of_one_name_have_no_common_baseline(tmp_path: Path) -> None:
    """Read back, one would be held against the other's count."""
    with pytest.raises(InputError, match=r"two of the files are named a\.pte"):
        write_counts_baseline(tmp_path / "b.json", [measurement(1), measurement(2)])
    assert not (tmp_path / "b.json").exists()


def test_agreement_measures() -> None:
    a = [np.array([1.0, 2.0], np.float32)]
    assert agreement(a, a).bit_equal and agreement(a, a).cosine == pytest.approx(1)
    off = agreement([np.array([1.0, 2.2])], a)
    assert off.max_abs == pytest.approx(0.2) and off.relative == pytest.approx(0.1)
    assert agreement([np.zeros(3)], a).relative == float("inf")
    assert agreement([np.array([np.nan, 1.0])], a).relative == float("inf")
    assert agreement([np.zeros(2)], [np.zeros(2)]).bit_equal


def test_parity_says_when_host_and_device_differ() -> None:
    emulated, host = [np.array([1.0, 2.0])], [np.array([1.0, 2.1])]
    parity = check_parity(emulated, host, emulated)
    assert not parity.ok and "DIFFER" in parity.words[0]
    assert check_parity(emulated, emulated).words == ("arm64 and host kernels agree bit for bit",)
    half = [np.array([1.0, 2.0], np.float16)]
    assert check_parity(half, [np.array([1.0, 2.002], np.float16)]).ok


def test_a_file_fails_only_when_it_is_worse_than_on_the_host() -> None:
    right = [np.array([1.0, 2.0])]
    host = [np.array([1.0, 2.01])]
    for emulated, ok in (
        ([np.array([1.0, 2.01])], True),
        ([np.array([1.0, 1.99])], True),
        ([np.array([1.0, 2.2])], False),
    ):
        check = BundleCheck(
            "m.pte", "cortex-a53", check_parity(emulated, host, right), agreement(host, right), ()
        )
        assert check.ok is ok
        assert check.as_json()["ok"] is ok
    same = check_parity(right, right, right)
    assert not BundleCheck("m.pte", "cortex-a53", same, agreement(right, right), ("dotprod is missing",)).ok


@dataclass
class _File:
    file: str


class _Bundle:
    """What verify_on_emulator asks of a bundle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.artifacts = [_File("cnn.pte"), _File("cnn_int8.pte")]

    def artifact_path(self, artifact: _File) -> Path:
        return self._folder / artifact.file

    def golden(self) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        data = np.load(self._folder / "golden.npz")
        return [[data["cnn/input"]]], [[data["cnn/output"]]]


@pytest.mark.slow
@pytest.mark.emulator
def test_a_bundle_is_verified_on_every_core(emulated_models: Path) -> None:
    bundle: Any = _Bundle(emulated_models)
    checks = verify_on_emulator(bundle, load_profile("pixel7"))
    assert [(check.artifact, check.core) for check in checks] == [
        (file, core) for file in ("cnn.pte", "cnn_int8.pte") for core in ("cortex-a55", "cortex-a78", "cortex-x1")
    ]  # fmt: skip
    assert all(check.ok for check in checks)
    assert all(
        check.parity.with_host is not None and check.parity.with_host.bit_equal for check in checks[3:]
    )


PLUGIN_TEST = """
import numpy as np

def test_good(edgeopt_emulator, assert_parity, assert_budget):
    data = np.load({golden!r})
    run = edgeopt_emulator({model!r}, [data["cnn/input"]])
    assert run.cpu.core == "cortex-a53"
    assert_parity(run, data["cnn/output"])
    assert_budget(run, instructions=2_000_000, macs=1_000_000, latency_ms=10)

def test_over_budget(edgeopt_emulator, assert_budget):
    run = edgeopt_emulator({model!r}, [np.load({golden!r})["cnn/input"]])
    assert_budget(run, instructions=1000)

def test_wrong_outputs(edgeopt_emulator, assert_parity):
    data = np.load({golden!r})
    assert_parity(edgeopt_emulator({model!r}, [data["cnn/input"]]), 2 * data["cnn/output"])
"""


@pytest.mark.slow
@pytest.mark.emulator
def test_the_pytest_plugin(emulated_models: Path, tmp_path: Path) -> None:
    source = PLUGIN_TEST.format(
        golden=str(emulated_models / "golden.npz"), model=str(emulated_models / "cnn.pte")
    )
    (tmp_path / "test_app.py").write_text(source)
    plugin = ["-p", "no:edgeopt", "-p", "edgeopt.android_harness.emulator.pytest_plugin"]
    base = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_app.py"]
    done = subprocess.run(
        [*base, "--edgeopt-profile", "raspberry_pi_3b_plus"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout and "2 failed" in done.stdout, done.stdout + done.stderr
    assert "over the budget of 1,000" in done.stdout
    assert "outputs differ by" in done.stdout
    none = subprocess.run(base, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "no device chosen" in none.stdout


def test_the_table_names_precision_and_kernels_in_words() -> None:
    """model.pte alone doesn't tell what it is, and nobody outside the counter knows an fp32_fma."""
    mix = dict.fromkeys(("fp32_fma", "fp16_fma", "int8_widening", "dotprod", "i8mm", "sve"), 0)
    mix |= {"int8_widening": 40, "dotprod": 60, "fp32_fma": 1}
    common = {"artifact": "model.pte", "precision": "int8-static", "conditions": {"core": "cortex-x1"}}
    instructions = {**common, "value": 1000, "details": {"mix": mix}}
    row = _row(
        {
            ("instructions", 1): instructions,
            ("macs_executed", 1): {"value": 7},
            ("bytes_moved", 1): {"value": 9},
        }
    )
    assert list(row.items())[:2] == [("file", "model.pte"), ("precision", "int8-static")]
    assert row["kernels"] == "int8, dotprod"


@pytest.mark.slow
@pytest.mark.emulator
def test_bench_and_gate_commands(
    emulated_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(emulated_models / "cnn_int8.pte")
    on = ["--on", "emulator", "--profile", "raspberry_pi_5", "--no-store", "--json"]
    assert main(["bench", file, *on, "--num-threads", "1,4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {m["grade"] for m in found["measurements"]} == {"emulated"}
    instructions = next(m for m in found["measurements"] if m["metric"] == "instructions")
    assert instructions["details"]["mix"]["dotprod"] > 10_000
    assert {m["threads"] for m in found["measurements"] if m["metric"] == "latency_ms"} == {1, 4}

    baseline = tmp_path / "counts.json"
    assert main(["gate", file, *on, "--baseline", str(baseline), "--write-baseline"]) == 0
    capsys.readouterr()
    assert main(["gate", file, *on, "--baseline", str(baseline), "--max-regression", "0%"]) == 0
    capsys.readouterr()
    data = json.loads(baseline.read_text())
    for entry in data["counts"]:
        entry["value"] = int(entry["value"] / 1.02)
    baseline.write_text(json.dumps(data))
    assert main(["gate", file, *on, "--baseline", str(baseline), "--max-regression", "1%"]) == 3
    failed = json.loads(capsys.readouterr().out)
    assert failed["ok"] is False and failed["checks"][0]["ok"] is False
    assert main(["bench", file, "--on", "emulator", "--no-store", "--json"]) == 2
    assert "give --profile" in json.loads(capsys.readouterr().out)["errors"][0]


@pytest.mark.slow
@pytest.mark.emulator
def test_the_run_command(emulated_models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["emulator", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["emulator"]["runtimes"]["executorch"]
    np.save(tmp_path / "in.npy", np.load(emulated_models / "golden.npz")["cnn/input"])
    assert (
        main(["emulator", "run", str(emulated_models / "cnn.pte"), "--profile", "pixel7", "--profile-ops"])
        == 0
    )
    assert "Convolution" in capsys.readouterr().out
    arguments = ["emulator", "run", str(emulated_models / "cnn.tflite"), "--profile", "pixel7", "--json"]
    assert main([*arguments, "--inputs", str(tmp_path / "in.npy")]) == 0
    with_inputs = json.loads(capsys.readouterr().out)
    assert with_inputs["parity"]["ok"] and with_inputs["grade"] == "emulated"
    assert main([*arguments]) == 0
    random = json.loads(capsys.readouterr().out)
    # A convolution's cost does not depend on its inputs' values.
    assert random["counts"]["macs"] == with_inputs["counts"]["macs"]
    assert main(["emulator", "run", str(tmp_path / "in.npy"), "--profile", "pixel7"]) == 2
    assert main(["emulator", "run", str(emulated_models / "cnn.pte"), "--profile", "host"]) == 2


def test_the_lazy_front_door_loads_no_heavy_package() -> None:
    script = (
        "import sys, edgeopt.android_harness.emulator.pytest_plugin, edgeopt.android_harness.emulator\n"
        "print([m for m in ('numpy', 'torch', 'pydantic', 'executorch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
