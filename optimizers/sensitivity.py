"""Which layer loses how much to int8: one calibration, then each layer's rounding switched on alone.

A calibrated graph gets a switch in the place of each observer: on, it rounds as the int8 file will (fake
quantisation, x̂ = (clamp(round(x / s) + z) − z) · s); off, it lets the value through. A probe is then one run of
the graph on a few samples, without calibrating or converting anything anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..models.data import Evaluation, Sample
from ..models.predicting import predictor, torch_run
from ..models.program import Capture, module_path
from ..models.workload import node_macs
from ..wording import counted
from .annotation import QuantizedLayer, quantized_layers

PROBE_SAMPLES = 8
EXACT_SNR_DB = 200.0
_WEIGHTED = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "linear")


@dataclass(frozen=True)
class LayerDamage:
    """What int8 does to one operator of a model.

    Attributes:
        name: its node in the captured graph.
        path: the module it came from, or its node where no module bears it.
        operator: ``conv2d``, ``linear``, ``add``, ...
        snr_db: of the model's outputs when this operator alone is quantised; 200 is an exact match.
        weight_snr_db: when only its weight is; None for an operator without one.
        input_snr_db: when only its inputs are.
        output_snr_db: when only its output is.
        macs: multiply-accumulates of one inference.
        weight_elements: of its weight.
        metric: the task metric when this operator alone is quantised, where that was asked for.
    """

    name: str
    path: str
    operator: str
    snr_db: float
    weight_snr_db: float | None
    input_snr_db: float
    output_snr_db: float
    macs: int
    weight_elements: int
    metric: float | None = None


def spread_samples(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    """``count`` samples spread evenly over ``samples``."""
    return samples[:: max(1, len(samples) // count)][:count]


class _Switch(torch.nn.Module):
    """Rounds as int8 does while it is on."""

    def __init__(self, observer: torch.nn.Module) -> None:
        super().__init__()
        scale, zero_point = observer.calculate_qparams()
        self.scale = scale.reshape(-1).float()
        self.zero_point = zero_point.reshape(-1).to(torch.int32)
        self.low, self.high = int(observer.quant_min), int(observer.quant_max)  # type: ignore[arg-type]
        self.axis = int(getattr(observer, "ch_axis", 0)) if self.scale.numel() > 1 else None
        self.on = True

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if not self.on:
            return value
        if self.axis is not None:
            return torch.fake_quantize_per_channel_affine(
                value, self.scale, self.zero_point, self.axis, self.low, self.high
            )
        return torch.fake_quantize_per_tensor_affine(
            value, float(self.scale), int(self.zero_point), self.low, self.high
        )


class ProbeGraph:
    """A calibrated graph whose rounding can be switched layer by layer.

    Args:
        capture: the model the graph was prepared from.
        prepared: the calibrated graph; it is left as it is.
        samples: what a probe runs.
    """

    def __init__(self, capture: Capture, prepared: torch.fx.GraphModule, samples: Sequence[Sample]) -> None:
        self.layers = {layer.name: layer for layer in quantized_layers(prepared)}
        self._capture = capture
        self.samples = samples
        self._graph = copy.deepcopy(prepared)
        self._switches = self._place_switches()
        self._nodes = {node.name: node for node in capture.program.graph.nodes}
        self._constants = {n.name for n in self._graph.graph.nodes if n.op == "get_attr"}
        with self._only(set()):
            self.reference = self._run()
        self._signal = sum(float(t.double().square().sum()) for t in self.reference if t.is_floating_point())

    def snr_db(self, *, kept_float: Collection[str] = ()) -> float:
        """SNR of the outputs with every layer quantised but ``kept_float``."""
        return self._snr_of(self._of_layers(set(self.layers) - set(kept_float)))

    def damage(self, layer: QuantizedLayer) -> LayerDamage:
        """What quantising ``layer`` alone costs, taken apart by its weight, inputs and output."""
        weights = {name for name in layer.inputs if name in self._constants}
        parts = {
            "weight": self._named(weights) if weights and layer.operator in _WEIGHTED else None,
            "input": self._named(set(layer.inputs) - weights),
            "output": self._named({layer.output}),
        }
        snr = {part: None if s is None else self._snr_of(s) for part, s in parts.items()}
        node = self._nodes[layer.name]
        elements = sum(self._constant(name).numel() for name in weights) if layer.operator in _WEIGHTED else 0
        return LayerDamage(
            name=layer.name,
            path=module_path(node) or layer.name,
            operator=layer.operator,
            snr_db=self._snr_of(self._of_layers({layer.name})),
            weight_snr_db=snr["weight"],
            input_snr_db=EXACT_SNR_DB if snr["input"] is None else snr["input"],
            output_snr_db=EXACT_SNR_DB if snr["output"] is None else snr["output"],
            macs=node_macs(node),
            weight_elements=elements,
        )

    @property
    def graph(self) -> torch.fx.GraphModule:
        """The graph with its switches, a copy of the prepared one."""
        return self._graph

    def switched(self, layers: Collection[str]) -> _Switched:
        """A context in which these layers round and no others."""
        return self._only(self._of_layers(set(layers)))

    def metric(self, evaluation: Evaluation, *, quantized: Collection[str]) -> tuple[float, int | None]:
        """The task metric with only these layers in int8, and the sample count.

        Raises:
            InputError: the user's function failed, or gave no finite number.
        """
        whose = (
            f"the model with {counted(len(quantized), 'layer')} in int8" if quantized else "the source model"
        )
        run = torch_run(self.runner(quantized=quantized))
        return evaluation(predictor(self._capture.source, run), whose)

    def runner(self, *, quantized: Collection[str]) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
        """A function that runs the graph with only these layers quantised, for a task metric."""
        switches = self._of_layers(set(quantized))

        def run(sample: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            with self._only(switches), torch.no_grad():
                return [t.detach() for t in self._graph(*sample).values()]

        return run

    def values_at(self, name: str) -> list[torch.Tensor]:
        """What the float graph computes at a node that is rounded, a tensor a sample."""
        switch = self._switches[name]
        # Operators that keep their input's range share its switch, which sees the values of all of them in turn.
        sharing = [node for node, other in self._switches.items() if other is switch]
        seen: list[torch.Tensor] = []
        handle = switch.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
        try:
            with self._only(set()):
                self._run()
        finally:
            handle.remove()
        return seen[sharing.index(name) :: len(sharing)]

    def weight_of(self, layer: str) -> torch.Tensor:
        """The weight of a layer that has one."""
        name = next(n for n in self.layers[layer].inputs if n in self._constants)
        return self._constant(name)

    def worst_input(self, layer: str) -> str:
        """The input of a layer (no weight) whose rounding alone costs most."""
        names = [n for n in self.layers[layer].inputs if n not in self._constants] or [
            self.layers[layer].output
        ]
        if len(names) == 1:
            return names[0]
        return min(names, key=lambda name: self._snr_of(self._named({name})))

    def scale_of(self, name: str) -> tuple[float, int] | None:
        """(scale, zero point) of the value of a node that has one scale; else None."""
        switch = self._switches.get(name)
        if switch is None or switch.axis is not None:
            return None
        return float(switch.scale), int(switch.zero_point)

    def _place_switches(self) -> dict[str, _Switch]:
        """Put a switch in the place of each observer; node whose value it rounds -> switch."""
        made: dict[int, _Switch] = {}
        by_node: dict[str, _Switch] = {}
        modules = dict(self._graph.named_modules(remove_duplicate=False))
        for node in self._graph.graph.nodes:
            if node.op != "call_module" or not hasattr(modules[node.target], "calculate_qparams"):
                continue
            observer = modules[node.target]
            switch = made.setdefault(id(observer), _Switch(observer))
            setattr(self._graph, node.target, switch)
            by_node[node.args[0].name] = switch
        return by_node

    def _named(self, names: Collection[str]) -> set[_Switch]:
        return {self._switches[name] for name in names if name in self._switches}

    def _of_layers(self, layers: Collection[str]) -> set[_Switch]:
        names = [n for name in layers for n in (*self.layers[name].inputs, self.layers[name].output)]
        return self._named(names)

    def _only(self, on: set[_Switch]) -> _Switched:
        return _Switched(set(self._switches.values()), on)

    def _snr_of(self, on: set[_Switch]) -> float:
        if not on:
            return EXACT_SNR_DB
        with self._only(on):
            found = self._run()
        noise = sum(
            float((r.double() - f.double()).square().sum())
            for r, f in zip(self.reference, found, strict=True)
            if r.is_floating_point()
        )
        if not math.isfinite(noise) or self._signal == 0.0:
            return -EXACT_SNR_DB
        if noise == 0.0:
            return EXACT_SNR_DB
        return max(-EXACT_SNR_DB, min(EXACT_SNR_DB, 10.0 * math.log10(self._signal / noise)))

    def _run(self) -> list[torch.Tensor]:
        with torch.no_grad():
            return [t for sample in self.samples for t in self._graph(*sample).values()]

    def _constant(self, name: str) -> torch.Tensor:
        node = next(n for n in self._graph.graph.nodes if n.name == name)
        value: object = self._graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        assert isinstance(value, torch.Tensor)
        return value


class _Switched:
    """While active, only these switches are on."""

    def __init__(self, every: set[_Switch], on: set[_Switch]) -> None:
        self._every, self._on = every, on
        self._before: Mapping[_Switch, bool] = {}

    def __enter__(self) -> None:
        self._before = {switch: switch.on for switch in self._every}
        for switch in self._every:
            switch.on = switch in self._on

    def __exit__(self, *error: object) -> None:
        for switch, on in self._before.items():
            switch.on = on
