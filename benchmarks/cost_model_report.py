"""Validation of the cost model: rows held out, tables, the plot."""

from __future__ import annotations

import numpy as np


def shares(errors: np.ndarray) -> str:
    """Median error and shares within ±10, ±20 and ±30% of logarithms of predicted over published."""
    off = np.abs(np.exp(errors) - 1)
    within = ", ".join(f"±{limit}%: {100 * np.mean(off <= limit / 100):.0f}%" for limit in (10, 20, 30))
    return f"median {100 * np.median(off):.1f}%, {within} (n = {len(errors)})"
