"""Cross-layer equalisation: the channels between two layers are scaled so that one int8 scale serves them all.

Between a layer and the next, channel j can be divided by any s_j > 0 and multiplied by it again in the next layer's
weights, when what stands between them lets a factor through (ReLU, pooling): f(x / s) = f(x) / s. With

    s_j = r_j^α / v_j^(1 − α)

r_j being the range of the channel and v_j that of the weights that take it, α = ½ and r_j the range of the weights
that make it this is Nagel et al., 2019; with r_j the range of the activation it is SmoothQuant (Xiao et al., 2023),
which also takes outlier channels out of layer normalisations. In float nothing changes but rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.export import ExportedProgram

from ..errors import EdgeoptError, InputError
from ..models.data import Sample
from ..models.nodes import state_names
from .passes import Context, OptimizedModel
from .registry import recipe_pass, register

_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default)
_LINEAR = _ATEN.linear.default
_NORM = _ATEN.layer_norm.default
# f(x / s) = f(x) / s for every s > 0, channel by channel.
_HOMOGENEOUS = (
    _ATEN.relu.default, _ATEN.relu_.default, _ATEN.leaky_relu.default, _ATEN.max_pool2d.default,
    _ATEN.avg_pool2d.default, _ATEN.adaptive_avg_pool2d.default, _ATEN.dropout.default,
)  # fmt: skip
_LARGEST = 1e4


@recipe_pass("equalize")
@dataclass(frozen=True)
class Equalize:
    """Even out the channels between layers before int8; nothing changes in float.

    Attributes:
        by: what a channel's range is taken from: ``activations`` (of calibration samples) or ``weights``.
        strength: α of the formula, from 0 (even out the weights behind) to 1 (the channels themselves).
        samples: calibration samples to use at most.
    """

    by: Literal["activations", "weights"] = "activations"
    strength: float = 0.5
    samples: int = 32

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must be from 0 to 1, found {self.strength:g}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, found {self.samples}")


@dataclass(frozen=True)
class _Link:
    """A layer and those that take its channels: nodes of a captured program."""

    producer: torch.fx.Node
    consumers: tuple[torch.fx.Node, ...]


@register(Equalize)
def _equalize(config: Equalize, model: OptimizedModel, context: Context) -> OptimizedModel:
    if model.prepared is not None:
        raise InputError("equalize must stand before the pass that quantises.")
    program = model.capture.program
    links = find_links(program)
    ranges: Mapping[str, torch.Tensor] = {}
    if config.by == "activations" and links:
        if not context.calibration:
            raise InputError(
                "equalize by activations needs calibration data: give --calibration FILE.npz or module:function, "
                'or set by = "weights".'
            )
        samples = context.calibration[: config.samples]
        ranges = channel_ranges(program, [link.producer for link in links], samples)
    scaled, factors = _scaled(program, links, ranges, config.strength)
    if not factors:
        words = "evened out nothing: every layer's channels also go where no weights can make up for it"
        return replace(model, changes=(*model.changes, words))
    _check_equal(program, scaled, model.capture.source.example)
    largest = max(float(torch.maximum(s, 1 / s).max()) for s in factors.values())
    words = f"evened out the channels of {len(factors)} layers by {config.by} (factors up to {largest:.3g})"
    return replace(
        model,
        capture=replace(model.capture, program=scaled),
        changes=(*model.changes, words),
        figures={**model.figures, "equalize": {"layers": sorted(factors), "largest_factor": largest}},
    )


def find_links(program: ExportedProgram) -> list[_Link]:
    """The layers whose channels can be scaled: all that take them are layers whose weights can be."""
    states = state_names(program)
    found = []
    for node in program.graph.nodes:
        if node.target not in (*_CONVOLUTIONS, _LINEAR, _NORM):
            continue
        consumers = _consumers(node, states)
        if consumers and _owned(node, states, _producer_places(node)):
            found.append(_Link(node, tuple(consumers)))
    return found


def _producer_places(node: torch.fx.Node) -> tuple[int, ...]:
    return (2, 3) if node.target is _NORM else (1, 2)


def _owned(node: torch.fx.Node, states: Mapping[str, str], places: Sequence[int]) -> bool:
    """Whether the arguments at these places are weights that no other node uses; the first must be there."""
    nodes = [node.args[place] if len(node.args) > place else None for place in places]
    if not isinstance(nodes[0], torch.fx.Node):
        return False
    return all(
        isinstance(n, torch.fx.Node) and n.name in states and len(n.users) == 1
        for n in nodes
        if n is not None
    )


def _consumers(producer: torch.fx.Node, states: Mapping[str, str]) -> list[torch.fx.Node] | None:
    """The layers that the producer's channels reach, or None when something else takes them."""
    found: list[torch.fx.Node] = []
    images = producer.target in _CONVOLUTIONS
    open_nodes = [producer]
    while open_nodes:
        node = open_nodes.pop()
        for user in node.users:
            if user.op != "call_function" or user.args[0] is not node:
                return None
            if (images and user.target in _HOMOGENEOUS) or (
                not images
                and user.target
                in (
                    _ATEN.relu.default,
                    _ATEN.relu_.default,
                    _ATEN.dropout.default,
                )
            ):
                open_nodes.append(user)
            elif user.target in (_CONVOLUTIONS if images else (_LINEAR,)) and _owned(user, states, (1,)):
                if images and not _takes_channels(user, producer):
                    return None
                found.append(user)
            else:
                return None
    return found


