"""Mixed precision: static int8 with the layers in float that the goal needs, and no more.

Each layer's noise is measured alone (``sensitivity``), the layers are lined up by noise for what keeping them costs,
the shortest beginning of that line that reaches the goal is looked for, and what turns out not to be needed goes
back to int8, the dearest first. What a layer costs is the time that the profile is predicted to lose to it in float;
without a profile its multiply-accumulates stand for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..device_profiles import DeviceProfile
from ..errors import EdgeoptError
from ..models.data import Sample
from ..models.program import Capture
from .annotation import make_quantizer
from .cleanup import FoldBatchNorm
from .cost import predicted_node_ms
from .observers import ObserverName
from .passes import Context, OptimizedModel
from .quantization import calibration_samples, check_calibration_options, prepare_static
from .registry import name_recipe, recipe_pass, register
from .sensitivity import PROBE_SAMPLES, LayerDamage, ProbeGraph, spread_samples

# Every layer in float costs at least its borders: a dequantisation before it and a quantisation behind it.
_BORDER_COST = 0.005
# With a task metric the outputs need only be as near as a file's check wants them, with a margin for the kernels.
_SNR_WITH_METRIC_DB = 16.0
_MOST_RETURNS = 24


@recipe_pass("quantize_mixed", precision="mixed")
@dataclass(frozen=True)
class QuantizeMixed:
    """Static int8, except for the layers that must stay in float32 to reach the goal.

    Attributes:
        goal_snr_db: SNR that the outputs must keep where no task metric is given.
        max_accuracy_drop: how far the task metric may fall where one is given (0.005 is half a percentage point).
        samples: calibration samples to use at most.
        observer: how the range of an activation is found; see ``observers``.
        percentile: for the percentile observer.
    """

    goal_snr_db: float = 20.0
    max_accuracy_drop: float = 0.005
    samples: int = 128
    observer: ObserverName = "histogram"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        check_calibration_options(self.samples, self.percentile)
        if not 0.0 <= self.max_accuracy_drop <= 1.0:
            raise ValueError(f"max_accuracy_drop must be between 0 and 1, found {self.max_accuracy_drop}")


name_recipe("mixed", FoldBatchNorm(), QuantizeMixed())


@register(QuantizeMixed)
def _mixed(config: QuantizeMixed, model: OptimizedModel, context: Context) -> OptimizedModel:
    samples = calibration_samples(context, config.samples)
    context.progress(f"calibrating on {len(samples)} samples")
    prepared = prepare_static(
        model.capture, samples, per_channel=True, observer=config.observer, percentile=config.percentile
    )
    probe = ProbeGraph(model.capture, prepared, spread_samples(samples, PROBE_SAMPLES))
    goal, goal_words = _goal(config, probe, context)
    before_db = probe.snr_db()
    layers = []
    for index, layer in enumerate(probe.layers.values(), 1):
        context.progress(f"layer {index} of {len(probe.layers)}: {layer.name}")
        layers.append(probe.damage(layer))
    costs = float_costs(model.capture, layers, context.profile)
    kept = choose_float_layers(layers, goal, costs)
    context.progress(f"{len(kept)} of {len(layers)} layers stay in float")
    final = keep_in_float(model.capture, prepared, samples, config, kept) if kept else prepared
    figures = _figures(layers, kept, before_db, probe.snr_db(kept_float=kept), goal_words)
    figures["int8_time_saving_kept"] = 1.0 - sum(costs[name] for name in kept)
    figures["cost_basis"] = (
        f"predicted on {context.profile.name}" if context.profile else "multiply-accumulates"
    )
    return replace(
        model,
        precision="mixed",
        prepared=final,
        changes=(*model.changes, _change(layers, kept, figures)),
        figures={**model.figures, "quantize_mixed": figures},
    )


def float_costs(
    capture: Capture, layers: Sequence[LayerDamage], profile: DeviceProfile | None
) -> dict[str, float]:
    """Layer -> share of the model's time that it costs to keep it in float: predicted, or by multiply-accumulates."""
    total = sum(layer.macs for layer in layers) or 1
    shares = {layer.name: layer.macs / total for layer in layers}
    if profile is None:
        return shares
    try:
        in_float, in_int8 = (
            predicted_node_ms(capture.program, profile, precision) for precision in ("fp32", "int8-static")
        )
    except EdgeoptError:
        return shares
    saved = {
        layer.name: max(0.0, in_float.get(layer.name, 0.0) - in_int8.get(layer.name, 0.0)) for layer in layers
    }
    whole = sum(saved.values())
    return {name: value / whole for name, value in saved.items()} if whole else shares


