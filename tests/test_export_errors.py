"""Bad input to export, verify and inspect: one clear sentence, exit code 2, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeopt.cli import main

HERE = Path(__file__).parent
MODEL = f"{HERE / 'sample_models.py'}"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main([*arguments, "--quiet"])
    return code, capsys.readouterr().err


def export(tmp_path: Path, model: str = "net", *options: str) -> list[str]:
    spec = f"{MODEL}:{model}" if ":" not in model and "/" not in model else model
    return ["export", spec, "--profile", "pixel7", "-o", str(tmp_path / "out"), *options]


CASES = {
    "unknown profile": (["net", "--profile", "pixle7"], "pixel7"),
    "missing module": (["no_such_pkg.models:net"], "no Python module 'no_such_pkg'"),
    "missing attribute": (["ne"], "no attribute 'ne'; did you mean net"),
    "no colon": (["./justaname"], "neither package.module:attribute nor"),
    "no module before the colon": ([":net"], "must be written package.module:attribute"),
    "a dot for a module": ([".:net"], "importing . failed"),
    "not a module": (["not_a_module"], "made an int, not a torch.nn.Module"),
    "not callable": (["NUMBER"], "is an int, not a torch.nn.Module"),
    "factory fails": (["breaks"], "no weights here"),
    "factory needs arguments": (
        ["factory"],
        """without its argument 'classes': give --model-args '{"classes": ...}'""",
    ),
    "weights alone": (
        ["STATE"],
        "is a dict, not a torch.nn.Module, a class of one, or a function that makes one (weights go",
    ),
    "quantised already": (["quantized_by_torch"], "the model is quantised already, by PyTorch's eager mode"),
    "bad model args": (["factory", "--model-args", "{classes"], "--model-args is not JSON"),
    "wrong shape": (["net", "--input-shape", "image:float32[1,4,16,16]"], "expected input"),
    "wrong dtype": (["net", "--input-shape", "image:int64[1,3,16,16]"], "failed on the example inputs"),
    "unknown input": (["net", "--input-shape", "picture:float32[1,3,16,16]"], "no parameter 'picture'"),
    "unreadable shape": (["net", "--input-shape", "image:float32(1,3)"], "can't be read"),
    "unknown dtype": (["net", "--input-shape", "image:float99[1,3]"], "unknown dtype"),
    "NaN weights": (["nan_weights"], "weight 'head.weight' has 1 NaN"),
    "unknown precision": (["net", "--precision", "int7"], "unknown precision 'int7'"),
    "unknown format": (["net", "--format", "onnx"], "unknown format onnx"),
    "too big for float16": (["huge_weight", "--precision", "fp16"], "beyond float16"),
    "control flow": (["branching"], "control flow depends on its data"),
    "NumPy in forward": (
        ["in_numpy"],
        "forward leaves PyTorch for NumPy, where nothing can be captured (sample_m",
    ),
    "failing calibration": (
        ["no_photos"],
        "calibration() beside the model failed: FileNotFoundError: photos/0.png (sample_models.py:",
    ),
    "model and inputs": (["with_inputs"], "made a tuple, not a torch.nn.Module: return the model alone"),
    "dropout left on": (["noisy"], "forward draws random numbers, so its outputs are other ones each time"),
    "state in Python": (["counting"], "gives another 'output' when it is called again with the same inputs"),
    "an empty example": (["net", "--example-inputs", f"{MODEL}:no_images"], "which holds no element"),
    "gate without metric": (["net", "--max-accuracy-drop", "1%"], "needs a metric"),
    "unreadable percentage": (["net", "--max-accuracy-drop", "lots"], "must be a percentage"),
    "missing calibration file": (["net", "--calibration", "none.npz"], "no file none.npz"),
    "unknown recipe": (
        ["net", "--recipe", "int8-statik"],
        "unknown recipe 'int8-statik'; did you mean int8-static?",
    ),
    "missing recipe": (["net", "--recipe", "none.toml"], "no recipe file"),
    "two precisions": (["net", "--precision", "fp16", "--recipe", "fp32"], "give one of them"),
    "missing weights": (["net", "--weights", "none.pt"], "no file none.pt"),
    "file without attribute": ([str(HERE / "sample_models.py")], "sample_models.py:NAME"),
    "lazy weights": (["lazy", "--input-shape", "input:float32[1,4]"], "'weight' is lazy"),
    "shape beyond memory": (
        ["net", "--input-shape", "image:float32[1,3,99999999999,99]"],
        "can't be made here",
    ),
    "inputs that are code": (
        ["net", "--example-inputs", str(HERE / "sample_models.py")],
        "is not an npz file",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), CASES.values(), ids=list(CASES))
def test_one_sentence_and_exit_2(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = run(capsys, *export(tmp_path, *arguments))
    assert code == 2, err
    assert expected in err
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_no_profile_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys, "export", f"{MODEL}:net", "-o", str(tmp_path / "out"))
    assert code == 2
    assert "--profile" in err


def test_static_int8_without_calibration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bare_model.py"
    script.write_text("from torch import nn\ndef net():\n    return nn.Linear(4, 2).eval()\n")
    out = tmp_path / "out"
    code, err = run(
        capsys, "export", f"{script}:net", "--profile", "pixel7", "--precision", "int8", "-o", str(out),
        "--input-shape", "input:float32[1,4]",
    )  # fmt: skip
    assert code == 2
    assert "needs calibration data" in err
    assert not out.exists()


def test_malformed_profile_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("name = [")
    code, err = run(capsys, "export", f"{MODEL}:net", "--profile", str(bad), "-o", str(tmp_path / "out"))
    assert code == 2
    assert "bad.toml" in err


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((4, 3, 8, 8), np.float32), "must stack samples of shape"),
        (np.zeros((4, 3, 16, 16), np.int64), "must be float32"),
        (np.full((4, 3, 16, 16), np.nan, np.float32), "NaN"),
        (np.zeros((0, 3, 16, 16), np.float32), "gave no sample"),
        (np.array(["a cat", "a dog"]), "not numbers"),
    ],
    ids=["shape", "dtype", "NaN", "empty", "text"],
)
def test_calibration_that_does_not_fit(
    array: np.ndarray, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, image=array)
    code, err = run(capsys, *export(tmp_path, "net", "--calibration", str(data)))
    assert code == 2
    assert expected in err


def test_a_pickle_is_not_read_without_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    file = tmp_path / "model.pt"
    torch.save(Evil(), file)
    code, err = run(capsys, "export", str(file), "--profile", "pixel7", "-o", str(tmp_path / "out"))
    assert code == 2
    assert "--trust-pickle" in err
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_alone_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, file)
    code, err = run(capsys, "export", str(file), "--profile", "pixel7", "-o", str(tmp_path / "out"))
    assert code == 2
    assert "--weights" in err


def test_an_output_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    code, err = run(capsys, *export(tmp_path, "net"))
    assert code == 2 and "exists already" in err
    code, err = run(capsys, *export(tmp_path, "net", "--force"))
    assert code == 2 and "not a bundle" in err
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"


def test_an_output_under_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, err = run(
        capsys, "export", f"{MODEL}:net", "--profile", "pixel7", "-o", str(tmp_path / "file" / "out")
    )
    assert code == 2
    assert "can't be written" in err


@pytest.mark.parametrize("command", ["verify", "inspect"])
@pytest.mark.parametrize("suffix", [".pte", ".tflite"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 100, b"\x1c\x00\x00\x00TFL3" + b"\xff" * 200, b"\0" * 4096]
)
def test_corrupt_files(
    command: str, suffix: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    code, err = run(capsys, command, str(file))
    assert code == 2, err
    assert err.startswith("error: ") and file.name in err


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_missing_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys, command, str(tmp_path / "none.pte"))
    assert code == 2 and "none.pte does not exist" in err


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_manifest_of_someone_else(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    code, err = run(capsys, command, str(tmp_path))
    assert code == 2 and "was not written by edgeopt" in err


def test_errors_are_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*export(tmp_path, "net", "--precision", "int7"), "--json"])
    out = json.loads(capsys.readouterr().out)
    assert code == 2
    assert out["ok"] is False and "int7" in out["errors"][0] and out["command"] == "export"