def _takes_channels(conv: torch.fx.Node, producer: torch.fx.Node) -> bool:
    """Whether a convolution's weight tells its input channels apart: ungrouped, or depthwise one to one."""
    groups, channels = conv.args[6] if len(conv.args) > 6 else 1, producer.meta["val"].shape[1]
    return groups == 1 or groups == channels == conv.meta["val"].shape[1]


def _scaled(
    program: ExportedProgram, links: Sequence[_Link], ranges: Mapping[str, torch.Tensor], strength: float
) -> tuple[ExportedProgram, dict[str, torch.Tensor]]:
    """A program with scaled weights, and the factors of each layer."""
    states = state_names(program)
    scaled = copy.copy(program)
    scaled._state_dict = state = dict(program.state_dict)
    factors = {}
    with torch.no_grad():
        for link in links:
            names = [states[c.args[1].name] for c in link.consumers]  # type: ignore[union-attr]
            depthwise = [_is_depthwise(consumer) for consumer in link.consumers]
            behind = torch.stack(
                [_input_range(state[n], d) for n, d in zip(names, depthwise, strict=True)]
            ).amax(0)
            own = ranges.get(link.producer.name)
            if own is None:
                own = _output_range(link.producer, states, state)
            factor = factors_of(own, behind, strength)
            if bool((factor == 1).all()):
                continue
            for place in _producer_places(link.producer):
                node = link.producer.args[place] if len(link.producer.args) > place else None
                if isinstance(node, torch.fx.Node):
                    value = state[states[node.name]]
                    shape = (-1, *[1] * (value.ndim - 1))
                    state[states[node.name]] = _like(value / factor.reshape(shape), value)
            for name, alone in zip(names, depthwise, strict=True):
                state[name] = _scale_inputs(state[name], factor, alone)
            factors[link.producer.name] = factor
    return scaled, factors


def factors_of(channels: torch.Tensor, weights: torch.Tensor, strength: float) -> torch.Tensor:
    """s = r^α / v^(1 − α), with 1 in the place of dead channels, scaled to a geometric mean of 1."""
    alive = (channels > 0) & (weights > 0)
    logs = strength * channels.clamp_min(1e-30).log() - (1 - strength) * weights.clamp_min(1e-30).log()
    if not bool(alive.any()):
        return torch.ones_like(channels)
    logs = torch.where(alive, logs - logs[alive].mean(), torch.zeros_like(logs))
    return logs.exp().clamp(1 / _LARGEST, _LARGEST)


def _output_range(
    producer: torch.fx.Node, states: Mapping[str, str], state: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    node = producer.args[_producer_places(producer)[0]]
    assert isinstance(node, torch.fx.Node)
    weight = state[states[node.name]].float().abs()
    return weight if weight.ndim == 1 else weight.flatten(1).amax(1)


def _input_range(weight: torch.Tensor, depthwise: bool) -> torch.Tensor:
    """The largest weight of each input channel."""
    size = weight.float().abs()
    if depthwise:
        return size.flatten(1).amax(1)
    return size.movedim(1, 0).flatten(1).amax(1)


def _scale_inputs(weight: torch.Tensor, factor: torch.Tensor, depthwise: bool) -> torch.Tensor:
    axis = 0 if depthwise else 1
    shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
    return _like(weight * factor.reshape(shape), weight)


def _like(value: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """``value`` in the dtype and kind (parameter or buffer) of what it replaces."""
    value = value.to(old.dtype)
    return torch.nn.Parameter(value, requires_grad=False) if isinstance(old, torch.nn.Parameter) else value


def _is_depthwise(consumer: torch.fx.Node) -> bool:
    if consumer.target is _LINEAR or len(consumer.args) <= 6:
        return False
    groups = consumer.args[6]
    return isinstance(groups, int) and groups > 1


def channel_ranges(
    program: ExportedProgram, nodes: Sequence[torch.fx.Node], samples: Sequence[Sample]
) -> dict[str, torch.Tensor]:
    """Node -> largest absolute value of each of its channels over the samples."""
    found: dict[str, torch.Tensor] = {}
    axes = {node.name: 1 if node.target in _CONVOLUTIONS else -1 for node in nodes}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in axes:
                size = value.detach().float().abs().movedim(axes[n.name], 0).flatten(1).amax(1)
                found[n.name] = torch.maximum(found[n.name], size) if n.name in found else size
            return value

    graph = program.module()
    with torch.no_grad():
        for sample in samples:
            Watch(graph).run(*sample)
    return found


def _check_equal(before: ExportedProgram, after: ExportedProgram, example: Sample) -> None:
    with torch.no_grad():
        wanted, found = before.module()(*example), after.module()(*example)
    for name, value in wanted.items():
        size = float(value.abs().max()) if value.is_floating_point() and value.numel() else 0.0
        if size and float((found[name] - value).abs().max()) > 1e-3 * size:
            raise EdgeoptError(f"equalize changed output {name!r} by more than rounding; leave it out.")
