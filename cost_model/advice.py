"""What takes the time and what would help, in words, from predictions of the alternatives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..wording import counted
from .predict import Estimate, KernelEstimate

_FAMILIES = {
    "conv": ("convolution", "convolutions"), "depthwise": ("depthwise convolution", "depthwise convolutions"),
    "pointwise": ("1×1 convolution", "1×1 convolutions"), "grouped": ("grouped convolution", "grouped convolutions"),
    "linear": ("linear layer", "linear layers"), "matmul": ("product of activations", "products of activations"),
    "pool": ("pool or mean", "pools and means"), "elementwise": ("elementwise kernel", "elementwise kernels"),
    "softmax": ("softmax", "softmaxes"), "norm": ("normalisation", "normalisations"),
    "layout": ("kernel that only moves data", "kernels that only move data"),
    "embedding": ("look-up in a table", "look-ups in tables"), "recurrent": ("recurrent step", "recurrent steps"),
    "other": ("other kernel", "other kernels"),
}  # fmt: skip
_BOUNDS = {
    "compute": "bound by arithmetic",
    "memory": "bound by memory",
    "dispatch": "spent on starting them",
}
# An alternative is worth a word from here, and its failure to help up to there.
_HELPS, _SAME = 1.15, 1.05
_WORTH_NAMING = 0.1


@dataclass(frozen=True)
class Alternative:
    """Another way of running the same model: ``what`` in words ("int8-static", "4 threads")."""

    what: str
    latency_ms: float


def advice(estimate: Estimate, alternatives: Sequence[Alternative]) -> list[str]:
    """Sentences: what most of the time is, what else stands out, and what the alternatives would give."""
    return [_most(estimate), *_also(estimate), *_helps(estimate, alternatives)]


def _most(estimate: Estimate) -> str:
    groups: dict[tuple[str, str], list[KernelEstimate]] = defaultdict(list)
    for each in estimate.kernels:
        groups[each.kernel.kind, each.bound].append(each)
    (kind, bound), members = max(groups.items(), key=lambda item: sum(each.latency_ms for each in item[1]))
    share = sum(each.latency_ms for each in members) / estimate.latency_ms
    count = len(members)
    return f"{share:.0%} of the time is {count} {_FAMILIES[kind][count != 1]} {_BOUNDS[bound]}"


def _also(estimate: Estimate) -> list[str]:
    found = []
    left = [each for each in estimate.kernels if each.kernel.delegate is None]
    left_share = sum(each.latency_ms for each in left) / estimate.latency_ms
    if left and left_share >= _WORTH_NAMING:
        found.append(
            f"{left_share:.0%} is {counted(len(left), 'kernel')} outside XNNPACK, which may take longer than predicted: "
            "edgeopt inspect lists them"
        )
    moving = [each for each in estimate.kernels if each.kernel.kind == "layout"]
    share = sum(each.latency_ms for each in moving) / estimate.latency_ms
    if share >= _WORTH_NAMING and "only move" not in _most(estimate):
        found.append(f"{share:.0%} is {len(moving)} {_FAMILIES['layout'][len(moving) != 1]}")
    starting = sum(each.dispatch_ms for each in estimate.kernels) / estimate.latency_ms
    if starting >= 0.3:
        found.append(f"{starting:.0%} is spent on starting {len(estimate.kernels)} kernels: fewer would help")
    return found


def _helps(estimate: Estimate, alternatives: Sequence[Alternative]) -> list[str]:
    gains = sorted(
        ((estimate.latency_ms / other.latency_ms, other) for other in alternatives), key=lambda pair: -pair[0]
    )
    better = [f"{other.what} would make it {gain:.1f}× faster ({_ms(other.latency_ms)} ms)" for gain, other in gains if gain >= _HELPS]  # fmt: skip
    useless = [other.what for gain, other in gains if gain < _SAME]
    return [*better, *([f"{' and '.join(useless)} would not make it faster"] if useless else [])]


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
