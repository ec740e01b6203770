"""Keras models: what is decided and refused before TensorFlow is started (nothing here needs it)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import keras_planning
from edgeopt.cli import main
from edgeopt.converters.keras import recipe as recipes
from edgeopt.converters.keras.recipe import load_keras_recipe, precision_recipe
from edgeopt.converters.keras.spec import is_keras
from edgeopt.errors import InputError
from edgeopt.models.deployment import check_deployment
from edgeopt.models.tensors import TensorInfo


def written(folder: Path, text: str) -> str:
    """A recipe file."""
    path = folder / "recipe.toml"
    path.write_text(text)
    return str(path)


PCQAT = """
name = "small"
seed = 3
[[passes]]
pass = "sparsify"
sparsity = 0.5
[[passes]]
pass = "cluster"
[[passes]]
pass = "qat"
epochs = 4
"""


def test_a_recipe_file_is_read_with_every_option_written_out(tmp_path: Path) -> None:
    recipe = load_keras_recipe(written(tmp_path, PCQAT))
    assert (recipe.name, recipe.seed, recipe.precision) == ("small", 3, "int8-static")
    assert recipe.quantizes_in_training and len(recipe.training) == 3
    sparsify, cluster, qat = recipe.to_dict()["passes"]
    assert sparsify == {
        "pass": "sparsify",
        "epochs": 2,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "sparsity": 0.5,
        "initial_sparsity": 0.0,
    }
    assert cluster["clusters"] == 16 and cluster["centroids"] == "kmeans++"
    assert qat["epochs"] == 4


@pytest.mark.parametrize("name", ["clustered", "cqat", "pcqat", "pqat", "pruned", "qat"])
def test_the_recipes_of_the_table_are_read(name: str) -> None:
    path = Path(__file__).parent.parent / "benchmarks" / "keras_recipes" / f"{name}.toml"
    recipe = load_keras_recipe(str(path))
    assert recipe.name == name
    assert recipe.precision == ("int8-static" if "qat" in name else "fp32")


@pytest.mark.parametrize(
    ("name", "precision"),
    [("fp32", "fp32"), ("fp16", "fp16"), ("dynamic_wi8_afp32", "int8-dynamic"), ("w8a8", "int8-static")],
)
def test_precisions_have_the_names_that_pytorch_models_have(name: str, precision: str) -> None:
    assert precision_recipe(name).precision == precision


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("passes = [", "is not valid TOML"),
        ("name = 'x'", "needs [[passes]] tables"),
        ("colour = 1\n[[passes]]\npass='qat'", "unknown key 'colour'"),
        ("seed = -1\n[[passes]]\npass='qat'", "seed must be a whole number"),
        ("[[passes]]\npass='qad'", "unknown pass 'qad'; Keras models take finetune, sparsify"),
        ("[[passes]]\npass='prune'", "prune is no pass for a Keras model: it removes whole channels"),
        ("[[passes]]\npass='fold_batch_norm'", "TensorFlow's converter folds"),
        ("[[passes]]\npass='qat'\nepoch=3", "epoch"),
        ("[[passes]]\npass='qat'\nepochs=0", "epochs and batch_size must be at least 1"),
        ("[[passes]]\npass='qat'\nepochs='two'", "epochs"),
        ("[[passes]]\npass='sparsify'\nsparsity=80", "sparsity must be between 0 and 1"),
        ("[[passes]]\npass='cluster'\nclusters=1", "clusters must be from 2 to 256"),
        ("[[passes]]\npass='cluster'\ncentroids='best'", "centroids"),
        ("[[passes]]\npass='qat'\n[[passes]]\npass='sparsify'", "only in the order finetune, sparsify"),
        ("[[passes]]\npass='sparsify'\n[[passes]]\npass='sparsify'", "each once"),
        ("[[passes]]\npass='qat'\n[[passes]]\npass='cast_to_half'", "sets the precision more than once"),
    ],
)
def test_a_wrong_recipe_is_named_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_keras_recipe(written(tmp_path, text))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "recipe.toml" in str(caught.value)


_OPTION = st.one_of(st.integers(-2, 300), st.floats(), st.text(max_size=4), st.booleans(), st.none())


@given(
    st.sampled_from([*recipes._KINDS, "prune", "nothing"]),
    st.dictionaries(st.sampled_from(["epochs", "sparsity", "clusters", "centroids", "samples"]), _OPTION),
)
def test_a_pass_is_taken_whole_or_refused_as_the_users_mistake(name: str, options: dict[str, Any]) -> None:
    try:
        made = recipes._parse_pass({"pass": name, **options}, "here")
    except InputError as error:
        assert str(error).startswith("here")
    else:
        assert recipes._parse_pass(recipes.KerasRecipe("again", (made,)).entries()[0], "here") == made


def test_what_is_a_keras_model_is_told_without_importing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text("raise SystemExit('imported')\nimport keras\n")
    (tmp_path / "torch_nets.py").write_text("import torch\nfrom tensorflow import io\n")
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)

    class Net:
        """An object of Keras."""

    Net.__module__ = "keras.src.models.functional"
    keras = ("a.keras", Path("b.H5"), "graph", "nets.py:net", "nets:net", "keras:torch_nets:net", Net())
    assert [is_keras(model) for model in keras] == [True] * len(keras)
    others = ("a.pt2", "torch_nets:net", "missing:net", "graph2", object())
    assert [is_keras(model) for model in others] == [False] * len(others)


class Started(Exception):
    """TensorFlow would have been started."""


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting the worker fails the test that said it needn't."""

    def start(progress: Any) -> None:
        raise Started

    monkeypatch.setattr(keras_planning, "KerasWorker", start)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file that could be a Keras model until TensorFlow looks into it."""
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What ``edgeopt export`` says when it refuses."""
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(main(["export", "--profile", "pixel7", *arguments]))
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int8-static"], "static int8 needs calibration data"),
        (["--precision", "int4"], "int4"),
        (["--precision", "fp32", "--recipe", "fp16"], "--precision and --recipe both set the precision"),
        (["--format", "pte"], "no .pte can be made of a Keras model: ask for --format tflite"),
        (["--format", "onnx"], "unknown format onnx"),
        (["--train", "t.npz"], "--train goes with a recipe file whose passes train"),
        (["--recipe", "nowhere.toml"], "no recipe file nowhere.toml"),
        (["--weights", "w.pt"], "--weights takes a PyTorch state_dict"),
        (["--max-accuracy-drop", "1%"], "--max-accuracy-drop needs a metric"),
        (["--profile", "pixel77"], "pixel77"),
        (["--model-args", "[1]"], "--model-args must be a JSON object"),
    ],
)
def test_mistakes_are_named_before_tensorflow_is_started(
    no_tensorflow: None, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in refused(capsys, model, *arguments)


def test_a_recipe_that_trains_asks_for_its_data(
    no_tensorflow: None, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, model, "--recipe", written(tmp_path, PCQAT))
    assert "the recipe small trains (sparsify, cluster, qat): give --train" in said


def test_what_is_no_model_is_refused_before_tensorflow_is_started(
    no_tensorflow: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere.keras does not exist: give" in refused(capsys, "nowhere.keras")
    (tmp_path / "text.h5").write_text("not a model")
    assert "neither a .keras archive nor an HDF5 file" in refused(capsys, str(tmp_path / "text.h5"))
    assert "no saved_model.pb" in refused(capsys, f"keras:{tmp_path}")


def test_an_output_that_exists_is_kept(
    no_tensorflow: None, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert "exists already: give --force" in refused(capsys, model, "-o", str(tmp_path / "out"))


def test_without_a_registry_the_sentence_says_what_is_missing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeopt.converters.keras import environment

    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(environment, "installed_here", lambda: False)
    assert main(["export", model, "--profile", "pixel7", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert (
        "TensorFlow" in said and "without it no Keras model can be read" in said and "Traceback" not in said
    )


@pytest.mark.parametrize("command", ["analyze", "estimate", "optimize"])
def test_commands_for_pytorch_models_say_so(
    command: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--profile", "pixel7"]
    if command == "optimize":
        more = ["--recipe", "fp32", "-o", str(tmp_path / "out")]
    assert main([command, model, *more]) == 2
    assert f"edgeopt {command} takes PyTorch models" in capsys.readouterr().err


def test_a_doctor_knows_tensorflow(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "Keras" in checks["TensorFlow"]["enables"] and not checks["TensorFlow"]["needed"]


def test_the_statistics_of_pixels_fit_images_with_the_channels_last() -> None:
    source: Any = type("Source", (), {})()
    source.inputs = (TensorInfo("image", (1, 8, 8, 3), "float32"),)
    source.outputs = ()
    found = check_deployment(source, None, "0,0,0", "1,1,1", channels_last=True)
    assert found is not None and found["mean"] == [0, 0, 0]
    with pytest.raises(InputError, match="no input is an image"):
        check_deployment(source, None, "0,0,0", "1,1,1")
