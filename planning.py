"""What an export is going to do, decided before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import check_output
from .converters.jobs import FORMATS
from .converters.preflight import blocked_formats, preflight
from .converters.rewrites import rewrite_capture
from .cost_model import Kernel
from .cost_model.machine import unknown_core_notes
from .device_profiles import DeviceProfile, load_profile
from .errors import InputError
from .models.data import Sample, find_calibration
from .models.deployment import check_deployment
from .models.findings import Finding
from .models.program import Capture, capture
from .models.source import SourceModel, load_source_model
from .models.workload import workload
from .optimizers.choose import Choice, choose_recipe
from .optimizers.cleanup import fold_batch_norm
from .optimizers.cost import kernels_of, stored_kernels
from .optimizers.eager import PassReport
from .optimizers.passes import OptimizedModel
from .optimizers.precision import parse_precisions
from .optimizers.recipe import Recipe, load_recipe, named_recipe
from .optimizers.training import TrainingData, load_training

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Optimized:
    """What a recipe that trains has made, before any file is.

    Attributes:
        original: the model as the user gave it, as it was captured.
        model: what all passes of the recipe made of it.
        reports: what each pass did.
        metric: the task metric of the optimised model in PyTorch, when there is an evaluation.
    """

    original: Capture
    model: OptimizedModel
    reports: tuple[PassReport, ...]
    metric: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest: each figure as [before, after]."""
        before, after = self.original, self.model.capture
        return {
            "passes": [report.to_dict() for report in self.reports],
            "parameters": [before.source.parameter_count, after.source.parameter_count],
            "weight_bytes": [before.source.weight_bytes, after.source.weight_bytes],
            "macs": [workload(before.program).macs, workload(after.program).macs],
            "metric": self.metric,
        }


@dataclass(frozen=True)
class Plan:
    """What an export is going to do; ``--dry-run`` prints it.

    After a recipe that trains was carried out (``optimization``), ``source`` is the optimised model.
    """

    source: SourceModel
    capture: Capture
    profile: DeviceProfile
    formats: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    choice: Choice | None
    calibration: list[Sample] | None
    findings: list[Finding]
    output: Path
    deployment: dict[str, Any] | None = None
    training: TrainingData | None = None
    optimized: Optimized | None = None

    def files(self) -> list[tuple[str, Recipe, str]]:
        """(format, recipe, file name) of each artefact; the first recipe's is ``model.<format>``."""
        return [
            (name, recipe, f"model.{name}" if index == 0 else f"model.{recipe.name}.{name}")
            for index, recipe in enumerate(self.recipes)
            for name in self.formats
        ]


def make_plan(
    model: Any,
    *,
    profile: str | DeviceProfile,
    formats: Sequence[str] = FORMATS,
    precision: str | None = None,
    recipe: str | Recipe = "auto",
    calibration: Any = None,
    training: Any = None,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    labels: Path | str | Sequence[str] | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    **source_options: Any,
) -> Plan:
    """Load and capture the model and decide what to make of it; nothing is written.

    Args:
        training: data for recipes that train; see ``load_training``. By default ``training()`` beside the model.
        labels, mean, std: recorded for ``edgeopt app``; see ``check_deployment``.

    Raises:
        InputError: anything wrong with the input.
    """
    say = progress or (lambda what: None)
    target = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(
            f"unknown format {', '.join(unknown) or '(none)'}: choose from {', '.join(FORMATS)}."
        )
    named = _named_recipes(precision, recipe)
    say("loading the model")
    source = load_source_model(model, **source_options)
    where = Path(output) if output is not None else Path(f"{source.name}_{target.name}")
    check_output(where, force=force)
    deployment = check_deployment(source, labels, mean, std)
    samples = find_calibration(source, calibration)
    rows = _training_data(source, training, named)
    say("capturing the model")
    captured = rewrite_capture(capture(source))
    choice = None
    if not named:
        kernels, stored = _kernels(captured, formats)
        work = workload(captured.program)
        choice = choose_recipe(target, work, calibrated=samples is not None, kernels=kernels, stored=stored)
        named = (choice.recipe,)
    findings = preflight(captured, formats)
    findings += [Finding("warning", note) for note in unknown_core_notes(target)]
    blocked = blocked_formats(findings, formats)
    if len(blocked) == len(formats):
        errors = "; ".join(f.sentence() for f in findings if f.severity == "error")
        raise InputError(f"{source.origin} can't be exported: {errors}.")
    kept = tuple(name for name in dict.fromkeys(formats) if name not in blocked)
    return Plan(source, captured, target, kept, named, choice, samples, findings, where, deployment, rows)


def _kernels(
    captured: Capture, formats: Sequence[str]
) -> tuple[dict[str, list[Kernel]], dict[str, list[Kernel]]]:
    """Format -> the model's kernels as they run, and as a file stores them.

    None where they can't be told, which leaves the choice to rules.
    """
    try:
        program = fold_batch_norm(captured.program)[0]
        kernels = {name: kernels_of(program, name) for name in formats}
        return kernels, {name: stored_kernels(program, each) for name, each in kernels.items()}
    except Exception:
        return {}, {}


def _training_data(source: SourceModel, given: Any, recipes: Sequence[Recipe]) -> TrainingData | None:
    if not any(recipe.trains for recipe in recipes):
        return None
    found = source.companion("training") if given is None else given
    return None if found is None else load_training(source, found)


def _named_recipes(precision: str | None, recipe: str | Recipe) -> tuple[Recipe, ...]:
    """The recipes the user named; none when the profile is to decide."""
    if precision is not None:
        if recipe != "auto":
            raise InputError("--precision and --recipe both set the precision: give one of them.")
        return tuple(named_recipe(p.name) for p in parse_precisions(precision))
    if isinstance(recipe, Recipe):
        return (recipe,)
    return () if recipe == "auto" else (load_recipe(recipe),)
