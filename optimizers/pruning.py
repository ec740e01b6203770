"""Structured pruning: whole channels go, so that every kernel has less to do.

``torch_pruning`` finds which slices of which layers belong together (Fang et al., 2023); ``importance`` ranks
them; this module decides how many go: the share of multiply-accumulates to remove is the goal, and widths stay
multiples of what kernels like. The residual stream and the heads of transformers are left alone; their
feed-forward layers are pruned.
"""

from __future__ import annotations

import copy
import heapq
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ..errors import EdgeoptError, InputError
from ..models.resolve import brief
from ..models.tensors import FlatModel
from .eager import EagerContext, PassReport, Workpiece
from .figures import (
    count_macs,
    figures,
    layer_macs,
    prediction_sentence,
    time_sentence,
    with_predictions,
    with_times,
)
from .importance import Importance, channel_scores, gradients
from .registry import kind_of, recipe_pass, register
from .snapshot import restore, snapshot
from .training import Supervised, TrainingOptions, fit
from .training.loop import FitReport, Hooks, load_checkpoint, save_atomically

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_FIXED = nn.MultiheadAttention | nn.Embedding | nn.GroupNorm | nn.RNNBase
_ATTENTION = re.compile(r"Softmax|Bmm|ScaledDotProduct")
_INDEXING = re.compile(r"_SplitOp|_UnbindOp|_SliceOp|CustomizedOp")


@recipe_pass("prune", trains=True, eager=True)
@dataclass(frozen=True)
class Prune(TrainingOptions):
    """Remove whole channels until a share of the multiply-accumulates is gone, and train on after each step.

    Attributes:
        macs: share of the multiply-accumulates to remove: 0.5 halves them.
        importance: l1, l2 (magnitude of the weights), taylor (|w · ∂L/∂w| on training data), bn_scale (scale of
            the batch normalisation), or random as a control.
        scope: rank the channels of all layers together, or take the same share of each layer.
        steps: the goal is reached in so many steps, each followed by ``epochs`` of training.
        round_to: widths that are left are multiples of this; XNNPACK's kernels compute 8 (or 4) channels at once.
        epochs: of training after each step; 0 leaves the pruned model as it is.
    """

    _least_epochs: ClassVar[int] = 0
    macs: float = 0.5
    importance: Importance = "l2"
    scope: Literal["global", "layer"] = "global"
    steps: int = 1
    round_to: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.macs < 1:
            raise ValueError(f"macs must be between 0 and 1 (0.5 halves them), found {self.macs:g}")
        if self.steps < 1 or self.round_to < 1:
            raise ValueError("steps and round_to must be at least 1")


@register(Prune)
def _prune(config: Prune, piece: Workpiece, context: EagerContext) -> Workpiece:
    if piece.masks:
        raise InputError(
            f"{context.where}: prune must stand before sparsify, whose zeros it would tear apart."
        )
    before, module = piece.module, copy.deepcopy(piece.module)
    if config.epochs or config.importance == "taylor":
        context.data()
    goal = count_macs(before, context.source.example) * (1 - config.macs)
    trained: FitReport | None = None
    for step in range(1, config.steps + 1):
        kept = load_checkpoint(context.work.part(f"step{step}")) if context.work else None
        if kept is not None:
            restored = restore(kept, before)
            assert isinstance(restored, FlatModel)
            module = restored
            continue
        begin = count_macs(module, context.source.example)
        left = config.steps - step + 1
        context.progress(f"pruning: step {step} of {config.steps}")
        _remove_channels(module, config, context, round(begin - (begin - goal) / left))
        if config.epochs:
            trained = _train(module, config, context, step)
        if context.work and config.steps > 1:
            save_atomically(snapshot(module, before), context.work.part(f"step{step}"))
    done = _report(config, before, module, context, trained)
    return replace(piece, module=module, reports=(*piece.reports, done))


def _train(module: FlatModel, config: Prune, context: EagerContext, step: int) -> FitReport:
    data = context.data()
    return fit(
        module,
        data,
        Supervised(config, data),
        config,
        seed=context.seed + step,
        what=f"training after pruning step {step} of {config.steps}",
        progress=context.progress,
        checkpoint=context.work.part(f"fit{step}") if context.work else None,
        hooks=Hooks(),
    )


