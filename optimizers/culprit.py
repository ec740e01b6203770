"""Says in words why a layer loses to int8, from its own numbers.

The part that does the damage (weight, input or output) is the one whose rounding alone costs most; the reason is
looked for in that tensor:

- one channel that reaches far beyond the others sets the step of all of them: one scale serves a whole
  activation;
- a few values far out (largest value ≫ 99.9th percentile) do the same within a tensor;
- a weight's channel with one value far beyond its others (peak ≫ root mean square) rounds those others away;
- values that reach only a few of the least steps that static int8 has are rounded away, whatever their shape;
- else what is left is plain rounding: how many of the 256 levels the bulk of the values uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .precision import LEAST_STEP, LEAST_WEIGHT_STEP
from .sensitivity import LayerDamage, ProbeGraph

# A normal sample of a few thousand values peaks at about 4 times its root mean square; twice that is no accident.
_PEAK_RATIO = 8.0
_CHANNEL_RATIO = 8.0
_TAIL_RATIO = 4.0
# Noise this far below the outputs is nothing to explain, nor is what hardly adds to the noise of all layers.
_HARMLESS_SNR_DB = 40.0
_LEAST_SHARE = 0.03
_NOTABLE_GAIN_DB = 0.5
# Values of one sign have 255 steps, of both 127: with fewer than 64 at least a bit is lost.
_FEW_STEPS = 64.0
_MOST_VALUES = 1_000_000


@dataclass(frozen=True)
class Reason:
    """Why a tensor suffers from int8.

    Attributes:
        kind: ``outlier_channel``, ``outliers``, ``peaks``, ``least_step`` or ``rounding``.
        words: the reason, to follow "because its input".
        figures: the numbers it rests on.
    """

    kind: str
    words: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Culprit:
    """A layer, the part of it that does the damage, and why.

    Attributes:
        gain_db: what keeping this layer alone in float gains on the outputs.
    """

    layer: LayerDamage
    gain_db: float
    part: str
    reason: Reason

    def sentence(self) -> str:
        """The whole of it in one sentence."""
        gain = f" ({self.gain_db:+.1f} dB when it stays in float)" if self.gain_db >= _NOTABLE_GAIN_DB else ""
        return (
            f"{self.layer.path} ({self.layer.operator}) alone takes the outputs down to {self.layer.snr_db:.1f} dB{gain} "
            f"because its {self.part} {self.reason.words}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "layer": self.layer.name,
            "path": self.layer.path,
            "gain_db": self.gain_db,
            "part": self.part,
            "reason": self.reason.kind,
            "figures": self.reason.figures,
            "sentence": self.sentence(),
        }


def suspects(layers: Sequence[LayerDamage], most: int) -> list[LayerDamage]:
    """The layers, at most ``most``, that make up a notable part of the noise of all."""
    noise = [10.0 ** (-layer.snr_db / 10.0) for layer in layers]
    least = _LEAST_SHARE * sum(noise)
    found = [
        layer
        for layer, own in zip(layers, noise, strict=True)
        if own >= least and layer.snr_db < _HARMLESS_SNR_DB
    ]
    return sorted(found, key=lambda layer: layer.snr_db)[:most]


def find_culprit(graph: ProbeGraph, layer: LayerDamage, all_int8_snr_db: float) -> Culprit:
    """Name the part of ``layer`` that does the damage, and why.

    Args:
        all_int8_snr_db: SNR of the outputs with every layer quantised.
    """
    parts = {
        "weight": layer.weight_snr_db,
        "input": layer.input_snr_db,
        "output": layer.output_snr_db,
    }
    part = min((name for name, snr in parts.items() if snr is not None), key=lambda name: parts[name] or 0.0)
    gain = graph.snr_db(kept_float=(layer.name,)) - all_int8_snr_db
    if part == "weight":
        reason = weight_reason(graph.weight_of(layer.name))
    else:
        node = graph.layers[layer.name].output if part == "output" else graph.worst_input(layer.name)
        values = graph.values_at(node)
        reason = activation_reason(values, graph.scale_of(node), _channel_axis(layer.operator, values))
    return Culprit(layer, gain, part, reason)


def activation_reason(
    values: Sequence[torch.Tensor], scale: tuple[float, int] | None, channel_axis: int | None
) -> Reason:
    """Why an activation suffers.

    Args:
        values: what it held, a tensor a sample.
        scale: its scale and zero point.
        channel_axis: where its channels stand; None when it has none.
    """
    flat = torch.cat([value.detach().float().flatten() for value in values]).abs()
    largest = float(flat.max()) if flat.numel() else 0.0
    if scale is not None and _at_least_step(scale[0], largest):
        return _too_small(largest, LEAST_STEP)
    if channel_axis is not None and values[0].shape[channel_axis] > 1:
        axis = channel_axis % values[0].ndim
        others = [i for i in range(values[0].ndim) if i != axis]
        per_channel = torch.stack([v.detach().float().abs().amax(others) for v in values]).amax(0)
        typical, worst = float(per_channel.median()), int(per_channel.argmax())
        ratio = largest / typical if typical > 0 else float("inf")
        if ratio >= _CHANNEL_RATIO:
            count = int((per_channel >= _CHANNEL_RATIO * typical).sum())
            which = (
                f"one outlier channel ({worst})" if count == 1 else f"{count} outlier channels (e.g. {worst})"
            )
            words = f"has {which}: it reaches {largest:.3g}, {ratio:.3g} times the median channel's range"
            return Reason(
                "outlier_channel",
                words,
                {"channel": worst, "ratio": ratio, "largest": largest, "count": count},
            )
    usual = _percentile(flat, 99.9)
    if largest > 0 and (usual == 0 or largest / usual >= _TAIL_RATIO):
        ratio = largest / usual if usual else float("inf")
        words = f"has outliers: it reaches {largest:.3g}, {ratio:.3g} times its 99.9th percentile"
        return Reason("outliers", words, {"ratio": ratio, "largest": largest, "percentile_99_9": usual})
    return _levels(flat, scale[0] if scale else 2 * largest / 255)


def _at_least_step(scale: float, largest: float) -> bool:
    """Whether the values would need steps that are finer by half or more, and int8 has none."""
    return scale <= LEAST_STEP * (1 + 1e-6) and largest < _FEW_STEPS * LEAST_STEP


def _too_small(largest: float, least: float) -> Reason:
    steps = largest / least
    words = (
        f"reaches only {largest:.3g}, {steps:.3g} steps of {least:.3g}, the least that static int8 has: load "
        "trained weights, scale it up, or keep the layer in float"
    )
    return Reason("least_step", words, {"step": least, "largest": largest, "steps_of_largest": steps})


def weight_reason(weight: torch.Tensor) -> Reason:
    """Why a weight [out, ...] with one scale an output channel suffers."""
    rows = weight.detach().float().reshape(weight.shape[0], -1).abs()
    peak, rms = rows.amax(1), rows.square().mean(1).sqrt()
    if float(peak.median()) < _FEW_STEPS * LEAST_WEIGHT_STEP:  # of most channels
        return _too_small(float(peak.max()), LEAST_WEIGHT_STEP)
    ratio = torch.where(rms > 0, peak / rms.clamp_min(1e-30), torch.zeros_like(rms))
    worst = int(ratio.argmax())
    if float(ratio[worst]) >= _PEAK_RATIO:
        count = int((ratio >= _PEAK_RATIO).sum())
        which = f"one outlier channel ({worst})" if count == 1 else f"{count} outlier channels (e.g. {worst})"
        words = f"has {which}: its largest value is {float(ratio[worst]):.3g} times the root mean square of its channel"
        return Reason("peaks", words, {"channel": worst, "ratio": float(ratio[worst]), "count": count})
    per_channel = rows.shape[1]
    words = f"is rounded to 255 levels a channel, with no outlier to blame ({per_channel} values a channel)"
    return Reason("rounding", words, {"values_per_channel": per_channel, "peak_to_rms": float(ratio.max())})


def _levels(flat: torch.Tensor, scale: float) -> Reason:
    bulk = _percentile(flat, 50.0)
    levels = bulk / scale if scale > 0 else 0.0
    words = (
        f"is rounded in steps of {scale:.3g}, {levels:.1f} of which make its median value: its range is wide for what "
        "it mostly holds"
        if levels < 2.0
        else f"is rounded in steps of {scale:.3g}, with no outlier to blame"
    )
    return Reason("rounding", words, {"step": scale, "steps_of_median": levels})


def _percentile(flat: torch.Tensor, percent: float) -> float:
    """A percentile of ``flat``, from an even sample of it when it is large."""
    if not flat.numel():
        return 0.0
    sample = flat[:: max(1, flat.numel() // _MOST_VALUES)]
    rank = max(1, min(sample.numel(), round(percent / 100.0 * sample.numel())))
    return float(sample.kthvalue(rank).values)


def _channel_axis(operator: str, values: Sequence[torch.Tensor]) -> int | None:
    """Channels stand first behind the batch where there are convolutions, last elsewhere."""
    if not values or values[0].ndim < 2:
        return None
    if operator.startswith("conv") or values[0].ndim == 4:
        return 1
    return -1