def choose_float_layers(
    layers: Sequence[LayerDamage],
    goal: Callable[[Collection[str]], bool],
    costs: Mapping[str, float] | None = None,
) -> list[str]:
    """The layers to keep in float, at least cost, so that ``goal(kept)`` holds.

    Args:
        layers: the damage of each.
        goal: whether the model is good enough with these layers in float; it is asked some log2(n) + 24 times.
        costs: share of the time that each layer costs in float; by default that of its multiply-accumulates.
    """
    total = sum(layer.macs for layer in layers) or 1
    shares = costs if costs is not None else {layer.name: layer.macs / total for layer in layers}

    def cost(layer: LayerDamage) -> float:
        return shares[layer.name] + _BORDER_COST

    def noise(layer: LayerDamage) -> float:
        return math.pow(10.0, -layer.snr_db / 10.0)

    line = sorted(layers, key=lambda layer: noise(layer) / cost(layer), reverse=True)
    names = [layer.name for layer in line]
    enough = _shortest(len(names), lambda count: goal(names[:count]))
    kept = line[:enough]
    for layer in sorted(kept, key=cost, reverse=True)[:_MOST_RETURNS]:
        without = [other for other in kept if other is not layer]
        if goal([other.name for other in without]):
            kept = without
    return [layer.name for layer in kept]


def _shortest(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest count from 0 to ``most`` that holds, if what holds goes on to hold: galloping, then halving."""
    low, high = -1, 0
    while high < most and not holds(high):
        low, high = high, min(most, max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def keep_in_float(
    capture: Capture,
    prepared: torch.fx.GraphModule,
    samples: Sequence[Sample],
    config: QuantizeMixed,
    kept: Collection[str],
) -> torch.fx.GraphModule:
    """The captured graph prepared anew with ``kept`` in float, with the ranges that ``prepared`` has found."""
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    quantizer = make_quantizer(observer=config.observer, percentile=config.percentile, keep_float=kept)
    anew: torch.fx.GraphModule = prepare_pt2e(capture.program.module(), quantizer)
    known = {node.args[0].name: getattr(prepared, node.target) for node in _observations(prepared)}
    nodes = list(_observations(anew))
    if any(node.args[0].name not in known for node in nodes):
        return prepare_static(
            capture,
            samples,
            per_channel=True,
            observer=config.observer,
            percentile=config.percentile,
            keep_float=kept,
        )
    for node in nodes:
        setattr(anew, node.target, known[node.args[0].name])
    return anew


def _observations(prepared: torch.fx.GraphModule) -> list[Any]:
    modules = dict(prepared.named_modules(remove_duplicate=False))
    return [
        node
        for node in prepared.graph.nodes
        if node.op == "call_module" and hasattr(modules[node.target], "calculate_qparams")
    ]


def _goal(
    config: QuantizeMixed, probe: ProbeGraph, context: Context
) -> tuple[Callable[[Collection[str]], bool], str]:
    evaluation = context.evaluation
    if evaluation is None:
        return (
            lambda kept: probe.snr_db(kept_float=kept) >= config.goal_snr_db,
            f"SNR of at least {config.goal_snr_db:g} dB",
        )

    def metric(kept: Collection[str]) -> float:
        return probe.metric(evaluation, quantized=set(probe.layers) - set(kept))[0]

    context.progress(f"{evaluation.metric} in float")
    least = metric(list(probe.layers))
    least -= config.max_accuracy_drop * (1.0 if abs(least) <= 1.0 else abs(least))

    def holds(kept: Collection[str]) -> bool:
        if probe.snr_db(kept_float=kept) < _SNR_WITH_METRIC_DB:
            return False
        context.progress(f"{evaluation.metric} with {len(kept)} layers in float")
        return metric(kept) >= least

    return holds, f"{evaluation.metric} of at least {least:.4f}"


def _figures(
    layers: Sequence[LayerDamage], kept: Collection[str], before_db: float, after_db: float, goal: str
) -> dict[str, Any]:
    macs, weights = sum(layer.macs for layer in layers), sum(layer.weight_elements for layer in layers)
    left = [layer for layer in layers if layer.name in kept]
    return {
        "goal": goal,
        "kept_float": [layer.path for layer in left],
        "kept_float_nodes": [layer.name for layer in left],
        "int8_macs_ratio": 1.0 - sum(layer.macs for layer in left) / macs if macs else 1.0,
        "int8_weights_ratio": 1.0 - sum(layer.weight_elements for layer in left) / weights
        if weights
        else 1.0,
        "all_int8_snr_db": before_db,
        "snr_db": after_db,
    }


def _change(layers: Sequence[LayerDamage], kept: Collection[str], figures: dict[str, Any]) -> str:
    if not kept:
        return f"int8 everywhere: {figures['goal']} holds with no layer in float ({figures['snr_db']:.1f} dB)"
    names = ", ".join(dict.fromkeys(figures["kept_float"]))
    saving = f"{figures['int8_time_saving_kept']:.0%} of what int8 saves in time ({figures['cost_basis']})"
    return (
        f"int8 but for {len(kept)} of {len(layers)} layers, which stay in float32 for an {figures['goal']}: {names}; "
        f"{saving} and {figures['int8_weights_ratio']:.1%} of the "
        f"weights of plain int8 are kept; SNR {figures['all_int8_snr_db']:.1f} → {figures['snr_db']:.1f} dB"
    )
