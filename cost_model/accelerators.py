"""GPUs and NPUs: a figure only where models like this one were measured on the same chip, else the reason for none.

accelerators.json (benchmarks/accelerator_summary.py) holds one line a chip, library and precision: latency over
multiply-accumulates of published convolutional models, and a band from leaving each of them out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .kernels import Kernel, total_macs

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile

_CONVOLUTIONS = ("conv", "depthwise", "pointwise", "grouped")
_ALIKE = 0.9


@dataclass(frozen=True)
class AcceleratorEstimate:
    """What is known of a model on one accelerator of a profile; without a figure, ``sentence`` says why.

    ``via`` is the library that was measured, which need not be one that edgeopt's files reach it by.
    """

    name: str
    kind: str
    sentence: str
    latency_ms: float | None = None
    band80: tuple[float, float] | None = None
    grade: str | None = None
    via: str | None = None
    precision: str | None = None
    models: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@cache
def _lines() -> list[dict[str, Any]]:
    text = Path(__file__).with_name("accelerators.json").read_text(encoding="utf-8")
    lines: list[dict[str, Any]] = json.loads(text)["lines"]
    return lines


def accelerator_estimates(profile: DeviceProfile, kernels: Sequence[Kernel]) -> list[AcceleratorEstimate]:
    """One entry for each accelerator of the profile and each library it was measured with."""
    found: list[AcceleratorEstimate] = []
    for each in profile.accelerators:
        lines = [
            line for line in _lines() if line["kind"] == each.kind and line["chip"] in profile.soc.lower()
        ]
        reason = (
            _unlike(lines[0], kernels) if lines else f"no measured model of this chip's {each.kind} is known"
        )
        if reason:
            sentence = f"{each.name} ({each.kind}): no estimate, because {reason}"
            found.append(AcceleratorEstimate(each.name, each.kind, sentence))
            continue
        found += [_figure(each.name, each.kind, line, total_macs(kernels)) for line in lines]
    return found


def _unlike(line: dict[str, Any], kernels: Sequence[Kernel]) -> str | None:
    macs = total_macs(kernels)
    convolutions = sum(kernel.macs for kernel in kernels if kernel.kind in _CONVOLUTIONS)
    if convolutions < _ALIKE * macs or not macs:
        return "the models measured there are convolutional and this one isn't"
    if not line["least_macs"] <= macs <= line["most_macs"]:
        return (
            f"the models measured there have {line['least_macs'] / 1e6:,.0f} to {line['most_macs'] / 1e6:,.0f} million "
            f"multiply-accumulates and this one has {macs / 1e6:,.1f}"
        )
    return None


def _figure(name: str, kind: str, line: dict[str, Any], macs: int) -> AcceleratorEstimate:
    latency_ms = math.exp(line["intercept"] + line["slope"] * math.log(macs))
    low, high = (latency_ms * factor for factor in line["band"])
    return AcceleratorEstimate(
        name=name,
        kind=kind,
        sentence=f"{name} ({kind}): {latency_ms:.3g} ms in {line['precision']} ({low:.3g} to {high:.3g}) with {line['via']}, "
        f"transferred from {line['models']} published models on this chip by their multiply-accumulates alone",
        latency_ms=latency_ms,
        band80=(low, high),
        grade="transferred",
        via=line["via"],
        precision=line["precision"],
        models=line["models"],
    )
