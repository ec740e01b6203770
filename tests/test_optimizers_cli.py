"""edgeopt optimize and analyze as commands: recipes, refusals, JSON, plots, and going on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optimizer_models as models
import pytest
import torch
from optimizer_passes import a_pass, quantized

from edgeopt.cli import main

pytestmark = pytest.mark.usefixtures("own_cache")

MODEL = f"{Path(models.__file__)}"


def written(path: Path, *passes: str, head: str = "") -> str:
    """A recipe file of these passes; returns its path."""
    file = path / "recipe.toml"
    file.write_text(head + "".join(f"[[passes]]\n{text}\n" for text in passes))
    return str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    found = capsys.readouterr()
    return code, found.out, found.err


REFUSED = {
    "unknown pass": (('pass = "shrink"',), "unknown pass 'shrink'; use one of cast_to_half, cluster"),
    "unknown option": (('pass = "prune"\nmac = 0.5',), "unknown option 'mac' (it has epochs"),
    "option of another type": (('pass = "prune"\nmacs = "half"',), "macs must be float, found 'half'"),
    "option out of range": (('pass = "prune"\nmacs = 1.5',), "macs must be between 0 and 1"),
    "importance": (('pass = "prune"\nimportance = "l3"',), "importance must be one of l1, l2, taylor"),
    "pattern": (('pass = "sparsify"\npattern = "4:2"',), "unstructured or N:M such as 2:4"),
    "teacher": (('pass = "distill"\nteacher = "big"',), "teacher must be original or module:attribute"),
    "clusters": (('pass = "cluster"\nclusters = 1',), "clusters must be from 2 to 256"),
    "group": (('pass = "quantize_weights"\ngroup = 7',), "group must be one of 0, 32, 64"),
    "group of int8": (('pass = "quantize_weights"\ngroup = 32',), "group is for bits = 4"),
    "epochs": (('pass = "finetune"\nepochs = 0',), "epochs must be at least 1"),
    "order": (('pass = "fold_batch_norm"', 'pass = "prune"'), "it must stand before fold_batch_norm"),
    "two precisions": (('pass = "quantize_static"', 'pass = "qat"'), "sets the precision 2 times"),
    "training undone": (('pass = "cluster"', 'pass = "finetune"'), "put it before cluster"),
    "no passes": ((), "needs [[passes]] tables"),
}


@pytest.mark.parametrize(("passes", "words"), REFUSED.values(), ids=list(REFUSED))
def test_recipes_are_refused_in_one_sentence(
    passes: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    recipe = written(tmp_path, *passes)
    code, _, err = run(capsys, "optimize", f"{MODEL}:net", "--recipe", recipe, "-o", str(out), "--quiet")
    assert code == 2 and words in err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not out.exists()


def test_missing_training_data_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "bare.py"
    script.write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 2).eval()\n"
        "def example_inputs():\n    return torch.zeros(1, 4)\n"
    )
    out = tmp_path / "out"
    recipe = written(tmp_path, 'pass = "finetune"')
    code, _, err = run(capsys, "optimize", f"{script}:net", "--recipe", recipe, "-o", str(out), "--quiet")
    assert code == 2 and "pass 1 (finetune) needs training data: give --train" in err
    assert not out.exists()


def test_optimize_tells_what_each_pass_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    recipe = written(
        tmp_path,
        'pass = "prune"\nround_to = 4\nepochs = 1',
        'pass = "fold_batch_norm"',
        head='name = "halved"\nseed = 3\n',
    )
    arguments = [
        "optimize",
        f"{MODEL}:net",
        "--recipe",
        recipe,
        "-o",
        str(out),
        "--eval",
        f"{MODEL}:evaluate",
    ]
    code, text, _ = run(capsys, *arguments, "--json")
    found = json.loads(text)
    assert code == 0 and found["command"] == "optimize" and found["ok"]
    assert [entry["pass"] for entry in found["passes"]] == ["prune", "fold_batch_norm"]
    assert found["recipe"]["name"] == "halved" and found["recipe"]["seed"] == 3
    assert found["macs"][1] <= found["macs"][0] / 2
    metrics = {m["metric"]: m for m in found["measurements"]}
    assert metrics["macs"]["value"] == found["macs"][1] and metrics["accuracy"]["grade"] == "measured"
    assert json.loads((out / "report.json").read_text())["passes"] == found["passes"]
    code, text, err = run(capsys, *arguments, "--force")
    assert code == 0 and "1. prune: removed" in text and "multiply-accumulates" in text
    assert "prune: taken from an earlier run" in err


def test_a_precision_of_the_formats_own_says_when_it_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, _, err = run(capsys, "optimize", f"{MODEL}:text", "--recipe", "int4-dynamic", "-o", str(out))
    assert code == 0 and "int4-dynamic is set when a file is made" in err
    code, _, err = run(capsys, "optimize", f"{MODEL}:text", "--recipe", "int4", "-o", str(out))
    assert code == 2 and "exists already" in err


KILLED_RECIPE = """
name = "killed"
seed = 5
[[passes]]
pass = "prune"
round_to = 4
epochs = 1
[[passes]]
pass = "finetune"
epochs = 6
batch_size = 64
learning_rate = 3e-3
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    """SIGKILL in the middle of the second pass; the rerun ends in the weights of a run that was never stopped."""
    recipe = tmp_path / "killed.toml"
    recipe.write_text(KILLED_RECIPE)
    trap = tmp_path / "trap"

    def once(name: str, cache: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, "EDGEOPT_CACHE_DIR": str(tmp_path / cache), "EDGEOPT_TEST_TRAP": str(trap),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [
            "-m",
            "edgeopt",
            "optimize",
            f"{MODEL}:net",
            "--recipe",
            str(recipe),
            "--train",
            f"{MODEL}:killing",
        ]
        return subprocess.run(
            [sys.executable, *command, "-o", str(tmp_path / name)],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip

    whole = once("whole", "one")
    assert whole.returncode == 0, whole.stderr
    trap.touch()
    killed = once("killed", "two")
    assert killed.returncode == -9 and not (tmp_path / "killed").exists()
    again = once("killed", "two")
    assert again.returncode == 0, again.stderr
    assert "prune: taken from an earlier run" in again.stderr
    assert "fine-tuning: epoch 1 of 6," not in again.stderr
    wanted, found = (
        torch.export.load(tmp_path / name / "model.pt2").state_dict for name in ("whole", "killed")
    )
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def analyzed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return run(capsys, "analyze", f"{MODEL}:outliers", "--profile", "pixel7", *options)


@pytest.mark.parametrize(
    ("weights", "inputs", "parts", "step"),
    [(5e-5, 1e3, ("weight",), "1.53e-05"), (1.0, 1e-3, ("input", "output"), "0.000244")],
)
def test_analyze_says_when_values_are_too_small_for_int8(
    weights: float, inputs: float, parts: tuple[str, ...], step: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It spoke of steps "with no outlier to blame", as though other data could help."""
    (tmp_path / "faded.py").write_text(
        "import torch\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    layer = torch.nn.Linear(16, 8, bias=False)\n"
        f"    layer.weight.data.mul_({weights})\n"
        "    return layer\n"
        f"def example_inputs(): return (torch.randn(1, 16) * {inputs},)\n"
        f"def calibration(): return [(torch.randn(1, 16) * {inputs},) for _ in range(16)]\n"
    )
    code, text, _ = run(capsys, "analyze", f"{tmp_path}/faded.py:net", "--profile", "pixel7", "--json")
    (worst,) = json.loads(text)["culprits"]
    assert code == 0 and worst["part"] in parts and worst["reason"] == "least_step"
    assert f"steps of {step}, the least that static int8 has" in worst["sentence"]
    assert worst["figures"]["steps_of_largest"] < 64


def test_analyze_says_when_the_evaluation_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``export`` did; here it was an internal error."""
    (tmp_path / "own.py").write_text("def evaluate(predict):\n    raise KeyError('labels')\n")
    code, _, err = analyzed(capsys, "--eval", f"{tmp_path}/own.py:evaluate")
    assert code == 2 and "the evaluation failed on the source model: KeyError: 'labels'" in err


def test_analyze_names_the_outlier_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "layers.svg"
    code, text, _ = analyzed(capsys, "--json", "--eval", f"{MODEL}:evaluate", "--plot", str(plot))
    found = json.loads(text)
    assert code == 0 and found["profile"] == "pixel7"
    assert found["layers"][0]["path"] in ("stem.0", "depthwise.0")
    worst = found["culprits"][0]
    assert worst["reason"] == "outlier_channel" and "outlier channel" in worst["sentence"]
    assert worst["figures"]["channel"] in (0, 1)
    assert found["evaluation"]["float"] > found["evaluation"]["int8"] + 0.02
    shares = [layer["cost_share"] for layer in found["layers"]]
    assert sum(shares) == pytest.approx(1.0)
    snrs = [layer["snr_db"] for layer in found["layers"]]
    assert snrs == sorted(snrs)
    assert plot.read_text().lstrip().startswith("<?xml") and "stem" in plot.read_text()


def test_analyze_draws_a_table_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = analyzed(capsys, "--top", "2")
    assert code == 0
    assert "alone int8" in text and "… and" in text
    assert "because its" in text and "outlier channel" in text
    assert "every layer in int8:" in text


def test_analyze_refuses_what_it_can_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = analyzed(capsys, "--observer", "median")
    assert code == 2 and "unknown observer 'median'" in err
    code, _, err = analyzed(capsys, "--plot", str(tmp_path / "plot.doc"))
    assert code == 2 and err.startswith("error: --plot") and ".png, .svg, .pdf" in err


@pytest.mark.slow
def test_mixed_by_hand_matches_what_analyze_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The layers that analyze puts first are among those that mixed keeps in float."""
    code, text, _ = analyzed(capsys, "--json")
    layers: list[dict[str, Any]] = json.loads(text)["layers"]
    from edgeopt.optimizers.cleanup import FoldBatchNorm

    made, _ = quantized(models.outliers(), FoldBatchNorm(), a_pass("quantize_mixed"))
    assert code == 0 and layers[0]["path"] in made.figures["quantize_mixed"]["kept_float"]
