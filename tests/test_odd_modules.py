"""What becomes of each odd module: a verified file, one after a rewrite, or one sentence that says why not."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch

import edgeopt

pytestmark = pytest.mark.slow


def _odd_modules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("odd_modules", Path(__file__).parent / "odd_modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["odd_modules"] = module
    spec.loader.exec_module(module)
    return module


ODD = _odd_modules().ODD
WORKS = {"pte": "works", "tflite": "works"}
REWRITTEN = {"pte": "rewritten", "tflite": "rewritten"}

# What isn't works for both. Anything else than works and rewritten is a part of the finding's sentence.
OUTCOMES: dict[str, dict[str, str]] = {
    "lstm": REWRITTEN,
    "gru": REWRITTEN,
    "bidirectional_lstm": REWRITTEN,
    "embedding_bag": REWRITTEN,
    "cells": REWRITTEN,
    "volume_pools": {"pte": "rewritten", "tflite": "works"},
    "powers_of_five_axes": {"pte": "works", "tflite": "rewritten"},
    "affine_grid": REWRITTEN,
    "fft": REWRITTEN,
    "stft": REWRITTEN,
    "view_as_complex": REWRITTEN,
    "masked_fill": REWRITTEN,
    "adaptive_max_pool_odd": REWRITTEN,
    "average_of_all": REWRITTEN,
    "sort": REWRITTEN,
    "conv_transpose": {"pte": "works", "tflite": "rewritten"},
    "interpolate_nearest_odd": {"pte": "works", "tflite": "rewritten"},
    "one_hot": {"pte": "works", "tflite": "rewritten"},
    "conv3d": {"pte": "rewritten", "tflite": "works"},
    "double_weights": WORKS,
    "bfloat16_weights": WORKS,
    "float64_inside": {"pte": "works", "tflite": "LiteRT has no arithmetic in float64 (op aten.to.dtype"},
    "running_state": {
        "pte": "works",
        "tflite": "forward changes buffer 'state', and a .tflite keeps no state between calls",
    },
    "gather_scatter": {"pte": "works", "tflite": "rewritten"},
    "unfold_fold": {"pte": "works", "tflite": "rewritten"},
    "index_add": {"pte": "works", "tflite": "rewritten"},
    "index_put_accumulate": {"pte": "works", "tflite": "rewritten"},
    "scatter_reduce": REWRITTEN,
    "branches": REWRITTEN,
    "while_loop": {"": "neither exporter takes a while_loop"},
    "data_dependent_if": {"": "the model's control flow depends on its data"},
    "boolean_mask": {"": "the shape of the result of aten.index.Tensor depends on its data"},
    "nonzero": {"": "the shape of the result of aten.nonzero.default depends on its data"},
    "complex_input": {"": "input 'x' is complex, and neither format has complex numbers"},
    "complex_sqrt": {"": "aten.sqrt.default has no form in real ones here"},
    "svd": {
        "pte": "ExecuTorch takes no aten._linalg_svd.default",
        "tflite": "LiteRT's converter has no lowering for aten._linalg_svd.default",
    },
    "special_functions": {
        "pte": "ExecuTorch takes no aten.i0.default",
        "tflite": "LiteRT's converter has no lowering for aten.i0.default",
    },
    "random_noise": {"": "forward draws random numbers"},
}


@pytest.fixture(scope="module", autouse=True)
def exporters() -> None:
    """The exporters loaded here, so that the processes forked for each file have them."""
    import litert_torch._convert.core  # noqa: F401 - loading is the point


def _check_sentence(sentence: str) -> None:
    assert "\n" not in sentence and "Traceback" not in sentence
    assert not re.search(r"(^|\s)/\w+/", sentence), "a folder of this machine is of no use to the reader"
    assert "odd_modules.py:" in sentence or "input " in sentence, "the user's line must be named"


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_module_ends_as_files_or_as_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = ODD[name]
    expected = OUTCOMES.get(name, WORKS)
    options = {
        "profile": "pixel7",
        "precision": "fp32",
        "output": tmp_path / "bundle",
        "name": name,
        "use_cache": False,
    }
    if not {"works", "rewritten"} & set(expected.values()):
        with pytest.raises(edgeopt.InputError) as refused:
            edgeopt.export(
                odd.model(), example_inputs=odd.example(), dynamic_batch=odd.dynamic_batch, **options
            )
        _check_sentence(str(refused.value))
        for words in expected.values():
            assert words in str(refused.value)
        assert not (tmp_path / "bundle").exists()
        return
    bundle = edgeopt.export(
        odd.model(), example_inputs=odd.example(), dynamic_batch=odd.dynamic_batch, **options
    )
    manifest = bundle.manifest.model_dump()
    made = {artifact["format"]: artifact for artifact in manifest["artifacts"]}
    notes = [w for w in manifest["warnings"] if " written " in w]
    for output_format, outcome in expected.items():
        if outcome in ("works", "rewritten"):
            artifact = made[output_format]
            assert artifact["status"] == "verified"
            own = [w for w in artifact["warnings"] if " written " in w]
            assert ("rewritten" if notes or own else "works") == outcome, [*notes, *own]
        else:
            assert output_format not in made
            (refusal,) = [r for r in manifest["not_made"] if r["format"] == output_format]
            assert outcome in refusal["sentence"]
            assert refusal["suggestion"]
            _check_sentence(refusal["sentence"])


# Where int8 and float16 have gone wrong before, or the layers are the ones people deploy.
PRECISE = [
    "lstm",
    "group_norm_cnn",
    "conv_transpose",
    "activations",
    "transformer_layer",
    "dynamic_batch_flatten",
    "bfloat16_inside",
    "autocast",
    "branches",
    "index_add",
    "index_fill",
    "unfold_fold",
]


@pytest.mark.parametrize("name", PRECISE)
def test_an_odd_module_in_every_other_precision(name: str, tmp_path: Path) -> None:
    odd = ODD[name]
    torch.manual_seed(3)
    bundle = edgeopt.export(
        odd.model(),
        example_inputs=odd.example(),
        dynamic_batch=odd.dynamic_batch,
        calibration=[odd.inputs() for _ in range(8)],
        profile="pixel7",
        precision="fp16,int8-dynamic,int8-static",
        use_cache=False,
        output=tmp_path / "bundle",
    )
    manifest = bundle.manifest.model_dump()
    assert not manifest["not_made"]
    assert len(manifest["artifacts"]) == 6
    if name == "lstm":
        for artifact in manifest["artifacts"]:
            if artifact["precision"].startswith("int8"):
                assert artifact["contents"]["quantized_weights_ratio"] > 0.9


def test_a_crash_of_one_exporter_costs_one_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.converters import litert, workers

    # Whatever other tests left in this process: what aborts must not be run in it.
    monkeypatch.setattr(workers, "_forks_stall", threading.Event())
    monkeypatch.setattr(litert, "convert_float", lambda *arguments: os.abort())
    odd = ODD["einsum"]
    bundle = edgeopt.export(
        odd.model(),
        example_inputs=odd.example(),
        profile="pixel7",
        precision="fp32",
        use_cache=False,
        output=tmp_path / "bundle",
    )
    manifest = bundle.manifest.model_dump()
    (artifact,) = manifest["artifacts"]
    assert (artifact["format"], artifact["status"]) == ("pte", "verified")
    (refusal,) = manifest["not_made"]
    assert refusal["format"] == "tflite" and "died of SIGABRT" in refusal["sentence"]


def test_files_made_from_a_float_file_that_failed_say_why_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeopt.converters import litert

    def refuse(*arguments: object) -> None:
        raise RuntimeError("this model is too odd")

    monkeypatch.setattr(litert, "convert_float", refuse)
    odd = ODD["one_hot"]
    for precisions in ("fp32,int8-dynamic,fp16", "int8-dynamic,fp16"):
        bundle = edgeopt.export(
            odd.model(),
            example_inputs=odd.example(),
            profile="pixel7",
            precision=precisions,
            use_cache=False,
            output=tmp_path / precisions,
        )
        not_made = bundle.manifest.model_dump()["not_made"]
        assert len(not_made) == len(precisions.split(","))
        for refusal in not_made:
            assert "this model is too odd" in refusal["sentence"]
        assert (bundle.path / "SUMMARY.md").read_text(encoding="utf-8").count("this model is too odd") == 1


def test_verbose_shows_the_words_of_an_exporter_that_failed(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "odd_one.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 + 1\n"
        "net = Net()\n"
        "def example_inputs():\n"
        "    return torch.ones(1, 3)\n"
    )
    (tmp_path / "run.py").write_text(
        "from edgeopt.converters import executorch\n"
        "def refuse(*arguments):\n"
        "    raise RuntimeError('too odd') from ValueError('words of its own')\n"
        "executorch.convert = refuse\n"
        "from edgeopt.cli import main\n"
        "raise SystemExit(main())\n"
    )
    command = [sys.executable, "run.py", "export", "odd_one.py:net", "--profile", "pixel7", "--format", "pte"]
    command += ["--precision", "fp32", "--no-cache", "-o", "out"]
    shown = {}
    for flag in ("--verbose", "--quiet"):
        ran = subprocess.run([*command, flag], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 2, ran.stderr
        shown[flag] = ran.stderr
    assert "words of its own" in shown["--verbose"]
    assert "words of its own" not in shown["--quiet"]
