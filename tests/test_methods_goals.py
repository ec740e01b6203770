"""A goal of the methods on a small scale, in real files: what the benchmark holds on MNIST, held on 540 digits."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeopt

MODELS = Path(__file__).parent / "optimizer_models.py"


def metrics(bundle: edgeopt.Bundle) -> dict[str, float]:
    return {artifact.precision: float(artifact.metric or 0.0) for artifact in bundle.artifacts}


@pytest.mark.slow
def test_mixed_saves_a_file_that_int8_breaks(tmp_path: Path) -> None:
    with pytest.raises(edgeopt.GateError) as failed:
        edgeopt.export(
            f"{MODELS}:outliers",
            profile="pixel7",
            formats=("tflite",),
            precision="int8-static,mixed",
            evaluate=f"{MODELS}:evaluate",
            output=tmp_path / "outliers",
        )
    bundle = failed.value.bundle
    found = metrics(bundle)
    evaluation = bundle.manifest.evaluation
    assert evaluation is not None
    assert evaluation.value - found["int8-static"] > 0.02
    assert evaluation.value - found["mixed"] <= 0.005
    mixed = next(artifact for artifact in bundle.artifacts if artifact.precision == "mixed")
    assert mixed.status == "verified"
    assert mixed.contents["quantized_macs_ratio"] >= 0.8
