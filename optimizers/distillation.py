"""Knowledge distillation: the model learns from a teacher's outputs, with or without labels.

L = w · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − w) · hard loss   (Hinton et al., 2015)

KL divergence and cross-entropy differ by the teacher's entropy, which has no gradient. T² keeps the soft
gradient's size when T changes. Feature matching adds the mean squared error between named layers
(Romero et al., 2015), through a learned linear map where their widths differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.nn import functional

from ..errors import InputError
from ..models.source import SourceModel, load_source_model
from .eager import EagerContext, Workpiece, report
from .registry import recipe_pass, register
from .training import Supervised, TrainingData, TrainingOptions, fit
from .training.data import Batch
from .training.loop import Hooks
from .training.objectives import Forward, Score, chosen_output


@recipe_pass("distill", trains=True, eager=True)
@dataclass(frozen=True)
class Distill(TrainingOptions):
    """Train the model to answer as a teacher does.

    Attributes:
        teacher: module:attribute of the teacher, or ``original`` for the model as it was before the recipe.
        teacher_weights: a state_dict to load into the teacher.
        temperature: softens both outputs.
        soft_weight: share of the teacher in the loss; the rest are the targets. Without targets it is 1.
        features: ``student.layer=teacher.layer`` pairs whose outputs are to agree.
        feature_weight: weight of that agreement in the loss.
        teacher_output: name of the teacher's output; by default the only one, or ``logits``.
    """

    teacher: str = "original"
    teacher_weights: str = ""
    temperature: float = 4.0
    soft_weight: float = 0.9
    features: tuple[str, ...] = ()
    feature_weight: float = 1.0
    teacher_output: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, found {self.temperature:g}")
        if not 0 < self.soft_weight <= 1:
            raise ValueError(f"soft_weight must be above 0 and at most 1, found {self.soft_weight:g}")
        if self.feature_weight < 0:
            raise ValueError("feature_weight can't be negative")
        if self.teacher != "original" and ":" not in self.teacher:
            raise ValueError(f"teacher must be original or module:attribute, found {self.teacher!r}")
        for pair in self.features:
            if pair.count("=") != 1:
                raise ValueError(f"features are written student.layer=teacher.layer, found {pair!r}")


@register(Distill)
def _distill(config: Distill, piece: Workpiece, context: EagerContext) -> Workpiece:
    data = context.data()
    if config.teacher == "original" and not piece.reports:
        raise InputError(
            f"{context.where}: the model is its own teacher and nothing has changed it yet: name a teacher, or "
            "put distill after the pass whose damage it should repair."
        )
    teacher = _teacher(config, context)
    before = copy.deepcopy(piece.module)
    objective = Distillation(config, data, piece.module, teacher, context.source)
    result = fit(
        piece.module,
        data,
        objective,
        config,
        seed=context.seed,
        what="distilling",
        progress=context.progress,
        checkpoint=context.work.part("fit") if context.work else None,
        hooks=Hooks(masks=piece.masks),
    )
    labels = "" if data.labelled else ", without labels"
    words = (
        f"distilled from {config.teacher} at temperature {config.temperature:g}{labels}, {result.sentence()}"
    )
    done = report(config, before, piece.module, context, words, details=result.to_dict())
    return replace(piece, reports=(*piece.reports, done))


def _teacher(config: Distill, context: EagerContext) -> torch.nn.Module:
    """The teacher's flat module, frozen, in evaluation mode."""
    source = context.source
    if config.teacher == "original":
        module: torch.nn.Module = copy.deepcopy(source.module)
    else:
        args, kwargs = source.module._signature.arguments(source.example)
        loaded = load_source_model(
            config.teacher,
            weights=Path(config.teacher_weights) if config.teacher_weights else None,
            example_inputs=(tuple(args), dict(kwargs)),
        )
        module = loaded.module
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over all but the class axis.

    Args:
        student, teacher: logits of the same shape; the classes stand on axis 1 of images [N, C, H, W], else last.
    """
    axis = 1 if student.ndim >= 4 else -1
    wanted = functional.log_softmax(teacher / temperature, axis)
    found = functional.log_softmax(student / temperature, axis)
    each = (wanted.exp() * (wanted - found)).sum(axis)
    return each.mean() * temperature**2


@dataclass
class Distillation:
    """The objective of :class:`Distill`.

    Raises:
        InputError: outputs that can't be compared, or a layer that isn't there.
    """

    config: Distill
    data: TrainingData
    student: torch.nn.Module
    teacher: torch.nn.Module
    source: SourceModel
    hard: Supervised | None = field(init=False, default=None)
    pairs: list[tuple[torch.nn.Module, torch.nn.Module]] = field(init=False, default_factory=list)
    maps: torch.nn.ModuleList = field(init=False, default_factory=torch.nn.ModuleList)

    def __post_init__(self) -> None:
        if self.data.labelled:
            self.hard = Supervised(self.config, self.data)
        batch = self.data.pick(self.data.held_out_rows[:2])
        with torch.no_grad(), _outputs_of(self._layers()) as found:
            student = chosen_output(self.student(*batch.inputs), self.config.output)
            teacher = self._teach(batch)
        if student.shape != teacher.shape:
            raise InputError(
                f"the teacher {self.config.teacher} gives outputs of shape {list(teacher.shape[1:])} a row, the model "
                f"{list(student.shape[1:])}: they must be the same to be compared."
            )
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        for index in range(len(self.pairs)):
            mine, theirs = found[2 * index], found[2 * index + 1]
            axis = 1 if mine.ndim in (2, 4) else -1
            same = mine.shape[axis] == theirs.shape[axis]
            self.maps.append(
                torch.nn.Identity() if same else _Map(mine.shape[axis], theirs.shape[axis], axis)
            )
        torch.set_rng_state(generator_state)

    def _layers(self) -> list[torch.nn.Module]:
        if not self.pairs:
            for pair in self.config.features:
                mine, theirs = (part.strip() for part in pair.split("="))
                self.pairs.append(
                    (_layer(self.student, mine, "model"), _layer(self.teacher, theirs, "teacher"))
                )
        return [layer for pair in self.pairs for layer in pair]

    def _teach(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return chosen_output(
                self.teacher(*batch.inputs), self.config.teacher_output or self.config.output
            )

    def loss(self, forward: Forward, batch: Batch) -> torch.Tensor:
        with _outputs_of(self._layers()) as found:
            student = chosen_output(forward(*batch.inputs), self.config.output)
            teacher = self._teach(batch)
        loss = self._soft(student, teacher) * (self.config.soft_weight if self.hard else 1.0)
        if self.hard is not None and self.config.soft_weight < 1:
            loss = loss + (1 - self.config.soft_weight) * self.hard.of(student, batch.targets)
        for index, map_ in enumerate(self.maps):
            mine, theirs = found[2 * index], found[2 * index + 1]
            loss = loss + self.config.feature_weight * feature_loss(map_(mine), theirs)
        return loss

    def _soft(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        # Outputs that are no classes have no softmax; the plain difference is what there is to learn.
        if (self.hard is not None and self.hard.kind == "mse") or self.config.loss == "mse":
            return functional.mse_loss(student, teacher)
        return soft_loss(student, teacher, self.config.temperature)

    def score(self, forward: Forward, data: TrainingData, batch_size: int, device: torch.device) -> Score:
        self.teacher.to(device)
        self.maps.to(device)
        if self.hard is not None:
            return self.hard.score(forward, data, batch_size, device)
        loss = rows = 0.0
        for batch in data.held_out(batch_size):
            moved = batch.to(device)
            student = chosen_output(forward(*moved.inputs), self.config.output)
            loss += float(self._soft(student, self._teach(moved))) * len(student)
            rows += len(student)
        return Score(loss / rows)

    def parameters(self) -> list[torch.nn.Parameter]:
        return list(self.maps.parameters())


class _Map(torch.nn.Module):
    """A learned linear map from one width to another, on the given axis."""

    def __init__(self, width: int, wanted: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.linear = torch.nn.Linear(width, wanted, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mapped: torch.Tensor = self.linear(features.movedim(self.axis, -1))
        return mapped.movedim(-1, self.axis)


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error between features [N, C, H, W] or [N, ..., C]; images are pooled to the smaller of both.

    Raises:
        InputError: shapes that don't go together.
    """
    if student.ndim == 4 and teacher.ndim == 4 and student.shape[2:] != teacher.shape[2:]:
        size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        student = functional.adaptive_avg_pool2d(student, size)
        teacher = functional.adaptive_avg_pool2d(teacher, size)
    if student.shape != teacher.shape:
        raise InputError(
            f"features of shapes {list(student.shape[1:])} and {list(teacher.shape[1:])} can't be matched."
        )
    return functional.mse_loss(student, teacher)


@contextmanager
def _outputs_of(layers: list[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """What the layers give in the calls inside the block, in the layers' order."""
    found: dict[int, torch.Tensor] = {}
    result: list[torch.Tensor] = []

    def keep(index: int) -> torch.utils.hooks.RemovableHandle:
        def hook(module: torch.nn.Module, inputs: object, output: object) -> None:
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, torch.Tensor):
                found[index] = value

        return layers[index].register_forward_hook(hook)

    handles = [keep(index) for index in range(len(layers))]
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()
        result.extend(found[index] for index in sorted(found))


def _layer(module: torch.nn.Module, path: str, whose: str) -> torch.nn.Module:
    inner: torch.nn.Module = module.model  # type: ignore[assignment]
    try:
        return inner.get_submodule(path)
    except AttributeError:
        names = [name for name, part in inner.named_modules() if name and not list(part.children())]
        raise InputError(
            f"features: the {whose} has no layer {path!r} (it has {', '.join(names[:8])}, ...)."
        ) from None
