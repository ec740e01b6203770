"""A quantised file that is expected to be slower than the float32 one beside it says so."""

from __future__ import annotations

from typing import Any

import pytest

from edgeopt.record import warn_of_slower


def _artifact(file: str, precision: str, *latencies_ms: float) -> dict[str, Any]:
    return {
        "file": file, "format": file.rpartition(".")[2], "precision": precision, "warnings": [],
        "predicted": [{"latency_ms": each} for each in latencies_ms],
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


def test_without_a_float_file_nothing_is_said() -> None:
    artifacts = [
        _artifact("model.int8-static.pte", "int8-static", 5.0),
        _artifact("model.tflite", "fp32", 0.1),
    ]
    warn_of_slower(artifacts)
    assert not any(each["warnings"] for each in artifacts)
