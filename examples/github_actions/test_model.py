"""An app's test of its model on an emulated phone: pytest test_model.py --edgeopt-profile pixel7."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

MODEL = Path(__file__).parents[1] / "models" / "classifier.tflite"
GOLDEN = Path(__file__).parents[1] / "models" / "golden.npz"  # arrays "input" and "output"


def test_model(edgeopt_emulator: Callable, assert_parity: Callable, assert_budget: Callable) -> None:
    golden = np.load(GOLDEN)
    run = edgeopt_emulator(MODEL, [golden["input"]])
    assert_parity(run, golden["output"])
    # Instructions are exact: the same in every run and on every machine. The latency is an estimate, and
    # the upper end of its band is what has to fit.
    assert_budget(run, instructions=3_000_000, latency_ms=5)
