"""Bias correction: what rounding shifts in the mean of a channel is put right in its bias (Nagel et al., 2019).

b ← b + E[y] − E[ŷ], y and ŷ being the layer's outputs in float and in int8 over calibration samples. Layers are
corrected in the order they run, each behind the corrected ones before it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError
from ..models.data import Sample
from .passes import Context, OptimizedModel
from .quantization import calibration_samples
from .registry import recipe_pass, register
from .sensitivity import ProbeGraph, spread_samples

_WITH_BIAS = ("conv1d", "conv2d", "linear")


@recipe_pass("correct_bias")
@dataclass(frozen=True)
class CorrectBias:
    """Correct the biases of a calibrated int8 model; stands behind quantize_static or quantize_mixed.

    Attributes:
        samples: calibration samples to use at most.
    """

    samples: int = 16

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, found {self.samples}")


@register(CorrectBias)
def _correct(config: CorrectBias, model: OptimizedModel, context: Context) -> OptimizedModel:
    if model.prepared is None:
        raise InputError(
            "correct_bias must stand behind quantize_static or quantize_mixed, whose biases it corrects."
        )
    samples = spread_samples(calibration_samples(context, 1 << 30), config.samples)
    probe = ProbeGraph(model.capture, model.prepared, samples)
    before = probe.snr_db()
    biases = _bias_targets(probe)
    wanted = channel_means(probe, biases, samples, quantized=False)
    corrected = copy.deepcopy(model.prepared)
    largest = 0.0
    for number, (layer, target) in enumerate(biases.items(), 1):
        context.progress(f"correcting biases: layer {number} of {len(biases)}")
        found = channel_means(probe, (layer,), samples, quantized=True)[layer]
        shift = wanted[layer] - found
        largest = max(largest, float(shift.abs().max()))
        for graph in (probe.graph, corrected):
            bias = _attribute(graph, target)
            with torch.no_grad():
                # A tensor of its own: the captured program and other precisions share the old one.
                _replace(graph, target, (bias + shift.to(bias.dtype)).detach())
    after = probe.snr_db()
    if after <= before:
        return replace(
            model,
            changes=(*model.changes, f"left the biases: correcting them gains nothing ({before:.1f} dB)"),
        )
    words = f"corrected the biases of {len(biases)} layers: SNR {before:.1f} → {after:.1f} dB"
    figures = {"layers": len(biases), "snr_db": [before, after], "largest_shift": largest}
    return replace(
        model,
        prepared=corrected,
        changes=(*model.changes, words),
        figures={**model.figures, "correct_bias": figures},
    )


def channel_means(
    probe: ProbeGraph, layers: Collection[str], samples: Sequence[Sample], *, quantized: bool
) -> dict[str, torch.Tensor]:
    """Layer -> mean of each output channel over the samples, in float or with everything quantised."""
    totals: dict[str, torch.Tensor] = {}
    axes = {name: -1 if probe.layers[name].operator == "linear" else 1 for name in layers}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in axes:
                mean = value.detach().double().movedim(axes[n.name], 0).flatten(1).mean(1)
                totals[n.name] = totals.get(n.name, torch.zeros_like(mean)) + mean
            return value

    with probe.switched(list(probe.layers) if quantized else []), torch.no_grad():
        for sample in samples:
            Watch(probe.graph).run(*sample)
    return {name: total / len(samples) for name, total in totals.items()}


def _bias_targets(probe: ProbeGraph) -> dict[str, str]:
    """Layer -> where its bias is kept, for the layers that have one of their own, in the order they run."""
    found = {}
    for node in probe.graph.graph.nodes:
        layer = probe.layers.get(node.name)
        if layer is None or layer.operator not in _WITH_BIAS or len(node.args) < 3:
            continue
        bias = node.args[2]
        if isinstance(bias, torch.fx.Node) and bias.op == "get_attr" and len(bias.users) == 1:
            found[node.name] = str(bias.target)
    return found


def _attribute(graph: torch.fx.GraphModule, target: str) -> torch.Tensor:
    value: Any = graph
    for part in target.split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value


def _replace(graph: torch.fx.GraphModule, target: str, value: torch.Tensor) -> None:
    path, _, name = target.rpartition(".")
    home = graph.get_submodule(path) if path else graph
    if isinstance(getattr(home, name), torch.nn.Parameter):
        setattr(home, name, torch.nn.Parameter(value, requires_grad=False))
    else:
        setattr(home, name, value)
