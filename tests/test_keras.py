"""Keras models through ``edgeopt export``, with TensorFlow in its worker: the files, the figures, the refusals.

Needs a package registry once (an environment of 1.6 GB in the user's cache, a minute or two). Most tests share one
worker: starting TensorFlow takes longer than what they ask of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import CLUSTER, QAT, SPARSIFY, trained, zeros

import edgeopt
from edgeopt import keras_planning
from edgeopt.android_harness.accuracy import measure_accuracy
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.bundle import Bundle
from edgeopt.cli import main
from edgeopt.converters.keras.client import KerasWorker
from edgeopt.converters.keras.environment import TENSORFLOW
from edgeopt.errors import GateError, InputError

pytestmark = [pytest.mark.keras, pytest.mark.slow, pytest.mark.usefixtures("trainings")]

USER_CODE = '''
import keras
import numpy as np


class Scale(keras.layers.Layer):
    """A layer that no file can bring along."""

    def call(self, x):
        return x * 2.0


class Written(keras.Model):
    """A model written as a class."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return {"a": self.dense(x), "b": self.dense(x) * 2}


def net(classes=10):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8, 8, 1), name="image"), Scale(), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(classes)]
    )


def calibration():
    generator = np.random.default_rng(0)
    return [{"image": generator.random((1, 8, 8, 1), dtype=np.float32)} for _ in range(16)]


def evaluate(predict):
    scores = predict(np.ones((8, 8, 8, 1), np.float32))
    return {"classes": scores.shape[-1], "samples": len(scores)}


def broken():
    raise ValueError("no net today")
