"""Keras models through ``edgeopt export``, with TensorFlow in its worker: the files, the figures, the refusals.

Needs a package registry once (an environment of 1.6 GB in the user's cache, a minute or two). Most tests share one
worker: starting TensorFlow takes longer than what they ask of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeopt
from edgeopt import keras_export, keras_planning
from edgeopt.android_harness.accuracy import measure_accuracy
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.bundle import Bundle
from edgeopt.cli import main
from edgeopt.converters.keras.client import KerasWorker
from edgeopt.converters.keras.environment import TENSORFLOW, keras_python
from edgeopt.errors import EdgeoptError, GateError, InputError

pytestmark = [pytest.mark.keras, pytest.mark.slow]

MAKER = Path(__file__).parent / "models" / "make_keras.py"
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


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter that has TensorFlow."""
    try:
        return keras_python(lambda doing: None)
    except EdgeoptError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def folder(python: Path, request: pytest.FixtureRequest) -> Path:
    """The models of make_keras.py and scikit-learn's digits, made once a version."""
    from sklearn.datasets import load_digits

    key = hashlib.sha256(MAKER.read_bytes() + TENSORFLOW.encode()).hexdigest()[:12]
    where = Path(request.config.cache.mkdir("edgeopt-keras")) / key
    if not (where / "done").is_file():
        where.mkdir(parents=True, exist_ok=True)
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        images = (digits.images[order, :, :, None] / 16).astype(np.float32)
        labels = digits.target[order].astype(np.int64)
        np.savez(where / "train.npz", image=images[:1400], labels=labels[:1400])
        np.savez(where / "test.npz", image=images[1400:], labels=labels[1400:])
        np.savez(where / "calibration.npz", image=images[:64])
        done = subprocess.run(
            [str(python), str(MAKER), str(where)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (where / "done").touch()
    return where


class Kept(KerasWorker):
    """A worker that outlives the exports that use it."""

    def close(self) -> None:
        """Stay."""


@pytest.fixture(scope="session")
def worker(python: Path) -> Iterator[Kept]:
    """One TensorFlow for many tests."""
    started = Kept(lambda doing: None)
    yield started
    KerasWorker.close(started)


@pytest.fixture
def shared(worker: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports take the worker that is there."""
    monkeypatch.setattr(keras_planning, "KerasWorker", lambda progress: worker)


@pytest.fixture(scope="session")
def digits(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, Any]]:
    """The digits in every precision by the command itself, and what it printed."""
    output = tmp_path_factory.mktemp("keras") / "digits"
    command = [
        *[sys.executable, "-m", "edgeopt", "export", str(folder / "digits.keras"), "--profile", "pixel7"],
        *["--precision", "int8-static,int8-dynamic,fp16,fp32", "--max-accuracy-drop", "1%"],
        *["--calibration", str(folder / "calibration.npz"), "--eval", str(folder / "test.npz")],
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
    digits: tuple[Bundle, dict[str, Any]], folder: Path
) -> None:
    """What ``edgeopt compare --eval F --model M`` asks for."""
    bundle, _ = digits
    file = bundle.artifact_path(bundle.artifacts[0])
    found = measure_accuracy(file, str(folder / "digits.keras"), str(folder / "test.npz"), MeasureOptions())
    assert found["value"] == pytest.approx(bundle.artifacts[0].metric) and found["samples"] == 397


def test_an_accuracy_that_falls_too_far_fails_the_gate(folder: Path, shared: None, tmp_path: Path) -> None:
    recipe = tmp_path / "ruined.toml"
    recipe.write_text('[[passes]]\npass = "sparsify"\nsparsity = 0.98\nepochs = 1\n')
    with pytest.raises(GateError, match=r"accuracy fell from 0\.9.* more than the 1\.00% allowed") as caught:
        edgeopt.export(
            str(folder / "digits.keras"),
            profile="pixel7",
            recipe=str(recipe),
            training=str(folder / "train.npz"),
            evaluate=str(folder / "test.npz"),
            max_accuracy_drop=0.01,
            output=tmp_path / "out",
        )
    assert caught.value.bundle.manifest.status == "failed"
    assert main(["verify", str(tmp_path / "out"), "--quiet"]) == 3


def test_a_dry_run_writes_nothing_and_says_why(
    folder: Path,
    shared: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["export", str(folder / "digits.keras"), "--profile", "raspberry_pi_4", "--dry-run", "--json"]
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


def kernels(path: Path, shapes: set[tuple[int, ...]]) -> list[np.ndarray]:
    """The constant tensors of these shapes in a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found = []
    for detail in interpreter.get_tensor_details():
        if tuple(int(size) for size in detail["shape"]) in shapes:
            found.append(interpreter.get_tensor(detail["index"]))
    return found


# The kernels of the digits' net that are large enough for 16 clusters, as .tflite lays them out.
LARGE = {(8, 3, 3, 8), (32, 512)}


def trained(folder: Path, output: Path, passes: str, **options: Any) -> tuple[Bundle, list[np.ndarray]]:
    """An export by a recipe that trains, and the file's large kernels."""
    recipe = output.with_suffix(".toml")
    recipe.write_text("seed = 1\n" + passes)
    bundle = edgeopt.export(
        str(folder / options.pop("model", "digits.keras")),
        profile="pixel7",
        recipe=str(recipe),
        training=str(folder / "train.npz"),
        evaluate=str(folder / "test.npz"),
        calibration=str(folder / "calibration.npz"),
        output=output,
        **options,
    )
    (artifact,) = bundle.artifacts
    assert artifact.status == "verified"
    found = kernels(bundle.artifact_path(artifact), LARGE)
    assert len(found) == len(LARGE)
    return bundle, found


SPARSIFY = '[[passes]]\npass = "sparsify"\nsparsity = 0.5\nepochs = 4\nbatch_size = 64\n'
CLUSTER = '[[passes]]\npass = "cluster"\nclusters = 16\nepochs = 1\n'
QAT = '[[passes]]\npass = "qat"\nepochs = 1\n'


def zeros(found: list[np.ndarray]) -> float:
    return sum(int((k == 0).sum()) for k in found) / sum(k.size for k in found)


def test_pruning_leaves_zeros_in_the_file(folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(folder, tmp_path / "pruned", SPARSIFY)
    assert zeros(found) == pytest.approx(0.5, abs=0.01)
    (artifact,) = bundle.artifacts
    assert artifact.precision == "fp32" and artifact.metric > 0.93
    assert "polynomial decay to 50.0% zeros" in artifact.changes[0]


def test_clustering_leaves_few_values_in_the_file(folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(folder, tmp_path / "clustered", CLUSTER)
    assert [len(np.unique(k)) <= 16 for k in found] == [True] * len(found)
    assert bundle.artifacts[0].metric > 0.93


def test_training_in_int8_gives_an_int8_file(folder: Path, shared: None, tmp_path: Path) -> None:
    bundle, found = trained(folder, tmp_path / "qat", QAT, max_accuracy_drop=0.02)
    assert {k.dtype for k in found} == {np.dtype(np.int8)}
    (artifact,) = bundle.artifacts
    assert artifact.precision == "int8-static" and "QAT" in artifact.road
    assert artifact.contents["quantized_weights_ratio"] > 0.99


def test_int8_training_keeps_zeros_and_clusters(folder: Path, shared: None, tmp_path: Path) -> None:
    """PCQAT: pruned, then clustered, then trained in int8; each step keeps what the ones before it made."""
    bundle, found = trained(folder, tmp_path / "pcqat", SPARSIFY + CLUSTER + QAT)
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
    folder: Path, shared: None, tmp_path: Path, name: str
) -> None:
    bundle = edgeopt.export(str(folder / name), profile="pixel7", precision="fp32", output=tmp_path / "out")
    (artifact,) = bundle.artifacts
    assert artifact.status == "verified" and min(p["snr_db"] for p in artifact.parity) > 90
    frameworks = {"digits.h5": "keras", "recurrent.keras": "keras", "digits_graph": "tensorflow"}
    assert bundle.manifest.source["framework"] == frameworks.get(name, "tf-keras")


def test_several_inputs_and_outputs_keep_their_names(folder: Path, shared: None, tmp_path: Path) -> None:
    bundle = edgeopt.export(
        str(folder / "two.keras"), profile="pixel7", precision="fp32", output=tmp_path / "out"
    )
    assert {t.name for t in bundle.manifest.inputs} == {"left", "right"}
    assert {t.name for t in bundle.manifest.outputs} == {"p", "q"}
    assert {t.name for t in bundle.artifacts[0].inputs} == {"left", "right"}


def test_a_dynamic_batch_is_written_and_checked_at_its_ends(
    folder: Path, shared: None, tmp_path: Path
) -> None:
    bundle = edgeopt.export(
        str(folder / "digits.keras"),
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


def test_a_model_of_this_process_is_handed_over(folder: Path, shared: None, tmp_path: Path) -> None:
    """A Keras object can't be made here, where no TensorFlow is: this one saves itself as Keras's do."""

    class Net:
        name = "handed"

        def save(self, path: Path) -> None:
            Path(path).write_bytes((folder / "old.keras").read_bytes())

    Net.__module__ = "keras.src.models.functional"
    bundle = edgeopt.export(Net(), profile="pixel7", precision="fp32", output=tmp_path / "out")
    assert bundle.manifest.source["origin"] == "handed" and bundle.passed


# What is wrong with the user's model or data


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan.keras", r"weight '.*kernel.*' has 20 NaN or infinite value\(s\) of 20"),
        ("lambda.keras", r"has a Lambda layer, .* give --trust-pickle"),
        ("custom.keras", r"uses the custom layer or object 'Scale': give the model from its code"),
        ("only.weights.h5", r"holds weights only: save the whole model"),
        ("anysize.keras", r"input 'input' has no fixed shape .* give --input-shape input:float32\[1,…\]"),
        ("words", r"input 'text' is of type string, which no model file takes"),
        ("odd", r"no operator for MatrixDeterminant: replace it"),
    ],
)
def test_a_model_that_can_not_be_taken_is_named(
    folder: Path, shared: None, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        edgeopt.export(str(folder / name), profile="pixel7", precision="fp32", output=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_breaks_off_is_named(folder: Path, shared: None, tmp_path: Path) -> None:
    whole = (folder / "digits.h5").read_bytes()
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
    folder: Path,
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
        edgeopt.export(str(folder / "digits.keras"), profile="pixel7", output="out", **options)
    assert "\n" not in str(caught.value) and not Path("out").exists()


# A worker that dies


def children(word: str) -> list[int]:
    """This process's children whose command holds ``word``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and word.encode() in command:
                found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def trainings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for each test's finished epochs: no test goes on from another's."""
    folder = tmp_path_factory.mktemp("training")
    monkeypatch.setattr(keras_export, "training_folder", lambda: folder)
    return folder


def test_a_training_that_was_cut_off_goes_on_where_it_was(
    folder: Path, trainings: Path, tmp_path: Path
) -> None:
    passes = SPARSIFY.replace("epochs = 4", "epochs = 2") + QAT.replace("epochs = 1", "epochs = 3")
    before = set(children("converters.keras.worker"))
    said: list[str] = []

    def kill(doing: str) -> None:
        said.append(doing)
        if "epoch 2 of 3" in doing:
            for process in set(children("converters.keras.worker")) - before:
                os.kill(process, signal.SIGKILL)

    with pytest.raises(EdgeoptError, match="SIGKILL"):
        trained(folder, tmp_path / "cut", passes, progress=kill)
    assert [line for line in said if "epoch 1 of 2" in line]
    assert len(list((trainings / "keras").iterdir())) == 2
    said.clear()
    bundle, found = trained(folder, tmp_path / "cut", passes, progress=said.append)
    epochs = [line for line in said if "epoch" in line]
    assert len(epochs) == 2
    assert "pruning to 50%: 2 epochs were finished before" in epochs[0]
    assert "epoch 3 of 3" in epochs[1]
    assert zeros(found) >= 0.49 and {k.dtype for k in found} == {np.dtype(np.int8)}
    assert bundle.artifacts[0].metric > 0.9
    # Another recipe has a place of its own.
    said.clear()
    trained(folder, tmp_path / "other", SPARSIFY.replace("epochs = 4", "epochs = 1"), progress=said.append)
    assert [line for line in said if "epoch 1 of 1" in line]


@pytest.mark.parametrize("moment", ["running the source model", "epoch 1"])
def test_a_killed_worker_leaves_no_bundle_and_one_sentence(folder: Path, tmp_path: Path, moment: str) -> None:
    (tmp_path / "qat.toml").write_text(QAT.replace("epochs = 1", "epochs = 3"))
    before = set(children("converters.keras.worker"))

    def kill(doing: str) -> None:
        if moment in doing:
            for process in set(children("converters.keras.worker")) - before:
                os.kill(process, signal.SIGKILL)

    options: dict[str, Any] = {}
    if moment == "epoch 1":
        options = {"recipe": str(tmp_path / "qat.toml"), "training": str(folder / "train.npz")}
    with pytest.raises(EdgeoptError, match=r"ended TensorFlow's process with SIGKILL") as caught:
        edgeopt.export(
            str(folder / "digits.keras"), profile="pixel7", output=tmp_path / "out", progress=kill, **options
        )
    assert not isinstance(caught.value, InputError)
    assert [p.name for p in tmp_path.iterdir()] == ["qat.toml"]
    assert set(children("converters.keras.worker")) == before