def _report(
    config: Prune, before: FlatModel, after: FlatModel, context: EagerContext, trained: FitReport | None
) -> PassReport:
    example = context.source.example
    old, new = with_times((before, figures(before, example)), (after, figures(after, example)), example)
    old = with_predictions(before, old, context.source, context.profile)
    new = with_predictions(after, new, context.source, context.profile)
    removed = 1 - new.macs / old.macs
    words = (
        f"removed {removed:.0%} of the multiply-accumulates ({old.macs / 1e6:.3g} → {new.macs / 1e6:.3g} M) and "
        f"{1 - new.parameters / old.parameters:.0%} of the parameters by {config.importance}"
        f"{', ' + trained.sentence() if trained else ''}, {time_sentence(old, new)}{prediction_sentence(old, new, context.profile)}"
    )
    warnings = []
    if removed < config.macs - 0.02:
        warnings.append(
            f"prune removed {removed:.0%} of the multiply-accumulates, not {config.macs:.0%}: the rest is in layers "
            f"that can't be narrowed further in steps of {config.round_to} channels; a smaller round_to gets nearer"
        )
    if "not faster" in words:
        warnings.append(
            f"prune removed {removed:.0%} of the multiply-accumulates and is not faster in PyTorch on this machine "
            f"({old.host_ms:.3g} → {new.host_ms:.3g} ms): measure the files"
        )
    details: dict[str, Any] = {
        "widths": dict(_widths(before, after)),
        **(trained.to_dict() if trained else {}),
    }
    return PassReport(kind_of(config).name, words, old, new, details, tuple(warnings))


def _widths(before: nn.Module, after: nn.Module) -> Iterator[tuple[str, list[int]]]:
    parts = dict(after.named_modules())
    for path, layer in before.named_modules():
        if isinstance(layer, _WEIGHTED):
            old, new = _width(layer, "out"), _width(parts[path], "out")
            if old != new:
                yield path.removeprefix("model."), [old, new]


