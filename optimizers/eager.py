"""Runs the passes that work on the user's module, before it is captured, each with a checkpoint of its own.

The checkpoint of a pass is named by everything it follows from (the module, the training data, the recipe up to
it), so the same command goes on where it was interrupted, and a changed recipe keeps the passes before the change.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..device_profiles import DeviceProfile
from ..errors import InputError
from ..models.source import SourceModel
from ..models.tensors import FlatModel
from .figures import Figures, figures, prediction_sentence, with_predictions
from .recipe import Recipe
from .registry import handler_of, kind_of
from .snapshot import restore, snapshot
from .training.data import TrainingData
from .training.loop import load_checkpoint, save_atomically
from .workfolder import WorkFolder

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PassReport:
    """What one pass did.

    Attributes:
        words: for a person, e.g. ``removed 50% of the multiply-accumulates (0.52 M → 0.26 M), ...``.
        details: the pass's own figures (epochs, held-out scores, widths).
        warnings: what the user would want to hear.
    """

    name: str
    words: str
    before: Figures | None = None
    after: Figures | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {
            "pass": self.name,
            "change": self.words,
            "before": self.before.to_dict() if self.before else None,
            "after": self.after.to_dict() if self.after else None,
            "details": dict(self.details),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> PassReport:
        """What :meth:`to_dict` gave."""
        before, after = (Figures(**kept[side]) if kept[side] else None for side in ("before", "after"))
        return cls(kept["pass"], kept["change"], before, after, kept["details"], tuple(kept["warnings"]))


@dataclass(frozen=True)
class Workpiece:
    """The module under the passes' hands.

    Attributes:
        module: the flat model, a copy of the user's.
        masks: parameter name -> 0/1 mask of a sparsity that later passes must keep.
        reports: one a pass so far.
    """

    module: FlatModel
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reports: tuple[PassReport, ...] = ()


@dataclass(frozen=True)
class EagerContext:
    """What eager passes may use.

    Attributes:
        source: the model as the user gave it.
        training: training data, or None.
        work: where this pass keeps its checkpoints, or None.
        seed: the recipe's, different for each pass.
        where: the recipe and the pass's number, for messages.
        profile: the device that times are predicted for, or None.
    """

    source: SourceModel
    training: TrainingData | None
    progress: Progress
    work: WorkFolder | None
    seed: int
    where: str
    profile: DeviceProfile | None = None

    def data(self) -> TrainingData:
        """The training data.

        Raises:
            InputError: there is none.
        """
        if self.training is None:
            raise InputError(
                f"{self.where} needs training data: give --train module:function (inputs and targets), or put a "
                "function training() beside the model."
            )
        return self.training


def run_eager_passes(
    recipe: Recipe,
    source: SourceModel,
    training: TrainingData | None,
    progress: Progress,
    work: WorkFolder | None,
    profile: DeviceProfile | None = None,
) -> tuple[SourceModel, Workpiece, WorkFolder | None]:
    """Apply the eager passes of ``recipe`` to a copy of the model.

    Returns:
        The source with the optimised module in its place, the workpiece with the reports, and where what follows
        keeps its checkpoints.

    Raises:
        InputError: a model that can't be trained, missing data, or what a pass refuses.
    """
    refuse_untrainable(source, recipe)
    piece = Workpiece(_copy_of(source.module))
    # What a pass reports of a device's time belongs to that device.
    device = profile.name if profile else ""
    for number, config in enumerate(recipe.eager_passes, 1):
        kind = kind_of(config)
        where = f"recipe {recipe.name}, pass {number} ({kind.name})"
        handler = handler_of(config)
        code = sha256(Path(inspect.getfile(handler)).read_bytes()).hexdigest()
        step = work.after(f"{kind.name} {config!r} seed {recipe.seed} {code} {device}") if work else None
        kept = load_checkpoint(step.result) if step else None
        if kept is not None:
            progress(f"{kind.name}: taken from an earlier run")
            piece = _foretold_anew(_restored(kept, source.module), piece, source, profile)
        else:
            context = EagerContext(
                source, training, progress, step, recipe.seed + 7919 * number, where, profile
            )
            piece = handler(config, piece, context)
            if step is not None:
                save_atomically(_kept(piece, source.module), step.result)
                step.clear_parts()
        work = step
    return replace(source, module=piece.module), piece, work


def refuse_untrainable(source: SourceModel, recipe: Recipe) -> None:
    """Refuse exported programs and TorchScript where a pass must work on Python modules.

    Raises:
        InputError: naming the pass.
    """
    inner = source.module.model
    if recipe.eager_passes and isinstance(inner, torch.jit.ScriptModule | torch.fx.GraphModule):
        name = kind_of(recipe.eager_passes[0]).name
        raise InputError(
            f"{source.origin} is an exported program, which {name} can't change: give the Python code of the model "
            "(package.module:attribute)."
        )


def report(
    config: Any,
    before: FlatModel,
    after: FlatModel,
    context: EagerContext,
    words: str,
    **more: Any,
) -> PassReport:
    """A :class:`PassReport` with the figures of both modules counted."""
    example = context.source.example
    return PassReport(kind_of(config).name, words, figures(before, example), figures(after, example), **more)


def start_key(source: SourceModel, training: TrainingData | None, graph: str) -> str:
    """What everything follows from: the model's code (as captured), its weights, and the training data."""
    digest = sha256(graph.encode())
    for name, tensor in sorted(source.module.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    digest.update((training.identity if training else "no training data").encode())
    return digest.hexdigest()


def _copy_of(module: FlatModel) -> FlatModel:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise InputError(
            f"the model can't be copied ({type(error).__name__}: {error}), which passes that change it need."
        ) from error


def _kept(piece: Workpiece, original: FlatModel) -> dict[str, Any]:
    return {
        **snapshot(piece.module, original),
        "masks": dict(piece.masks),
        "reports": [item.to_dict() for item in piece.reports],
    }


def _foretold_anew(
    piece: Workpiece, before: Workpiece, source: SourceModel, profile: DeviceProfile | None
) -> Workpiece:
    """A kept pass with what is expected of it today: the profile and the cost model may be others than they were."""
    last = piece.reports[-1]
    if last.before is None or last.after is None or last.before.predicted_ms is None:
        return replace(piece, reports=(*before.reports, last))
    said = prediction_sentence(last.before, last.after, profile)
    old = with_predictions(before.module, last.before, source, profile)
    new = with_predictions(piece.module, last.after, source, profile)
    words = last.words.replace(said, prediction_sentence(old, new, profile)) if said else last.words
    return replace(piece, reports=(*before.reports, replace(last, words=words, before=old, after=new)))


def _restored(kept: dict[str, Any], original: FlatModel) -> Workpiece:
    module = restore(kept, original)
    assert isinstance(module, FlatModel)
    reports = tuple(PassReport.from_dict(item) for item in kept["reports"])
    return Workpiece(module, kept["masks"], reports)
