"""Carries out the recipes that train: eager passes on a copy of the module, a new capture, then graph passes.

What comes out is another model than the user's, and the files made of it must agree with it; the task metric is
compared with the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .converters.preflight import blocked_formats, preflight
from .converters.rewrites import rewrite_capture
from .errors import InputError
from .models.data import Evaluation, Sample
from .models.program import Capture, capture
from .models.source import SourceModel
from .optimizers.eager import PassReport, run_eager_passes, start_key
from .optimizers.passes import Context, OptimizedModel, Optimizer
from .optimizers.recipe import Recipe
from .optimizers.registry import kind_of
from .optimizers.training import TrainingData
from .optimizers.workfolder import WorkFolder, open_work_folder
from .planning import Optimized, Plan

Progress = Callable[[str], None]


def optimize_plan(
    plan: Plan, evaluation: Evaluation | None, say: Progress, *, use_cache: bool = True
) -> Plan:
    """``plan`` with its recipe carried out when it trains, else as it is.

    Raises:
        InputError: data that a pass needs isn't there, or a model that a pass can't change.
    """
    recipe = next((recipe for recipe in plan.recipes if recipe.trains), None)
    if recipe is None:
        return plan
    made, captured = train(
        recipe,
        plan.source,
        plan.capture,
        plan.training,
        evaluation,
        plan.calibration,
        say,
        use_cache=use_cache,
    )
    findings = list(plan.findings)
    findings += [f for f in preflight(captured, plan.formats) if f not in findings]
    blocked = blocked_formats(findings, plan.formats)
    if len(blocked) == len(plan.formats):
        errors = "; ".join(f.sentence() for f in findings if f.severity == "error")
        raise InputError(f"what the recipe made of {plan.source.origin} can't be exported: {errors}.")
    return replace(
        plan,
        source=_reference(captured.source, made),
        capture=captured,
        formats=tuple(name for name in plan.formats if name not in blocked),
        findings=findings,
        optimized=made,
    )


def train(
    recipe: Recipe,
    source: SourceModel,
    captured: Capture,
    training: TrainingData | None,
    evaluation: Evaluation | None,
    calibration: list[Sample] | None,
    say: Progress,
    *,
    use_cache: bool = True,
) -> tuple[Optimized, Capture]:
    """Apply all passes of ``recipe``; returns what they made and the capture of the optimised module."""
    original = captured
    work: WorkFolder | None = open_work_folder(start_key(source, training, str(captured.program.graph)))
    work = work if use_cache else None
    optimised, piece, work = run_eager_passes(recipe, source, training, say, work)
    if recipe.eager_passes:
        say("capturing the optimised model")
        captured = rewrite_capture(capture(optimised))
    checkpoints = None
    if work is not None:
        checkpoints = work.after(f"graph {recipe.graph_passes!r} seed {recipe.seed}").part("any").parent
    context = Context(calibration, say, training, evaluation, checkpoints, recipe.seed)
    model = Optimizer(OptimizedModel(captured, masks=piece.masks), context).run(recipe)
    reports = [*piece.reports]
    for config in recipe.graph_passes:
        name = kind_of(config).name
        if name in model.figures:
            reports.append(PassReport.from_dict(model.figures[name]))
    changes = (*(report.words for report in piece.reports), *model.changes)
    model = replace(model, changes=changes)
    return Optimized(original, model, tuple(reports)), model.capture


def _reference(source: SourceModel, made: Optimized) -> SourceModel:
    """The model that files must agree with: what was trained last."""
    if made.model.reference is None:
        return source
    return replace(source, module=made.model.reference)  # type: ignore[arg-type]