@dataclass
class ChannelGroup:
    """Channels that can go together.

    Attributes:
        root: the layer whose output channels they are.
        handler: ``torch_pruning``'s function that removes output channels of the root.
        scores: importance a channel.
        widths: layer -> side (``in`` or ``out``) -> channels of the layer that one channel of the root takes along.
    """

    name: str
    root: nn.Module
    handler: Any
    scores: torch.Tensor
    widths: dict[nn.Module, dict[str, float]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Channels of the root."""
        return len(self.scores)


def _remove_channels(module: FlatModel, config: Prune, context: EagerContext, goal: int) -> None:
    """Remove the least important channels until ``goal`` multiply-accumulates are left, in place."""
    example = context.source.example
    slopes: Mapping[nn.Parameter, torch.Tensor] = {}
    if config.importance == "taylor":
        data = context.data()
        named = dict(module.named_parameters())
        found = gradients(module, Supervised(config, data), data, config.batch_size)
        slopes = {named[name]: slope for name, slope in found.items()}
    graph = _dependencies(module, example)
    groups = _prunable_groups(module, graph, config, slopes, context)
    counts = choose_counts(groups, layer_macs(module, example), goal, config.scope, config.round_to)
    shapes = {name: value.shape for name, value in _run(module, example).items()}
    for group in groups:
        count = counts[group.name]
        if count:
            lowest = sorted(torch.argsort(group.scores, stable=True)[:count].tolist())
            graph.get_pruning_group(group.root, group.handler, lowest).prune()
    try:
        found_shapes = {name: value.shape for name, value in _run(module, example).items()}
    except Exception as error:
        raise InputError(
            f"after pruning the model doesn't run ({brief(error)}): its code has a width written into it; read "
            "widths from the layers or tensors, or leave prune out."
        ) from error
    if found_shapes != shapes:
        raise EdgeoptError("pruning changed the shape of an output, which it must never do; leave prune out.")


def choose_counts(
    groups: list[ChannelGroup], macs: Mapping[nn.Module, int], goal: int, scope: str, round_to: int
) -> dict[str, int]:
    """How many channels each group loses so that at most ``goal`` multiply-accumulates are left.

    Channels go in blocks that leave multiples of ``round_to``, the least important block of all groups first
    (``global``), or the one whose group has lost the least (``layer``). A group keeps one block at least.
    """
    removed: dict[nn.Module, dict[str, float]] = {}
    counts = {group.name: 0 for group in groups}
    ordered = {group.name: torch.sort(group.scores).values for group in groups}
    queue: list[tuple[float, int, int]] = []

    def push(index: int) -> None:
        group = groups[index]
        gone, width = counts[group.name], group.width
        block = (width - gone) % round_to or round_to
        if width - gone - block < round_to:
            return
        score = float(ordered[group.name][gone : gone + block].mean())
        key = score if scope == "global" else (gone + block) / width
        heapq.heappush(queue, (key, index, block))

    for index in range(len(groups)):
        push(index)
    while queue and remaining_macs(macs, removed) > goal:
        _, index, block = heapq.heappop(queue)
        group = groups[index]
        counts[group.name] += block
        for layer, sides in group.widths.items():
            for side, share in sides.items():
                gone = removed.setdefault(layer, {"in": 0.0, "out": 0.0})
                gone[side] += share * block
        push(index)
    return counts


def remaining_macs(macs: Mapping[nn.Module, int], removed: Mapping[nn.Module, Mapping[str, float]]) -> float:
    """Multiply-accumulates left when layers lose channels: each is proportional to its inputs and its outputs."""
    total = 0.0
    for layer, count in macs.items():
        gone = removed.get(layer, {"in": 0.0, "out": 0.0})
        left = count * (1 - gone["out"] / _width(layer, "out"))
        # A depthwise convolution has one input channel an output channel, whatever its width.
        total += left if _is_depthwise(layer) else left * (1 - gone["in"] / _width(layer, "in"))
    return total


def _dependencies(module: FlatModel, example: tuple[torch.Tensor, ...]) -> Any:
    import torch_pruning

    try:
        return torch_pruning.DependencyGraph().build_dependency(
            module, example_inputs=example, forward_fn=lambda model, inputs: model(*inputs)
        )
    except Exception as error:
        raise InputError(f"the model's layers can't be followed for pruning: {brief(error)}.") from error


def _prunable_groups(
    module: FlatModel,
    graph: Any,
    config: Prune,
    slopes: Mapping[nn.Parameter, torch.Tensor],
    context: EagerContext,
) -> list[ChannelGroup]:
    names = {part: name for name, part in module.named_modules()}
    found: list[ChannelGroup] = []
    for group in graph.get_all_groups(root_module_types=list(_WEIGHTED)):
        if not _can_be_pruned(group):
            continue
        root = group[0].dep.target.module
        seed = context.seed + len(found)
        scores = channel_scores(group, config.importance, slopes, seed)
        widths: dict[nn.Module, dict[str, float]] = {}
        for item in group:
            layer = item.dep.target.module
            if isinstance(layer, _WEIGHTED):
                side = "out" if "out" in item.dep.handler.__name__ else "in"
                sides = widths.setdefault(layer, {})
                sides[side] = sides.get(side, 0.0) + len(item.idxs) / len(scores)
        found.append(ChannelGroup(names[root], root, group[0].dep.handler, scores, widths))
    found = _without_outputs(module, found, context, config.round_to)
    if not found:
        raise InputError(
            f"{context.where}: the model has no layer whose channels can be removed: prune works on convolutions and on "
            "pairs of linear layers."
        )
    return found


def _can_be_pruned(group: Any) -> bool:
    """Whether a dependency group's channels may go: they are consumed inside the model, and nothing in between
    gives positions among them a meaning (attention heads, splits, group normalisation, plain parameters)."""
    outs: list[Any] = []
    ins: list[Any] = []
    for item in group:
        layer = item.dep.target.module
        name = str(layer) + str(getattr(item.dep.target, "name", ""))
        if isinstance(layer, nn.Parameter | _FIXED):
            return False
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1 and not _is_depthwise(layer):
            return False
        if not isinstance(layer, _WEIGHTED) and (_ATTENTION.search(name) or _INDEXING.search(name)):
            return False
        if isinstance(layer, _WEIGHTED) and not _is_depthwise(layer):
            (outs if "out" in item.dep.handler.__name__ else ins).append(item)
    root = group[0].dep.target.module
    if not ins or not outs:
        return False
    if isinstance(root, nn.Linear):
        # More than one layer that writes, or a layer normalisation, is a residual stream.
        if len(outs) > 1 or any(isinstance(i.dep.target.module, nn.LayerNorm) for i in group):
            return False
        return all(len(item.idxs) == len(group[0].idxs) for item in ins)
    return True


def _without_outputs(
    module: FlatModel, groups: list[ChannelGroup], context: EagerContext, round_to: int
) -> list[ChannelGroup]:
    """The groups that can go without changing an output's shape or breaking the model, found by trying."""
    example = context.source.example
    shapes = {name: value.shape for name, value in _run(module, example).items()}
    wanted = [group for group in groups if group.width >= 2 * round_to or group.width > round_to]

    def works(names: list[str]) -> bool:
        trial = copy.deepcopy(module)
        graph = _dependencies(trial, example)
        by_name = {group[0].dep.target.module: group for group in graph.get_all_groups(root_module_types=list(_WEIGHTED))}  # fmt: skip
        try:
            for name in names:
                group = by_name[trial.get_submodule(name)]
                root = group[0].dep
                graph.get_pruning_group(root.target.module, root.handler, list(range(round_to))).prune()
            return {name: value.shape for name, value in _run(trial, example).items()} == shapes
        except Exception:
            return False

    names = [group.name for group in wanted]
    if works(names):
        return wanted
    kept = {name for name in names if works([name])}
    return [group for group in wanted if group.name in kept]


def _run(module: FlatModel, example: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found: dict[str, torch.Tensor] = module(*example)
    return found


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups == layer.in_channels


def _width(layer: nn.Module, side: str) -> int:
    name = f"{side}_channels" if isinstance(layer, nn.modules.conv._ConvNd) else f"{side}_features"
    return int(getattr(layer, name))
