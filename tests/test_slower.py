"""A quantised file that is expected to be slower than the float32 one beside it says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeopt.gates import artifact_warnings
from edgeopt.record import warn_of_slower


def _artifact(file: str, precision: str, *latencies_ms: float) -> dict[str, Any]:
    return {
        "file": file, "format": file.rpartition(".")[2], "precision": precision, "warnings": [],
        "predicted": [{"latency_ms": each} for each in latencies_ms], "size_bytes": 40 if precision == "fp32" else 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("int8_ms", "warned"),
    [((0.9, 0.5), True), ((0.9, 0.32), False), ((0.2,), False), ((), False)],
    ids=["slower", "about the same", "faster", "not known"],
)
def test_a_slower_file_is_warned_of(int8_ms: tuple[float, ...], warned: bool) -> None:
    artifacts = [
        _artifact("model.pte", "fp32", 0.6, 0.3), _artifact("model.tflite", "fp32", 0.1),
        _artifact("model.int8-static.pte", "int8-static", *int8_ms),
    ]  # fmt: skip
    warn_of_slower(artifacts)
    floats, other, quantized = (each["warnings"] for each in artifacts)
    assert not floats and not other and bool(quantized) == warned
    if warned:
        assert quantized == ["0.5 ms are predicted, 0.3 ms of model.pte: it is smaller, not faster"]


def test_a_larger_file_is_not_called_smaller() -> None:
    """float16 .pte files of convolutions keep float32 weights."""
    artifacts = [
        _artifact("model.pte", "fp32", 0.3), {**_artifact("model.fp16.pte", "fp16", 0.5), "size_bytes": 41}
    ]  # fmt: skip
    warn_of_slower(artifacts)
    assert artifacts[1]["warnings"] == ["0.5 ms are predicted, 0.3 ms of model.pte: it is not faster"]


@dataclass(frozen=True)
class _Made:
    path: Path
    precision: str
    report: dict[str, Any]
    checks: None = None


@pytest.mark.parametrize(
    ("file", "precision", "report", "said"),
    [
        ("model.pte", "int8-dynamic", {"quantized_weights_ratio": 0.0, "weights": {"float32": 20_000}},
         "none of the weights are int8; they stayed float, so the file hardly shrinks"),
        ("model.pte", "int8-dynamic", {"quantized_weights_ratio": 0.6, "quantized_macs_ratio": 0.221},
         ("only 22.1% of the multiply-accumulates are computed in integers; the others are computed in float: smaller, "
         "not faster")),
        ("model.tflite", "int8-dynamic", {"quantized_weights_ratio": 1.0, "quantized_macs_ratio": 0.0},
         ("none of the multiply-accumulates are computed in integers; all of them expand their int8 weights to float: "
         "smaller, not faster")),
        ("model.tflite", "fp16", {"weights": {"float32": 20_000}, "weight_bytes": 80_000},
         "the weights are stored in float32, so the file is not smaller; arithmetic is float32"),
        ("model.pte", "fp16", {"weights": {"float32": 15_000, "float16": 5_000}, "weight_bytes": 70_000},
         "most weights are stored in float32, so the file shrinks less than by half; arithmetic is float16"),
    ],
    ids=["no int8 weights", "float beside int8", "int8 weights in float", "LiteRT's float16", "some in float16"],
)  # fmt: skip
def test_what_is_said_of_a_file_is_true_of_its_format(
    file: str, precision: str, report: dict[str, Any], said: str
) -> None:
    assert artifact_warnings(_Made(Path(file), precision, report), None) == [said]


def test_without_a_float_file_nothing_is_said() -> None:
    artifacts = [
        _artifact("model.int8-static.pte", "int8-static", 5.0),
        _artifact("model.tflite", "fp32", 0.1),
    ]
    warn_of_slower(artifacts)
    assert not any(each["warnings"] for each in artifacts)
