"""Runs the graph passes of a recipe on a capture, as torchao's ``quantize_`` does: one function a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..models.data import Evaluation, Sample
from ..models.program import Capture
from .capabilities import KIND_OF_PRECISION
from .eager import PassReport
from .recipe import Recipe
from .registry import handler_of, kind_of, register

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile
    from .training.data import TrainingData

Progress = Callable[[str], None]

__all__ = ["Context", "OptimizedModel", "Optimizer", "Progress", "register"]


@dataclass(frozen=True)
class OptimizedModel:
    """What a recipe made of a capture, still without a format.

    Attributes:
        precision: canonical name of the precision.
        capture: the captured program, possibly rewritten.
        prepared: for static int8, the graph with its calibrated observers; shared, never mutated.
        weight_group: how many weights in a row share a scale; 0 is a whole output channel.
        samples: calibration samples of a precision that is calibrated on the finished file.
        changes: what each pass did, in words.
        reference: what a file must agree with, when a graph pass trained the weights further: flat tensors in,
            a dict of tensors out; None when that is the capture's source.
        masks: name of a weight in the program -> 0/1 mask of a sparsity that later passes must keep.
        figures: what passes found, as data for the manifest: pass name -> figures.
        reports: one a pass, those that found nothing to change included.
    """

    capture: Capture
    precision: str = "fp32"
    prepared: torch.fx.GraphModule | None = None
    weight_group: int = 0
    samples: Sequence[Sample] = ()
    changes: tuple[str, ...] = ()
    reference: torch.nn.Module | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    reports: tuple[PassReport, ...] = ()

    @property
    def kind(self) -> str:
        """dense, half, format or pt2e; see ``capabilities``."""
        return KIND_OF_PRECISION[self.precision]


@dataclass(frozen=True)
class Context:
    """What graph passes may use.

    Attributes:
        calibration: samples that fit the model's inputs, or None.
        progress: called with what is being done.
        training: training data, or None.
        evaluation: the user's task metric, or None.
        checkpoints: folder for what a pass must be able to go on from when it is interrupted, or None.
        seed: the recipe's.
        profile: the device that layers are costed on, or None.
    """

    calibration: Sequence[Sample] | None
    progress: Progress
    training: TrainingData | None = None
    evaluation: Evaluation | None = None
    checkpoints: Path | None = None
    seed: int = 0
    profile: DeviceProfile | None = None


class Optimizer:
    """Applies recipes to one capture; recipes that begin alike share the beginning.

    Args:
        start: the captured model, or what passes before the capture made of it.
        context: what the passes may use.
    """

    def __init__(self, start: Capture | OptimizedModel, context: Context) -> None:
        self._context = context
        first = start if isinstance(start, OptimizedModel) else OptimizedModel(start)
        self._done: dict[tuple[Any, ...], OptimizedModel] = {(): first}

    def run(self, recipe: Recipe) -> OptimizedModel:
        """Apply the graph passes of ``recipe``.

        Raises:
            InputError: data that a pass needs isn't there, or weights that a precision can't hold.
        """
        passes = recipe.graph_passes
        for end in range(1, len(passes) + 1):
            done = passes[:end]
            if done not in self._done:
                config, before = done[-1], self._done[done[:-1]]
                after = handler_of(config)(config, before, self._context)
                self._done[done] = replace(after, reports=(*before.reports, _report(config, before, after)))
        return self._done[passes]


def _report(config: Any, before: OptimizedModel, after: OptimizedModel) -> PassReport:
    """What a graph pass says that it did."""
    name = kind_of(config).name
    words = "; ".join(after.changes[len(before.changes) :]) or "found nothing to change"
    details = after.figures.get(name, {})
    return PassReport(
        name,
        words,
        details={k: v for k, v in details.items() if k != "warnings"},
        warnings=tuple(details.get("warnings", ())),
    )
