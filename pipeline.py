"""export(): the one place where the stages meet.

load → capture → optimise → convert → verify → bundle
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .bundle import Bundle, load_bundle, staged
from .converters.checks import Checks, make_checks, uninformative_outputs
from .converters.explain import explain
from .converters.jobs import Produced, Wanted, discard, produce
from .converters.keras.spec import is_keras
from .device_profiles import DeviceProfile
from .errors import EdgeoptError, GateError, InputError
from .gates import AUTO_ACCURACY_DROP, Gates, accuracy_failures
from .models.data import Evaluation, load_evaluation
from .models.findings import Finding, said_once
from .optimization import optimize_plan
from .optimizers.capabilities import unsupported_reason
from .optimizers.passes import Context, OptimizedModel, Optimizer
from .optimizers.recipe import Recipe
from .planning import Plan, make_plan
from .record import ExportResult, why_failed, write_record

Progress = Callable[[str], None]


def export(
    model: Any,
    *,
    profile: str | DeviceProfile,
    formats: str | Sequence[str] | None = None,
    precision: str | None = None,
    recipe: str | Recipe = "auto",
    calibration: Any = None,
    training: Any = None,
    evaluate: Any = None,
    max_accuracy_drop: float | None = None,
    min_snr_db: float | None = None,
    require_full_delegation: bool = False,
    strict: bool = False,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    max_parallel: int | None = None,
    use_cache: bool = True,
    **source_options: Any,
) -> Bundle:
    """Make a verified bundle of ``model`` for a device.

    Args:
        model: ``package.module:attribute``, a .pt2 or TorchScript file, a ``torch.nn.Module``, or a Keras model
            (docs/keras.md).
        profile: the target's name, a TOML path, or a loaded profile.
        formats: ``pte`` and/or ``tflite``, as a sequence or ``"pte,tflite"``; by default both, and of a Keras
            model the latter.
        precision: one or more precisions, comma-separated; the first becomes model.pte / model.tflite.
        recipe: ``auto`` (the profile decides), a named recipe, a TOML file, or a :class:`Recipe`.
        calibration: samples for static int8; see ``load_calibration``.
        training: data for recipes that train; see ``load_training``.
        evaluate: the task metric; see ``load_evaluation``.
        max_accuracy_drop: gate on the metric, 0.01 for one percentage point.
        min_snr_db: least signal-to-noise ratio of every output, instead of the precision's own.
        require_full_delegation: gate: no operator may be left to the runtime's own kernels.
        strict: a format that can't be made fails the export.
        output: the bundle's folder; by default ``<model>_<profile>`` here.
        force: replace a bundle that stands there.
        progress: called with what is being done.
        max_parallel: conversions at once; by default what cores and memory allow.
        use_cache: take files that were converted before from the user's cache (they are checked again).
        source_options: how the model is loaded, see ``load_source_model``; and ``labels``, ``mean``, ``std``,
            see ``check_deployment``.

    Raises:
        InputError: anything wrong with the input, or a model neither format can take.
        GateError: a gate failed; its ``bundle`` is on disk, marked failed.
    """
    say = progress or (lambda what: None)
    plan_it, carry_out = road_of(model)
    if formats is not None:
        named = formats.split(",") if isinstance(formats, str) else formats
        source_options["formats"] = tuple(part.strip() for part in named if part.strip())
    plan = plan_it(
        model,
        profile=profile,
        precision=precision,
        recipe=recipe,
        calibration=calibration,
        training=training,
        output=output,
        force=force,
        progress=say,
        **source_options,
    )
    gates = Gates(max_accuracy_drop, require_full_delegation, strict)
    return carry_out(
        plan,
        gates,
        evaluate=evaluate,
        min_snr_db=min_snr_db,
        progress=say,
        max_parallel=max_parallel,
        use_cache=use_cache,
    )


def road_of(model: Any) -> tuple[Callable[..., Any], Callable[..., Bundle]]:
    """How a model of this framework is planned and exported: functions like make_plan and :func:`export_plan`."""
    if is_keras(model):
        from .keras_export import export_keras_plan
        from .keras_planning import make_keras_plan

        return make_keras_plan, export_keras_plan
    return make_plan, export_plan


def export_plan(
    plan: Plan,
    gates: Gates,
    *,
    evaluate: Any = None,
    min_snr_db: float | None = None,
    progress: Progress | None = None,
    max_parallel: int | None = None,
    use_cache: bool = True,
) -> Bundle:
    """Carry out a plan: optimise, convert, verify, bundle. Arguments and errors as for :func:`export`."""
    say = progress or (lambda what: None)
    evaluation = load_evaluation(plan.source, evaluate) if evaluate is not None else None
    gates.check(evaluation is not None)
    plan = optimize_plan(plan, evaluation, say, use_cache=use_cache)
    say("running the source model")
    plan, checks = _checks(plan, evaluation, min_snr_db)
    with staged(plan.output) as folder:
        result = _convert(plan, folder, checks, say, max_parallel, use_cache, gates)
        result.notes += [
            f"output {name!r} is the same for every check input, so its parity proves little: give real data "
            "with --calibration or --example-inputs"
            for name in uninformative_outputs(checks)
        ]
        if not plan.calibration and len(checks.samples) == 1:
            result.notes.append(
                "the model fails on inputs drawn from the example, so the example alone was compared: give more "
                "with --calibration"
            )
        if not result.produced:
            sentences = said_once(f for p in result.not_made for f in p.reasons)
            raise InputError(f"no file could be made of {plan.source.origin}: {sentences}.")
        say("writing the bundle")
        failures = write_record(plan, folder, checks, result, gates)
    bundle = load_bundle(plan.output)
    if failures:
        raise GateError(f"{plan.output}: {'; '.join(failures)} (the bundle is marked failed).", bundle)
    return bundle


def _checks(plan: Plan, evaluation: Evaluation | None, min_snr_db: float | None) -> tuple[Plan, Checks]:
    """A file must agree with what it was made of; its metric is compared with the user's model's."""
    checks = make_checks(plan.source, plan.calibration, evaluation, min_snr_db)
    if plan.optimized is None or evaluation is None:
        return plan, checks
    original = make_checks(plan.optimized.original.source, plan.calibration, evaluation, min_snr_db)
    plan = replace(plan, optimized=replace(plan.optimized, metric=checks.baseline))
    return plan, replace(checks, baseline=original.baseline, baseline_samples=original.baseline_samples)


def _convert(
    plan: Plan,
    folder: Path,
    checks: Checks,
    say: Progress,
    max_parallel: int | None,
    use_cache: bool,
    gates: Gates,
) -> ExportResult:
    optimizer = Optimizer(
        plan.capture, Context(plan.calibration, say, plan.training, checks.evaluation, profile=plan.profile)
    )
    result = ExportResult()
    wanted = []
    for name, recipe, file in plan.files():
        try:
            model = plan.optimized.model if plan.optimized else optimizer.run(recipe)
            item = Wanted(name, model, file, use_cache)
        except EdgeoptError:
            raise
        except Exception as error:
            # A pass that chokes on the model costs its own precision, as a converter that does.
            unmade = Wanted(name, OptimizedModel(plan.capture, recipe.precision), file)
            finding = explain(error, name, plan.capture.program)
            result.not_made.append(Produced(unmade, findings=(finding,)))
            continue
        reason = unsupported_reason(item.precision, name, dynamic_shapes=bool(plan.capture.dynamic_shapes))
        if reason is None:
            wanted.append(item)
        else:
            result.not_made.append(Produced(item, findings=(Finding("error", reason, format=name),)))
    say("converting " + ", ".join(item.file for item in wanted))
    made = produce(
        wanted, folder, checks, on_progress=lambda task, what: say(what), max_parallel=max_parallel
    )
    allowed = AUTO_ACCURACY_DROP if gates.max_accuracy_drop is None else gates.max_accuracy_drop
    for fallback in plan.choice.fallbacks if plan.choice else ():
        again = [item for item in made if not item.passed or accuracy_failures(item, checks, allowed)]
        if not again:
            break
        made = _fall_back(fallback, made, again, optimizer, folder, checks, say, result, allowed)
    # What was tried for a file that nothing made is no news: the last finding says why there is none.
    missing = tuple(f"{item.wanted.file}: " for item in made if item.checks is None)
    result.notes = [note for note in result.notes if not note.startswith(missing)]
    discard(made)
    result.produced = [item for item in made if item.checks is not None]
    result.not_made += [item for item in made if item.checks is None]
    return result


def _fall_back(
    recipe: Recipe,
    made: list[Produced],
    again: list[Produced],
    optimizer: Optimizer,
    folder: Path,
    checks: Checks,
    say: Progress,
    result: ExportResult,
    allowed: float,
) -> list[Produced]:
    """What auto does when its choice fails: the next recipe, said in so many words."""
    for item in again:
        lost = accuracy_failures(item, checks, allowed) if item.passed else []
        result.notes.append(
            f"{item.wanted.file}: {item.wanted.precision} failed ({'; '.join(lost) or why_failed(item)}), so {recipe.name} was taken"
        )
    retried = produce(
        [replace(i.wanted, model=optimizer.run(recipe)) for i in again],
        folder,
        checks,
        on_progress=lambda task, what: say(what),
    )
    by_file = {item.wanted.file: item for item in retried}
    return [by_file.get(item.wanted.file, item) for item in made]
