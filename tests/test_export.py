"""edgeopt export end to end: one small model, both formats, every precision; and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from profile_files import changed, write

import edgeopt
from edgeopt.bundle import load_bundle
from edgeopt.cli import main
from edgeopt.errors import GateError, InputError
from edgeopt.runtimes import open_model

HERE = Path(__file__).parent
MODEL = f"{HERE / 'sample_models.py'}"
PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TinyNet in both formats and all four precisions, with a metric."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny net"
    edgeopt.export(
        f"{MODEL}:net",
        profile="pixel7",
        precision=",".join(PRECISIONS),
        evaluate=f"{MODEL}:evaluate",
        max_accuracy_drop=0.2,
        output=folder,
    )
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(bundle, tmp_path / "copy")


def test_every_precision_in_both_formats_is_verified(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.passed
    made = {(a.format, a.precision) for a in loaded.artifacts}
    assert made == {(f, p) for f in ("pte", "tflite") for p in PRECISIONS}
    assert {a.file for a in loaded.artifacts} >= {"model.pte", "model.tflite", "model.int8-static.tflite"}
    for artifact in loaded.artifacts:
        assert artifact.status == "verified"
        assert [p["output"] for p in artifact.parity] == ["logits", "norm"]
        assert artifact.metric is not None and artifact.metric >= 0.8


def test_static_int8_is_the_same_numbers_in_both_formats(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    inputs, _ = loaded.golden()
    logits = []
    for artifact in loaded.artifacts:
        if artifact.precision == "int8-static":
            model = open_model(loaded.artifact_path(artifact))
            names = [spec.name for spec in model.outputs]
            index = names.index("logits") if "logits" in names else 0
            logits.append([model.run(sample)[index] for sample in inputs])
    np.testing.assert_array_equal(logits[0], logits[1])


def test_int8_really_is_int8(bundle: Path) -> None:
    for artifact in load_bundle(bundle).artifacts:
        ratio = artifact.contents["quantized_weights_ratio"]
        if artifact.precision == "int8-static":
            assert ratio == pytest.approx(1.0)
            assert artifact.contents["quantized_macs_ratio"] == pytest.approx(1.0)
        elif artifact.precision in ("fp32", "fp16"):
            assert ratio == 0.0
        assert artifact.contents["macs"] == pytest.approx(55_296 + 56_448 + 160, rel=0.01)


def test_the_table_shows_the_share_of_work_in_integers_not_of_weights(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LiteRT widens the weights of convolutions in dynamic int8: small, and still computed in float."""
    from rich.console import Console

    from edgeopt.cli.bundle_view import draw_bundle

    made = load_bundle(bundle)
    draw_bundle(Console(width=200), made)
    lines = capsys.readouterr().out.splitlines()
    column = next(i for i, word in enumerate(lines[0].split()) if word == "integer")
    shown = {line.split()[0]: line for line in lines[1:] if line.startswith("model.")}
    assert column and "int8 " not in lines[0]
    dynamic = next(a for a in made.artifacts if (a.format, a.precision) == ("tflite", "int8-dynamic"))
    ratio = dynamic.contents["quantized_macs_ratio"]
    assert dynamic.contents["quantized_weights_ratio"] > 0.5 > ratio
    assert f" {ratio:.1%} " in shown[dynamic.file]
    (said,) = [w for w in dynamic.warnings if "computed in integers" in w]
    assert said.startswith(f"only {ratio:.1%} of the multiply-accumulates")
    assert f"| {ratio:.1%} |" in (bundle / "SUMMARY.md").read_text(encoding="utf-8")


