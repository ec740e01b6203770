"""How the range of an activation is found from samples: four observers, on torchao's where it has one.

Each gives a scale s and a zero point z for q = clamp(round(x / s) + z, -128, 127) from what it saw:

- ``histogram``: the range whose squared quantisation error over the histogram is least (torchao's
  HistogramObserver; it clips outliers when that pays).
- ``min-max``: from the smallest to the largest value ever seen.
- ``moving-average``: minimum and maximum averaged over the samples, m ← m + 0.1 · (x − m).
- ``percentile``: what is left when (100 − p)/2 percent of the values are cut off at either end.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch

from ..errors import InputError
from .precision import LEAST_STEP

if TYPE_CHECKING:
    from torchao.quantization.pt2e.observer import HistogramObserver

ObserverName = Literal["histogram", "min-max", "moving-average", "percentile"]
_AVERAGING = 0.1


def check_observer(name: str) -> ObserverName:
    """``name`` if an observer bears it.

    Raises:
        InputError: none does.
    """
    if name not in get_args(ObserverName):
        raise InputError(f"unknown observer {name!r}: use one of {', '.join(get_args(ObserverName))}.")
    return cast(ObserverName, name)


def activation_observer(name: ObserverName, percentile: float = 99.99) -> Any:
    """The constructor of an observer, as a ``QuantizationSpec`` takes it.

    Args:
        percentile: share of the values, in percent, that the range of the percentile observer holds.
    """
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver

    if name == "min-max":
        return MinMaxObserver.with_args(eps=LEAST_STEP)
    if name == "moving-average":
        return MovingAverageMinMaxObserver.with_args(averaging_constant=_AVERAGING, eps=LEAST_STEP)
    if name == "percentile":
        return _percentile_observer().with_args(percentile=percentile, eps=LEAST_STEP)
    return HistogramObserver.with_args(eps=LEAST_STEP)


@cache
def _percentile_observer() -> type[HistogramObserver]:
    """The class is made when it is first needed: torchao takes seconds to import."""
    from torchao.quantization.pt2e import HistogramObserver

    class PercentileObserver(HistogramObserver):
        """A histogram whose two tails are cut off alike."""

        def __init__(self, percentile: float = 99.99, **options: Any) -> None:
            super().__init__(**options)
            self.register_buffer("percentile", torch.tensor(percentile, dtype=torch.float64))

        def _non_linear_param_search(self) -> tuple[torch.Tensor, torch.Tensor]:
            return percentile_range(self.histogram, self.min_val, self.max_val, float(self.percentile))

    return PercentileObserver


def percentile_range(
    histogram: torch.Tensor, low: torch.Tensor, high: torch.Tensor, percentile: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The borders of the bins that hold the middle ``percentile`` percent of what a histogram counted.

    Args:
        histogram: counts of bins of equal width from ``low`` to ``high``.
    """
    share = torch.cumsum(histogram.double(), 0) / histogram.double().sum()
    tail = (100.0 - percentile) / 200.0
    width = (high - low) / len(histogram)
    first = int(torch.searchsorted(share, torch.tensor(tail, dtype=torch.float64), right=True))
    last = int(torch.searchsorted(share, torch.tensor(1.0 - tail, dtype=torch.float64)))
    last = min(max(last, first), len(histogram) - 1)
    return low + first * width, low + (last + 1) * width
