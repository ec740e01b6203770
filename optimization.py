"""Carries out the recipes that train, for an export or by themselves (:func:`optimize`): eager passes on a copy of the module, a new capture, then graph passes.

What comes out is another model than the user's, and the files made of it must agree with it; the task metric is
compared with the original's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .bundle import staged
from .converters.checks import make_checks
from .converters.keras.spec import refuse_keras
from .converters.preflight import blocked_formats, preflight
from .converters.rewrites import rewrite_capture
from .device_profiles import DeviceProfile, load_profile
from .errors import InputError
from .models.data import Evaluation, Sample, find_calibration, load_evaluation
from .models.program import Capture, capture, recapture
from .models.source import SourceModel, load_source_model
from .optimizers.eager import run_eager_passes, start_key
from .optimizers.passes import Context, OptimizedModel, Optimizer
from .optimizers.recipe import Recipe, load_recipe
from .optimizers.training import TrainingData, load_training
from .optimizers.workfolder import WorkFolder, open_work_folder
from .planning import Optimized, Plan

Progress = Callable[[str], None]

MODEL = "model.pt2"
REPORT = "report.json"


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
        profile=plan.profile,
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
    profile: DeviceProfile | None = None,
) -> tuple[Optimized, Capture]:
    """Apply all passes of ``recipe``; returns what they made and the capture of the optimised module."""
    original = captured
    work: WorkFolder | None = open_work_folder(start_key(source, training, str(captured.program.graph)))
    work = work if use_cache else None
    optimised, piece, work = run_eager_passes(recipe, source, training, say, work, profile)
    if recipe.eager_passes:
        say("capturing the optimised model")
        captured = rewrite_capture(capture(optimised))
    checkpoints = None
    if work is not None:
        checkpoints = work.after(f"graph {recipe.graph_passes!r} seed {recipe.seed}").part("any").parent
    context = Context(calibration, say, training, evaluation, checkpoints, recipe.seed, profile)
    model = Optimizer(OptimizedModel(captured, masks=piece.masks), context).run(recipe)
    changes = (*(report.words for report in piece.reports), *model.changes)
    model = replace(model, changes=changes)
    return Optimized(original, model, (*piece.reports, *model.reports)), model.capture


def _reference(source: SourceModel, made: Optimized) -> SourceModel:
    """The model that files must agree with: what was trained last."""
    if made.model.reference is None:
        return source
    return replace(source, module=made.model.reference)  # type: ignore[arg-type]


def optimize(
    model: Any,
    *,
    recipe: str | Recipe,
    output: Path | str,
    profile: str | DeviceProfile | None = None,
    training: Any = None,
    calibration: Any = None,
    evaluate: Any = None,
    force: bool = False,
    progress: Progress | None = None,
    use_cache: bool = True,
    **source_options: Any,
) -> dict[str, Any]:
    """Apply a recipe and write what came out, before any device's format: ``model.pt2`` and ``report.json``.

    Args:
        model, calibration, evaluate, source_options: as for ``export``.
        recipe: a TOML file, a named recipe or a :class:`Recipe`.
        profile: the device that the reports predict times for, and that mixed weighs layers on.
        training: data for passes that train; see ``load_training``.
        output: the folder to write; ``force`` replaces one that this function wrote.
        use_cache: go on from what an interrupted or earlier run has finished.

    Returns:
        The report.

    Raises:
        InputError: anything wrong with the input.
    """
    say = progress or (lambda what: None)
    where = Path(output)
    _check_folder(where, force)
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    target = load_profile(profile) if isinstance(profile, str) else profile
    say("loading the model")
    refuse_keras(model, "optimize")
    source = load_source_model(model, **source_options)
    given = source.companion("training") if training is None else training
    rows = load_training(source, given) if given is not None and chosen.trains else None
    samples = find_calibration(source, calibration)
    evaluation = None if evaluate is None else load_evaluation(source, evaluate)
    say("capturing the model")
    captured = rewrite_capture(capture(source))
    made, captured = train(
        chosen, source, captured, rows, evaluation, samples, say, use_cache=use_cache, profile=target
    )
    report = {"recipe": chosen.to_dict(), "origin": source.origin, **made.to_dict()}
    report["changes"] = list(made.model.changes)
    report["precision"] = made.model.precision
    if evaluation is not None:
        say("evaluating")
        before = make_checks(source, samples, evaluation, None)
        after = make_checks(_reference(captured.source, made), samples, evaluation, None)
        report |= {"metric_name": evaluation.metric, "metric": [before.baseline, after.baseline]}
    say("writing the model")
    with staged(where) as folder:
        torch.export.save(_program(made), folder / MODEL)
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _check_folder(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give --force to replace it, or another -o.")
    if path.exists() and not (path / REPORT).is_file():
        raise InputError(f"{path} was not written by edgeopt optimize: give another -o.")


def _program(made: Optimized) -> torch.export.ExportedProgram:
    """The optimised model as a program: with int8 weights and their scales where a pass quantised it."""
    model = made.model
    if model.prepared is None:
        return model.capture.program
    import copy

    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    return recapture(model.capture, convert_pt2e(copy.deepcopy(model.prepared)))