def test_inputs_and_outputs_keep_their_names_and_dtypes(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert [(t.name, t.shape, t.dtype, t.layout) for t in manifest.inputs] == [
        ("image", [1, 3, 16, 16], "float32", "NCHW")
    ]
    for artifact in manifest.artifacts:
        assert [t.dtype for t in artifact.inputs] == ["float32"]
        if artifact.format == "tflite":
            assert sorted(t.name for t in artifact.outputs) == ["logits", "norm"]


def test_verify_says_ok(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] and len(out["checks"]) == 1 + 8
    assert {m["grade"] for m in out["measurements"]} == {"measured"}


def test_verify_finds_a_changed_file(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((copied / "model.pte").read_bytes())
    data[-100] ^= 0xFF
    (copied / "model.pte").write_bytes(bytes(data))
    assert main(["verify", str(copied), "-q"]) == 3
    assert "model.pte is not the file that was exported" in capsys.readouterr().err


def test_verify_finds_a_missing_file(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "model.tflite").unlink()
    assert main(["verify", str(copied), "-q"]) == 3
    assert "model.tflite is missing" in capsys.readouterr().err


def test_verify_refuses_a_broken_manifest(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (copied / "manifest.json").read_text()
    (copied / "manifest.json").write_text(text[: len(text) // 2])
    assert main(["verify", str(copied)]) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_verify_says_when_the_runtime_differs(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["versions"]["executorch"] = "0.0.1"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert main(["verify", str(copied)]) == 0
    assert "made with executorch 0.0.1, checked with" in capsys.readouterr().err


def test_inspect_lists_what_runs_where(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle / "model.pte")]) == 0
    text = capsys.readouterr().out
    assert "Conv2d" in text and "XNNPACK" in text and "input_0: float32[1, 3, 16, 16]" in text
    assert main(["inspect", str(bundle), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert len(files) == 8 and all(entry["delegated_macs_ratio"] == 1.0 for entry in files)


def test_auto_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo model is large enough for int8 to pay; one small product between two conversions is not."""
    plans = []
    for model, profile in (("examples.digits:net", "pixel7"), (f"{MODEL}:few_readings", "raspberry_pi_4")):
        where = str(tmp_path / "b")
        assert main(["export", model, "--profile", profile, "-o", where, "--dry-run", "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    large, small = plans
    assert {a["precision"] for a in large["artifacts"]} == {"int8-static"}
    assert {a["precision"] for a in small["artifacts"]} == {"fp32"}
    kinds = (("pixel7", "convolutional model"), ("raspberry_pi_4", "linear model"))
    for plan, (profile, kind) in zip(plans, kinds, strict=True):
        assert len(plan["choice"]) == 3
        assert plan["choice"][0].startswith(f"predicted on {profile} for a {kind}")
    assert "less time than float32" in large["choice"][1]
    assert "nothing smaller is predicted to be faster, so float32 stays as it is" in small["choice"][1]
    assert not (tmp_path / "b").exists()


def test_a_core_that_is_not_known_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = write(tmp_path, "strange", changed(('core = "cortex-x1"', 'core = "cortex-z9"')))
    assert main(["export", f"{MODEL}:net", "--profile", str(profile), "--dry-run", "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning.startswith("cortex-z9 isn't known to the cost model")


def test_a_failed_accuracy_gate_exits_3_and_marks_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    code = main(
        ["export", f"{MODEL}:net", "--profile", "pixel7", "--format", "tflite", "--precision", "fp32", "-o", str(out),
         "--eval", f"{MODEL}:always_worse", "--max-accuracy-drop", "1%", "-q"]
    )  # fmt: skip
    assert code == 3
    assert "accuracy fell from 1.0000 to 0.0000" in capsys.readouterr().err
    assert load_bundle(out).manifest.status == "failed"
    assert main(["verify", str(out), "-q"]) == 3


def test_a_failed_parity_gate_names_the_output(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"output 'logits': SNR .* is below the 150 dB") as caught:
        edgeopt.export(
            f"{MODEL}:net", profile="pixel7", formats=("tflite",), precision="fp32", min_snr_db=150.0,
            output=tmp_path / "b",
        )  # fmt: skip
    assert caught.value.bundle.manifest.status == "failed"


def test_exporting_where_jax_is_loaded_does_not_hang(tmp_path: Path) -> None:
    """Forked from a process with JAX's threads, a conversion once waited for them for ever."""
    code = (
        "import litert_torch, sys, edgeopt, torch\n"
        # JAX has really worked, so that its pool has threads.
        "net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()).eval()\n"
        "litert_torch.convert(net, (torch.zeros(1, 4),))\n"
        "edgeopt.export(sys.argv[1], profile='pixel7', formats=('tflite',), precision='int8', output=sys.argv[2], "
        "use_cache=False)\n"
        "from edgeopt.converters import workers\n"
        "assert not workers._forks_stall.is_set(), 'done without a fork'\n"
    )
    command = [sys.executable, "-c", code, f"{MODEL}:net", str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_stands_still_in_a_forked_process_is_done_in_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked process waits for ever on a lock that another thread of its parent held."""
    from edgeopt.converters import workers

    monkeypatch.setattr(workers, "_STALL_S", 2.0)
    monkeypatch.setattr(workers, "_forks_stall", threading.Event())
    here = os.getpid()

    def stuck(say: workers.Progress) -> int:
        if os.getpid() != here:
            time.sleep(60)
        return 2

    tasks = [workers.Task("stuck", stuck), workers.Task("fine", lambda say: os.getpid())]
    first, second = workers.run_tasks(tasks, max_parallel=2, on_progress=lambda task, what: None)
    assert (first.value, first.error) == (2, None)
    assert second.value not in (None, here)
    (later,) = workers.run_tasks(tasks[1:], max_parallel=2, on_progress=lambda task, what: None)
    assert later.value == here


def test_a_pass_that_fails_costs_its_own_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PT2E breaks on some graphs; the precisions that don't need it are delivered all the same."""
    from edgeopt.optimizers import quantization

    def choke(*_: object, **__: object) -> None:
        raise KeyError("getitem")

    monkeypatch.setattr(quantization, "prepare_static", choke)
    made = edgeopt.export(
        f"{MODEL}:net", profile="pixel7", formats=("tflite",), precision="int8,fp32", output=tmp_path / "b"
    )
    assert [a.precision for a in made.artifacts] == ["fp32"]
    (missing,) = made.manifest.not_made
    assert missing["file"] == "model.tflite" and "KeyError" in missing["message"]


def test_a_module_and_a_recipe_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\n[[passes]]\npass = "fold_batch_norm"\n[[passes]]\npass = "quantize_static"\n'
        "per_channel = false\nsamples = 4\n"
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    samples = [torch.randn(1, 8) for _ in range(6)]
    made = edgeopt.export(
        model, profile="raspberry_pi_5", formats=("pte",), recipe=str(recipe), calibration=samples,
        example_inputs=samples[0], output=tmp_path / "b", min_snr_db=6.0,
    )  # fmt: skip
    written = made.manifest.recipes[0]["passes"][1]
    assert written["pass"] == "quantize_static"
    assert (written["per_channel"], written["samples"]) == (False, 4)
    assert written["observer"] == "histogram"  # what the file left open is written down too
    assert made.artifacts[0].precision == "int8-static"
    assert "from 4 samples" in " ".join(made.artifacts[0].changes)


@pytest.mark.parametrize("kind", ["pt2", "torchscript", "weights"])
def test_models_from_files(kind: str, tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("sample_models", HERE / "sample_models.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net, image = module.net(), module.example_inputs()
    options = {"profile": "pixel7", "formats": ("tflite",), "precision": "fp32", "output": tmp_path / "b"}
    if kind == "pt2":
        torch.export.save(torch.export.export(net, (image,)), tmp_path / "net.pt2")
        made = edgeopt.export(str(tmp_path / "net.pt2"), **options)
    elif kind == "torchscript":
        torch.jit.trace(net, image, strict=False).save(tmp_path / "net.pt")
        made = edgeopt.export(str(tmp_path / "net.pt"), example_inputs=image, **options)
    else:
        torch.save(net.state_dict(), tmp_path / "net.pt")
        made = edgeopt.export(
            f"{MODEL}:factory", model_args={"classes": 10}, weights=tmp_path / "net.pt", **options
        )
        with pytest.raises(InputError, match="doesn't fit the model"):
            options["output"] = tmp_path / "c"
            edgeopt.export(
                f"{MODEL}:factory", model_args={"classes": 7}, weights=tmp_path / "net.pt", **options
            )
    assert made.passed
    assert min(p["snr_db"] for p in made.artifacts[0].parity) > 100


def test_dynamic_batch_runs_at_every_size(tmp_path: Path) -> None:
    made = edgeopt.export(
        f"{MODEL}:net", profile="pixel7", formats=("pte",), precision="fp32", dynamic_batch=True,
        output=tmp_path / "b",
    )  # fmt: skip
    assert made.manifest.inputs[0].shape == ["batch", 3, 16, 16]
    model = open_model(made.path / "model.pte")
    for size in (1, 3, 16):
        outputs = model.run([np.zeros((size, 3, 16, 16), np.float32)])
        assert outputs[0].shape == (size, 10)


def test_every_file_comes_with_what_is_expected_of_it(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_bundle(bundle)
    for artifact in loaded.artifacts:
        assert [each.threads for each in artifact.predicted] == [1, 2]
        assert all(each.grade != "measured" and each.basis for each in artifact.predicted)
    assert "## Expected on the device" in (bundle / "SUMMARY.md").read_text(encoding="utf-8")
    assert main(["estimate", str(bundle), "--profile", "pixel7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimates"]
    expected = {(a.file, each.threads): each.latency_ms for a in loaded.artifacts for each in a.predicted}
    assert {(item["artifact"], item["threads"]): item["latency_ms"] for item in found} == pytest.approx(
        expected
    )
    macs = {a.file: a.contents["macs"] for a in loaded.artifacts}
    assert len(set(macs.values())) == 1


def test_an_estimate_of_some_of_a_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def names(*arguments: str) -> list[str]:
        assert (
            main(["estimate", str(bundle), "--profile", "pixel7", "--num-threads", "1", "--json", *arguments])
            == 0
        )
        return [item["artifact"] for item in json.loads(capsys.readouterr().out)["estimates"]]

    static = names("--precision", "int8-static", "--runtime", "litert")
    assert len(static) == 1 and static[0].endswith(".tflite") and "static" in static[0]
    # A precision without a file is foretold from the float32 one.
    assert names("--precision", "int8-weights", "--runtime", "litert") == ["model.tflite in int8-weights"]
    assert main(["estimate", str(bundle), "--profile", "pixel7", "--runtime", "torch"]) == 2
