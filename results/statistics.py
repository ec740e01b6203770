"""Whether two files differ in speed, from rounds in which both were run side by side.

Each round starts fresh processes and alternates short slices of A and B, so that whatever else the machine
does falls on both; a round's figure is the median over its slices of log(B / A). Rounds are the independent
observations: their mean has a Student t interval. One interval says what is known; a *verdict* needs more:
the interval must clear a margin, and a second, independent set of rounds must say the same, because a
difference is measured again before it is called one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..android_harness.sampling import t975


@dataclass(frozen=True)
class Ratio:
    """B's time over A's: estimate and 95% interval; ``rounds`` fresh-process rounds stand behind it."""

    value: float
    low: float
    high: float
    rounds: int

    @property
    def half_width(self) -> float:
        """Half the interval's width over the estimate."""
        return (self.high - self.low) / 2 / self.value

    def excludes_equality(self, margin: float) -> int:
        """+1 if B is slower beyond the margin, -1 if faster, 0 if the interval doesn't allow to say."""
        if self.low > 1 + margin:
            return 1
        if self.high < 1 / (1 + margin):
            return -1
        return 0


def round_log_ratio(a_ms: Sequence[Sequence[float]], b_ms: Sequence[Sequence[float]]) -> float:
    """One round: the median over slices of log(median B / median A).

    Args:
        a_ms, b_ms: for each slice the run times in ms; slice i of both ran next to each other.
    """
    logs = [
        math.log(float(np.median(b)) / float(np.median(a)))
        for a, b in zip(a_ms, b_ms, strict=True)
        if a and b
    ]
    return float(np.median(logs))


def ratio_of_rounds(log_ratios: Sequence[float]) -> Ratio:
    """The ratio and its t interval over rounds. Infinite interval with one round."""
    values = np.asarray(log_ratios, dtype=np.float64)
    center = float(values.mean())
    if len(values) < 2:
        return Ratio(math.exp(center), 0.0, math.inf, len(values))
    half = t975(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Ratio(math.exp(center), math.exp(center - half), math.exp(center + half), len(values))


def verdict(first: Ratio, second: Ratio | None, pooled: Ratio, margin: float) -> str:
    """``"slower"``, ``"faster"``, ``"same"`` or ``"undecided"`` for B against A.

    "same" needs the whole interval within the margin; "slower"/"faster" need both sets of rounds and the
    pooled interval to exclude it on the same side.
    """
    side = first.excludes_equality(margin)
    if side and second is not None:
        if second.excludes_equality(margin) == side == pooled.excludes_equality(margin):
            return "slower" if side > 0 else "faster"
        return "undecided"
    if pooled.low >= 1 / (1 + margin) and pooled.high <= 1 + margin:
        return "same"
    return "undecided"
