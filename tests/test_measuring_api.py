"""edgeopt.bench and edgeopt.compare from Python, and ONNX Runtime as a peer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from app_bundles import PICTURE, make_bundle

import edgeopt
from edgeopt.errors import InputError
from edgeopt.results.artifacts import find_artifacts

QUICK = {"processes": 2, "max_time_s": 2.0}


def test_the_api_is_public_and_costs_nothing_until_used() -> None:
    assert {"bench", "compare", "MeasureOptions"} <= set(edgeopt.__all__)
    code = (
        "import edgeopt, sys; edgeopt.bench; edgeopt.compare\n"
        "print([n for n in ('torch', 'executorch', 'tensorflow', 'sqlalchemy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(edgeopt.InputError, match="does not exist"):
        edgeopt.bench("no.tflite")


@pytest.mark.slow
def test_files_are_measured_and_compared(runnable: Path) -> None:
    options = edgeopt.MeasureOptions(**QUICK)
    file = runnable / "two.tflite"
    result = edgeopt.bench(str(file), options)
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert latency.ci95 is not None
    assert latency.ci95[0] <= latency.value <= latency.ci95[1]
    assert not result.failures
    found = edgeopt.compare([runnable / "cnn.tflite", file], options, rounds=2)
    assert found.duels[0].verdict == "faster"


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed (edgeopt[onnx])")
    import torch

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()).eval()
    torch.onnx.export(net, (torch.ones(1, 8),), str(file), dynamo=True, verbose=False)
    np.savez(file.with_suffix(".npz"), out=net(torch.ones(1, 8)).detach().numpy())
    return file


@pytest.mark.slow
def test_onnx_runtime_runs_and_measures_a_file(onnx_file: Path) -> None:
    from edgeopt.runtimes import run_isolated

    ((out,),) = run_isolated(onnx_file, [[np.ones((1, 8), np.float32)]])
    np.testing.assert_allclose(out, np.load(onnx_file.with_suffix(".npz"))["out"], atol=1e-6)
    result = edgeopt.bench(onnx_file, edgeopt.MeasureOptions(**QUICK))
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert latency.runtime == "onnxruntime"
    assert latency.runtime_version
    assert latency.value > 0


@pytest.mark.slow
def test_a_broken_onnx_file_is_one_sentence(onnx_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_file.read_bytes()[:60])
    with pytest.raises(edgeopt.InputError, match=r"broken\.onnx can't be loaded by ONNX Runtime"):
        edgeopt.bench(broken, edgeopt.MeasureOptions(**QUICK))


def test_a_bundles_file_that_was_changed_is_not_measured(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", *PICTURE)
    assert [each.name for each in find_artifacts([bundle.path])]
    (bundle.path / "model.pte").write_bytes(b"something else")
    with pytest.raises(
        InputError, match=r"bundle: model.pte is not the file that was exported .*export the bundle again"
    ):
        find_artifacts([bundle.path])
    assert [each.name for each in find_artifacts([bundle.path / "model.pte"])] == ["model.pte"]
