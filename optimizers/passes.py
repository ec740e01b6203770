"""Runs recipes: each pass config has one function registered for it, as torchao's ``quantize_`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError
from ..models.data import Sample
from ..models.program import Capture
from .capabilities import KIND_OF_PRECISION
from .cleanup import fold_batch_norm
from .quantization import check_half_range, prepare_static
from .recipe import CastToHalf, FoldBatchNorm, Pass, QuantizeDynamic, QuantizeStatic, Recipe

Progress = Callable[[str], None]


@dataclass(frozen=True)
class OptimizedModel:
    """What a recipe made of a capture, still without a format.

    Attributes:
        precision: canonical name of the precision.
        capture: the captured program, possibly rewritten.
        prepared: for static int8, the graph with its calibrated observers; shared, never mutated.
        changes: what each pass did, in words.
    """

    capture: Capture
    precision: str = "fp32"
    prepared: torch.fx.GraphModule | None = None
    changes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """dense, half, format or pt2e; see ``capabilities``."""
        return KIND_OF_PRECISION[self.precision]


@dataclass(frozen=True)
class _Context:
    calibration: Sequence[Sample] | None
    progress: Progress


_Handler = Callable[[Any, OptimizedModel, _Context], OptimizedModel]
_HANDLERS: dict[type, _Handler] = {}


def register(config: type) -> Callable[[_Handler], _Handler]:
    """Register the function that applies passes of this config type."""

    def keep(handler: _Handler) -> _Handler:
        _HANDLERS[config] = handler
        return handler

    return keep


class Optimizer:
    """Applies recipes to one capture; recipes that begin alike share the beginning.

    Args:
        capture: the captured model.
        calibration: samples for static int8, or None.
        progress: called with what is being done.
    """

    def __init__(
        self, capture: Capture, calibration: Sequence[Sample] | None = None, progress: Progress | None = None
    ) -> None:
        self._context = _Context(calibration, progress or (lambda what: None))
        self._done: dict[tuple[Pass, ...], OptimizedModel] = {(): OptimizedModel(capture)}

    def run(self, recipe: Recipe) -> OptimizedModel:
        """Apply ``recipe``.

        Raises:
            InputError: static int8 without calibration data, or weights that float16 can't hold.
        """
        for end in range(1, len(recipe.passes) + 1):
            passes = recipe.passes[:end]
            if passes not in self._done:
                config = passes[-1]
                self._done[passes] = _HANDLERS[type(config)](config, self._done[passes[:-1]], self._context)
        return self._done[recipe.passes]


@register(FoldBatchNorm)
def _fold(config: FoldBatchNorm, model: OptimizedModel, context: _Context) -> OptimizedModel:
    program, count = fold_batch_norm(model.capture.program)
    if not count:
        return model
    return replace(
        model,
        capture=replace(model.capture, program=program),
        changes=(*model.changes, f"folded {count} batch normalisations into convolutions"),
    )


@register(CastToHalf)
def _half(config: CastToHalf, model: OptimizedModel, context: _Context) -> OptimizedModel:
    check_half_range(model.capture.program)
    return replace(model, precision="fp16", changes=(*model.changes, "weights and arithmetic in float16"))


@register(QuantizeDynamic)
def _dynamic(config: QuantizeDynamic, model: OptimizedModel, context: _Context) -> OptimizedModel:
    change = "int8 weights, activations quantised at run time"
    return replace(model, precision="int8-dynamic", changes=(*model.changes, change))


@register(QuantizeStatic)
def _static(config: QuantizeStatic, model: OptimizedModel, context: _Context) -> OptimizedModel:
    if not context.calibration:
        raise InputError(
            "static int8 needs calibration data to find the range of each activation: give --calibration "
            "FILE.npz or module:function, or choose --precision int8-dynamic."
        )
    samples = context.calibration[: config.samples]
    context.progress(f"calibrating on {len(samples)} samples")
    prepared = prepare_static(model.capture, samples, per_channel=config.per_channel)
    granularity = "channel" if config.per_channel else "tensor"
    change = f"int8 weights per {granularity}, activation ranges from {len(samples)} samples"
    return replace(model, precision="int8-static", prepared=prepared, changes=(*model.changes, change))
