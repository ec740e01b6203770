"""Quantisation of captured programs with PT2E and XNNPACK's quantizer.

Affine quantisation throughout: q = round(x / s) + z, clamped to [-128, 127]; weights symmetric (z = 0), one
scale an output channel; activations asymmetric, one scale a tensor (Jacob et al., 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from ..errors import InputError
from ..models.data import Sample
from ..models.program import Capture
from ..models.state import preserved
from .annotation import make_quantizer
from .bias_range import leave_room_for_biases
from .cleanup import FoldBatchNorm
from .lost_operands import operators_that_lose_an_operand
from .observers import ObserverName
from .passes import Context, OptimizedModel
from .registry import name_recipe, recipe_pass, register

_HALF_MAX = 65504.0


@recipe_pass("cast_to_half", precision="fp16")
@dataclass(frozen=True)
class CastToHalf:
    """Weights and arithmetic in float16; inputs and outputs stay float32."""


@recipe_pass("quantize_dynamic", precision="int8-dynamic")
@dataclass(frozen=True)
class QuantizeDynamic:
    """int8 weights per channel; activations quantised at run time."""


@recipe_pass("quantize_static", precision="int8-static")
@dataclass(frozen=True)
class QuantizeStatic:
    """int8 weights and activations, activation ranges from calibration samples.

    Attributes:
        per_channel: one weight scale an output channel instead of one a tensor.
        samples: calibration samples to use at most.
        observer: how the range of an activation is found from them; see ``observers``.
        percentile: share of the values, in percent, that the range of the percentile observer holds.
    """

    per_channel: bool = True
    samples: int = 128
    observer: ObserverName = "histogram"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        check_calibration_options(self.samples, self.percentile)


def check_calibration_options(samples: int, percentile: float) -> None:
    """Refuse what no calibration could use.

    Raises:
        ValueError: in words.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, found {samples}")
    if not 50.0 < percentile <= 100.0:
        raise ValueError(f"percentile must be above 50 and at most 100, found {percentile}")


name_recipe("fp16", FoldBatchNorm(), CastToHalf())
name_recipe("int8-dynamic", FoldBatchNorm(), QuantizeDynamic())
name_recipe("int8-static", FoldBatchNorm(), QuantizeStatic())


@register(CastToHalf)
def _half(config: CastToHalf, model: OptimizedModel, context: Context) -> OptimizedModel:
    check_half_range(model.capture.program)
    return replace(model, precision="fp16", changes=(*model.changes, "weights and arithmetic in float16"))


@register(QuantizeDynamic)
def _dynamic(config: QuantizeDynamic, model: OptimizedModel, context: Context) -> OptimizedModel:
    change = "int8 weights, activations quantised at run time"
    return replace(model, precision="int8-dynamic", changes=(*model.changes, change))


@register(QuantizeStatic)
def _static(config: QuantizeStatic, model: OptimizedModel, context: Context) -> OptimizedModel:
    samples = calibration_samples(context, config.samples)
    context.progress(f"calibrating on {len(samples)} samples")
    prepared = prepare_static(
        model.capture,
        samples,
        per_channel=config.per_channel,
        observer=config.observer,
        percentile=config.percentile,
    )
    granularity = "channel" if config.per_channel else "tensor"
    change = (
        f"int8 weights per {granularity}, activation ranges ({config.observer}) from {len(samples)} samples"
    )
    return replace(model, precision="int8-static", prepared=prepared, changes=(*model.changes, change))


def calibration_samples(context: Context, limit: int) -> Sequence[Sample]:
    """The first ``limit`` calibration samples.

    Raises:
        InputError: there are none.
    """
    if not context.calibration:
        raise InputError(
            "static int8 needs calibration data to find the range of each activation: give --calibration "
            "FILE.npz or module:function, or choose --precision int8-dynamic."
        )
    return context.calibration[:limit]


def prepare_static(
    capture: Capture,
    samples: Sequence[Sample],
    *,
    per_channel: bool,
    observer: ObserverName = "histogram",
    percentile: float = 99.99,
    keep_float: Collection[str] = (),
) -> torch.fx.GraphModule:
    """The captured graph with calibrated observers; both formats convert copies of it.

    Args:
        samples: tensors that fit the model's inputs; each is run once.
        per_channel: one weight scale an output channel.
        observer, percentile: how the range of an activation is found.
        keep_float: operators (nodes of the captured graph) that stay in float.
    """
    return _prepare(
        capture,
        samples,
        per_channel=per_channel,
        observer=observer,
        percentile=percentile,
        keep_float=keep_float,
    )


def prepare_dynamic(capture: Capture) -> torch.fx.GraphModule:
    """The captured graph prepared for int8 weights with activations quantised at run time."""
    return _prepare(capture, [capture.source.example], dynamic=True)


def _prepare(capture: Capture, samples: Sequence[Sample], **options: Any) -> torch.fx.GraphModule:
    quantizer = make_quantizer(**options)
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    prepared: torch.fx.GraphModule = prepare_pt2e(capture.program.module(), quantizer)
    # Samples leave their traces in the observers alone, not in a state that the model itself keeps.
    state = [b for name, b in prepared.named_buffers() if name in capture.program.state_dict]
    with torch.no_grad(), preserved(state):
        for sample in samples:
            prepared(*sample)
    kept = set(options.pop("keep_float", ()))
    lost = operators_that_lose_an_operand(prepared) - kept
    if lost:
        return _prepare(capture, samples, keep_float=kept | lost, **options)
    if not options.get("dynamic"):
        leave_room_for_biases(prepared)
    return prepared


def check_half_range(program: ExportedProgram) -> None:
    """Refuse weights that float16 can't hold (|w| > 65,504).

    Raises:
        InputError: naming the first such weight.
    """
    for name, tensor in program.state_dict.items():
        if tensor.is_floating_point() and tensor.numel():
            finite = tensor[torch.isfinite(tensor)]
            largest = float(finite.detach().abs().max()) if finite.numel() else 0.0
            if largest > _HALF_MAX:
                raise InputError(
                    f"weight {name.removeprefix('model.')!r} reaches {largest:.3g}, beyond float16's 65,504: "
                    "choose another precision."
                )