'''


class Kept(KerasWorker):
    """A worker that outlives the exports that use it."""

    def close(self) -> None:
        """Stay."""


@pytest.fixture(scope="session")
def worker(keras_python: Path) -> Iterator[Kept]:
    """One TensorFlow for many tests."""
    started = Kept(lambda doing: None)
    yield started
    KerasWorker.close(started)


@pytest.fixture
def shared(worker: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports take the worker that is there."""
    monkeypatch.setattr(keras_planning, "KerasWorker", lambda progress: worker)


@pytest.fixture(scope="session")
def digits(keras_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, Any]]:
    """The digits in every precision by the command itself, and what it printed."""
    output = tmp_path_factory.mktemp("keras") / "digits"
    command = [
        *[
            sys.executable,
            "-m",
            "edgeopt",
            "export",
            str(keras_folder / "digits.keras"),
            "--profile",
            "pixel7",
        ],
        *["--precision", "int8-static,int8-dynamic,fp16,fp32", "--max-accuracy-drop", "1%"],
        *["--calibration", str(keras_folder / "calibration.npz"), "--eval", str(keras_folder / "test.npz")],
        *["--mean", "0", "--std", "1", "-o", str(output), "--json"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return edgeopt.load_bundle(output), json.loads(done.stdout)


def test_every_precision_agrees_with_keras_and_keeps_its_accuracy(
    digits: tuple[Bundle, dict[str, Any]],
) -> None:
    bundle, printed = digits
    assert printed["ok"] and printed["errors"] == []
    files = {a.precision: a for a in bundle.artifacts}
    assert set(files) == {"fp32", "fp16", "int8-dynamic", "int8-static"}
    assert {a.status for a in bundle.artifacts} == {"verified"}
    source = bundle.manifest.evaluation.value
    assert source > 0.95
    snr = {name: min(p["snr_db"] for p in a.parity) for name, a in files.items()}
    assert snr["fp32"] > 100 and snr["fp16"] > 60 and snr["int8-dynamic"] > 25 and snr["int8-static"] > 25
    assert all(abs(a.metric - source) <= 0.01 for a in bundle.artifacts)
    assert files["int8-static"].size_bytes < 0.4 * files["fp32"].size_bytes
    assert files["int8-static"].contents["quantized_weights_ratio"] > 0.99


def test_the_bundle_says_what_it_was_made_of(digits: tuple[Bundle, dict[str, Any]]) -> None:
    manifest = digits[0].manifest
    assert manifest.source["framework"] == "keras"
    assert manifest.versions["tensorflow"] == TENSORFLOW and "keras" in manifest.versions
    assert [(t.name, t.layout) for t in manifest.inputs] == [("image", "NHWC")]
    assert [t.name for t in manifest.outputs] == ["scores"]
    assert manifest.not_made == [] and manifest.source["macs"] > 10_000


def test_a_bundle_needs_no_tensorflow_afterwards(
    digits: tuple[Bundle, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """verify, inspect, bench and app, where no environment with TensorFlow is."""
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "empty"))
    path = str(digits[0].path)
    assert main(["verify", path, "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert len(checks) >= 5 and all(check["passed"] for check in checks)
    assert main(["inspect", f"{path}/model.tflite", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert "CONV_2D" in {op["op"] for op in file["ops"]}
    command = ["bench", f"{path}/model.tflite", "--num-runs", "20", "--max-time", "2", "--no-store", "--json"]
    assert main(command) == 0
    measured = json.loads(capsys.readouterr().out)["measurements"]
    assert {"latency_ms"} <= {m["metric"] for m in measured}
    assert main(["app", path, "--package", "com.acme.digits", "-o", str(tmp_path / "app"), "--quiet"]) == 0
    pixels = next((tmp_path / "app").rglob("Pixels.kt")).read_text()
    assert "side by side" in pixels
    assert not (tmp_path / "empty").exists() or not list((tmp_path / "empty").glob("keras-*"))


def test_the_metric_beside_the_latency_knows_a_keras_model(
    digits: tuple[Bundle, dict[str, Any]], keras_folder: Path
) -> None:
    """What ``edgeopt compare --eval F --model M`` asks for."""
    bundle, _ = digits
    file = bundle.artifact_path(bundle.artifacts[0])
    found = measure_accuracy(
        file, str(keras_folder / "digits.keras"), str(keras_folder / "test.npz"), MeasureOptions()
    )
    assert found["value"] == pytest.approx(bundle.artifacts[0].metric) and found["samples"] == 397


def test_an_accuracy_that_falls_too_far_fails_the_gate(
    keras_folder: Path, shared: None, tmp_path: Path
) -> None:
    recipe = tmp_path / "ruined.toml"
    recipe.write_text('[[passes]]\npass = "sparsify"\nsparsity = 0.98\nepochs = 1\n')
    with pytest.raises(GateError, match=r"accuracy fell from 0\.9.* more than the 1\.00% allowed") as caught:
        edgeopt.export(
            str(keras_folder / "digits.keras"),
            profile="pixel7",
            recipe=str(recipe),
            training=str(keras_folder / "train.npz"),
            evaluate=str(keras_folder / "test.npz"),
            max_accuracy_drop=0.01,
            output=tmp_path / "out",
        )
    assert caught.value.bundle.manifest.status == "failed"
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 3


def test_a_dry_run_writes_nothing_and_says_why(
    keras_folder: Path,
    shared: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "export",
        str(keras_folder / "digits.keras"),
        "--profile",
        "raspberry_pi_4",
        "--dry-run",
        "--json",
    ]
    assert main(command) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["artifacts"] == [{"file": "model.tflite", "format": "tflite", "precision": "fp32"}]
    assert any("cortex-a72" in reason for reason in plan["choice"])
    assert list(tmp_path.iterdir()) == []
    # A .pte that was asked for by name is said to be impossible; by default nobody hears of it.
    assert plan["findings"] == []
    assert main([*command, "--format", "pte,tflite"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["format"] == "pte" and "PyTorch programs only" in finding["message"]


# What tensorflow-model-optimization does, read back from the files


def test_pruning_leaves_zeros_in_the_file(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(keras_folder, tmp_path / "pruned", SPARSIFY)
    assert zeros(found) == pytest.approx(0.5, abs=0.01)
    (artifact,) = bundle.artifacts
    assert artifact.precision == "fp32" and artifact.metric > 0.93
    assert "polynomial decay to 50.0% zeros" in artifact.changes[0]


def test_clustering_leaves_few_values_in_the_file(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(keras_folder, tmp_path / "clustered", CLUSTER)
    assert [len(np.unique(k)) <= 16 for k in found] == [True] * len(found)
    assert bundle.artifacts[0].metric > 0.93


def test_training_in_int8_gives_an_int8_file(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(keras_folder, tmp_path / "qat", QAT, max_accuracy_drop=0.02)
    assert {k.dtype for k in found} == {np.dtype(np.int8)}
    (artifact,) = bundle.artifacts
    assert artifact.precision == "int8-static" and "QAT" in artifact.road
    assert artifact.contents["quantized_weights_ratio"] > 0.99


def test_int8_training_keeps_zeros_and_clusters(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    """PCQAT: pruned, then clustered, then trained in int8; each step keeps what the ones before it made."""
    bundle, found = trained(keras_folder, tmp_path / "pcqat", SPARSIFY + CLUSTER + QAT)
    assert {k.dtype for k in found} == {np.dtype(np.int8)}
    assert zeros(found) >= 0.49
    dense = next(k for k in found if k.shape == (32, 512))
    assert len(np.unique(dense)) <= 16
    (artifact,) = bundle.artifacts
    assert artifact.metric > 0.9 and len(artifact.changes) == 3
    passes = [entry["pass"] for entry in bundle.manifest.recipes[0]["passes"]]
    assert passes == ["sparsify", "cluster", "qat"]
    assert tomllib.loads((tmp_path / "pcqat.toml").read_text())["seed"] == bundle.manifest.recipes[0]["seed"]


# Other ways in


@pytest.mark.parametrize(
    "name", ["digits.h5", "digits_graph", "old.keras", "old.h5", "old_folder", "recurrent.keras"]
)
def test_every_kind_of_file_becomes_a_verified_tflite(
    keras_folder: Path, shared: None, tmp_path: Path, name: str
) -> None:
    bundle = edgeopt.export(
        str(keras_folder / name), profile="pixel7", precision="fp32", output=tmp_path / "out"
    )
    (artifact,) = bundle.artifacts
    assert artifact.status == "verified" and min(p["snr_db"] for p in artifact.parity) > 90
    frameworks = {"digits.h5": "keras", "recurrent.keras": "keras", "digits_graph": "tensorflow"}
    assert bundle.manifest.source["framework"] == frameworks.get(name, "tf-keras")


def test_several_inputs_and_outputs_keep_their_names(
    keras_folder: Path, shared: None, tmp_path: Path
) -> None:
    bundle = edgeopt.export(
        str(keras_folder / "two.keras"), profile="pixel7", precision="fp32", output=tmp_path / "out"
    )
    assert {t.name for t in bundle.manifest.inputs} == {"left", "right"}
    assert {t.name for t in bundle.manifest.outputs} == {"p", "q"}
    assert {t.name for t in bundle.artifacts[0].inputs} == {"left", "right"}


def test_a_dynamic_batch_is_written_and_checked_at_its_ends(
    keras_folder: Path, shared: None, tmp_path: Path
) -> None:
    bundle = edgeopt.export(
        str(keras_folder / "digits.keras"),
        profile="pixel7",
        precision="fp32",
        dynamic_batch=True,
        output=tmp_path / "out",
    )
    (image,) = bundle.manifest.inputs
    assert isinstance(image.shape[0], str) and list(image.shape[1:]) == [8, 8, 1]
    assert bundle.artifacts[0].parity[0]["samples"] > 4


def test_models_and_data_beside_the_users_code(
    worker: Kept, shared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A custom layer, calibration and evaluation in a module that imports Keras: all of it runs in the worker."""
    (tmp_path / "nets.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    code = f"{tmp_path}/nets.py"
    bundle = edgeopt.export(
        f"{code}:net",
        profile="pixel7",
        precision="int8-static",
        calibration=f"{code}:calibration",
        evaluate=f"{code}:evaluate",
        model_args={"classes": 7},
        output="out",
    )
    evaluation = bundle.manifest.evaluation
    assert evaluation is not None and (evaluation.value, evaluation.samples) == (7.0, 8)
    assert bundle.artifacts[0].metric == 7.0
    with pytest.raises(InputError, match=r"doesn't say what it takes .* give --input-shape"):
        edgeopt.export(f"{code}:Written", profile="pixel7", output="out2")
    with pytest.raises(
        InputError, match=r"calling .*:broken to make the model failed: ValueError: no net today"
    ):
        edgeopt.export(f"{code}:broken", profile="pixel7", output="out2")
    with pytest.raises(InputError, match="has no attribute 'nett'; did you mean net"):
        edgeopt.export(f"{code}:nett", profile="pixel7", output="out2")
    assert not Path("out2").exists()
    recipe = tmp_path / "qat.toml"
    recipe.write_text(QAT)
    np.savez("train.npz", image=np.zeros((4, 8, 8, 1), np.float32), labels=np.zeros(4, np.int64))
    with pytest.raises(InputError, match=r"'scale\w*' is a Scale, which tf_keras has no layer for"):
        edgeopt.export(
            f"{code}:net", profile="pixel7", recipe=str(recipe), training="train.npz", output="out2"
        )
    assert not Path("out2").exists()


def test_a_model_of_this_process_is_handed_over(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    """A Keras object can't be made here, where no TensorFlow is: this one saves itself as Keras's do."""

    class Net:
        name = "handed"

        def save(self, path: Path) -> None:
            Path(path).write_bytes((keras_folder / "old.keras").read_bytes())

    Net.__module__ = "keras.src.models.functional"
    bundle = edgeopt.export(Net(), profile="pixel7", precision="fp32", output=tmp_path / "out")
    assert bundle.manifest.source["origin"] == "handed" and bundle.passed


# What is wrong with the user's model or data


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan.keras", r"weight '.*kernel.*' has 20 NaN or infinite values of 20"),
        ("lambda.keras", r"has a Lambda layer, .* give --trust-pickle"),
        ("custom.keras", r"uses the custom layer or object 'Scale': give the model from its code"),
        ("only.weights.h5", r"holds weights only: save the whole model"),
        ("anysize.keras", r"input 'input' has no fixed shape .* give --input-shape input:float32\[1,…\]"),
        ("words", r"input 'text' is of type string, which no model file takes"),
        ("odd", r"no operator for MatrixDeterminant: replace it"),
    ],
)
def test_a_model_that_can_not_be_taken_is_named(
    keras_folder: Path, shared: None, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        edgeopt.export(str(keras_folder / name), profile="pixel7", precision="fp32", output=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_breaks_off_is_named(keras_folder: Path, shared: None, tmp_path: Path) -> None:
    whole = (keras_folder / "digits.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.h5 .*(can't be|corrupt)"):
        edgeopt.export(str(tmp_path / "half.h5"), profile="pixel7", output=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shapes": ["image:float32[1,9,9,1]"]}, r"fails on the inputs"),
        ({"input_shapes": ["picture:float32[1,8,8,1]"]}, r"picture|image"),
        (
            {"calibration": "wrong.npz", "precision": "int8-static"},
            r"input 'image' must .*shape.*\[1, 8, 8, 1\]",
        ),
        ({"evaluate": "unlabelled.npz"}, r"has no array 'labels'"),
        ({"recipe": "qat.toml", "training": "unlabelled.npz"}, r"has no array 'labels'"),
        ({"recipe": "qat.toml", "training": "short.npz"}, r"different numbers of samples"),
        ({"recipe": "qat.toml", "training": "nowhere.npz"}, r"no such file"),
    ],
)
def test_data_that_do_not_fit_are_named(
    keras_folder: Path,
    shared: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("wrong.npz", image=np.zeros((4, 9, 9, 1), np.float32))
    np.savez("unlabelled.npz", image=np.zeros((4, 8, 8, 1), np.float32))
    np.savez("short.npz", image=np.zeros((4, 8, 8, 1), np.float32), labels=np.zeros(3, np.int64))
    Path("qat.toml").write_text(QAT)
    with pytest.raises(InputError, match=words) as caught:
        edgeopt.export(str(keras_folder / "digits.keras"), profile="pixel7", output="out", **options)
    assert "\n" not in str(caught.value) and not Path("out").exists()
