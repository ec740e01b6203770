"""Goals of the methods on a small scale, in real files: what the benchmark holds on real data, held in the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


class Spoken(torch.nn.Module):
    """The benchmark's LSTM, not trained: nine logits for a series [N, 8, 36]."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = torch.nn.LSTM(36, 128, batch_first=True)
        self.head = torch.nn.Linear(128, 9)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.cells(series)[0].mean(1))
        return logits


@pytest.mark.slow
def test_an_unrolled_lstm_shrinks_to_a_third_and_is_named_by_the_users_paths(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    torch.manual_seed(0)
    bundle = edgeopt.export(
        Spoken().eval(),
        profile="pixel7",
        formats=("tflite",),
        precision="fp32,int8-dynamic",
        example_inputs=torch.randn(1, 8, 36),
        output=tmp_path / "spoken",
    )
    size = {artifact.precision: artifact.size_bytes for artifact in bundle.artifacts}
    assert size["int8-dynamic"] <= 0.35 * size["fp32"]
    for artifact in bundle.artifacts:
        assert artifact.status == "verified"
        model = schema.ModelT.InitFromPackedBuf(bundle.artifact_path(artifact).read_bytes(), 0)
        names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
        assert len(set(names)) == len(names)
        assert not [name for name in names if "edgeopt" in name or "torch." in name or "Spoken" in name]
        assert [name for name in names if name.startswith("cells;")]
