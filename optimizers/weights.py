"""Quantisation of weights alone, and of weights below eight bits: the format's own tools carry it out.

w ≈ s · q with q = clamp(round(w / s), −2^(b−1), 2^(b−1) − 1): symmetric, one scale s for each output channel or for
each group of ``group`` weights in a row. Smaller groups follow the weights more closely and cost a scale each
(16 bits a group: half a bit a weight at 32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..errors import InputError
from .cleanup import FoldBatchNorm
from .passes import Context, OptimizedModel
from .quantization import calibration_samples
from .registry import name_recipe, recipe_pass, register

# What the blockwise kernels of both runtimes take.
GROUPS = (0, 32, 64, 128, 256)
_LINEAR = torch.ops.aten.linear.default


def _precision(config: QuantizeWeights) -> str:
    return f"int{config.bits}-{'dynamic' if config.activations == 'int8' else 'weights'}"


@recipe_pass("quantize_weights", precision=_precision)
@dataclass(frozen=True)
class QuantizeWeights:
    """Weights in int8 or int4; the rest stays as it is.

    Attributes:
        bits: 8, or 4 (linear layers; convolutions and embeddings keep 8).
        group: weights in a row that share a scale (32, 64, 128 or 256); 0 is a whole output channel. For int4 with
            int8 activations.
        activations: ``float``, or ``int8`` to quantise the inputs of linear layers at run time.
    """

    bits: Literal[8, 4] = 8
    group: int = 0
    activations: Literal["float", "int8"] = "float"

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"group must be one of {', '.join(map(str, GROUPS))}, found {self.group}")
        if self.group and (self.bits == 8 or self.activations == "float"):
            raise ValueError(
                'group is for bits = 4 with activations = "int8": other kernels take a scale an output channel'
            )


@recipe_pass("quantize_int16", precision="w8a16")
@dataclass(frozen=True)
class QuantizeInt16:
    """int8 weights, int16 activations, ranges from calibration samples: nearly float's accuracy, and slow kernels.

    Attributes:
        samples: calibration samples to use at most.
    """

    samples: int = 32

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, found {self.samples}")


name_recipe("int8-weights", FoldBatchNorm(), QuantizeWeights())
name_recipe("int4-dynamic", FoldBatchNorm(), QuantizeWeights(4, 32, "int8"))
name_recipe("int4-weights", FoldBatchNorm(), QuantizeWeights(4))
name_recipe("w8a16", FoldBatchNorm(), QuantizeInt16())


@register(QuantizeWeights)
def _weights(config: QuantizeWeights, model: OptimizedModel, context: Context) -> OptimizedModel:
    program = model.capture.program
    layers = [node for node in program.graph.nodes if node.target is _LINEAR]
    if config.bits == 4 and not layers:
        raise InputError(
            "int4 is for the weights of linear layers, and the model has none: choose int8-weights or int8-static."
        )
    widths = {int(node.args[1].meta["val"].shape[-1]) for node in layers}
    group = config.group
    odd = sorted(width for width in widths if group and width % group)
    share = f"groups of {group}" if group else "a scale an output channel"
    words = f"int{config.bits} weights of linear layers ({share})" if config.bits == 4 else "int8 weights"
    if config.activations == "int8":
        words += ", activations quantised at run time"
    if odd:
        words += f"; rows of {', '.join(map(str, odd))} weights aren't multiples of {group} and keep int8 a channel"
    precision = _precision(config)
    return replace(model, precision=precision, weight_group=group, changes=(*model.changes, words))


@register(QuantizeInt16)
def _int16(config: QuantizeInt16, model: OptimizedModel, context: Context) -> OptimizedModel:
    samples = calibration_samples(context, config.samples)
    words = f"int8 weights, int16 activations with ranges from {len(samples)} samples"
    warning = (
        "int16 activations run on plain reference kernels, many times slower than int8: for accuracy where time "
        "doesn't matter, or for accelerators that have them"
    )
    return replace(
        model,
        precision="w8a16",
        samples=tuple(samples),
        changes=(*model.changes, words),
        figures={**model.figures, "quantize_int16": {"warnings": [warning]}},
    )
