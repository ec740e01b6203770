"""Keras models for tests, the interpreter that has TensorFlow, and trainings read back from the files."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeopt
from edgeopt import keras_export
from edgeopt.bundle import Bundle
from edgeopt.converters.keras import environment
from edgeopt.errors import EdgeoptError

MAKER = Path(__file__).parent / "models" / "make_keras.py"


@pytest.fixture(scope="session")
def keras_python() -> Path:
    """The interpreter that has TensorFlow."""
    try:
        return environment.keras_python(lambda doing: None)
    except EdgeoptError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def keras_folder(keras_python: Path, request: pytest.FixtureRequest) -> Path:
    """The models of make_keras.py and scikit-learn's digits, made once a version."""
    from sklearn.datasets import load_digits

    key = hashlib.sha256(MAKER.read_bytes() + environment.TENSORFLOW.encode()).hexdigest()[:12]
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
            [str(keras_python), str(MAKER), str(where)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (where / "done").touch()
    return where


@pytest.fixture
def trainings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for each test's finished epochs: no test goes on from another's."""
    folder = tmp_path_factory.mktemp("training")
    monkeypatch.setattr(keras_export, "training_folder", lambda: folder)
    return folder


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
