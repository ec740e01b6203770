"""export(): the one place where the stages meet.

load → capture → optimise → convert → verify → bundle
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .bundle import Bundle, check_output, load_bundle, staged, write_golden, write_manifest
from .converters.checks import Checks, make_checks
from .converters.jobs import FORMATS, Produced, Wanted, discard, produce
from .converters.preflight import blocked_formats, preflight
from .converters.rewrites import rewrite_capture
from .device_profiles import DeviceProfile, load_profile
from .errors import GateError, InputError
from .gates import Gates, artifact_failures, artifact_warnings
from .models.data import Sample, load_calibration, load_evaluation
from .models.findings import Finding
from .models.program import Capture, capture
from .models.source import SourceModel, load_source_model
from .models.workload import workload
from .optimizers.capabilities import KIND_OF_PRECISION, ROADS, unsupported_reason
from .optimizers.choose import Choice, choose_recipe
from .optimizers.passes import Optimizer
from .optimizers.precision import parse_precisions
from .optimizers.recipe import Recipe, load_recipe, named_recipe
from .results.summary import bundle_summary

Progress = Callable[[str], None]
PACKAGES = ("torch", "executorch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torchao", "numpy")


@dataclass(frozen=True)
class Plan:
    """What an export is going to do; ``--dry-run`` prints it."""

    source: SourceModel
    capture: Capture
    profile: DeviceProfile
    formats: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    choice: Choice | None
    calibration: list[Sample] | None
    findings: list[Finding]
    output: Path

    def files(self) -> list[tuple[str, Recipe, str]]:
        """(format, recipe, file name) of each artefact; the first recipe's is ``model.<format>``."""
        return [
            (name, recipe, f"model.{name}" if index == 0 else f"model.{recipe.name}.{name}")
            for index, recipe in enumerate(self.recipes)
            for name in self.formats
        ]


@dataclass
class _Result:
    """What conversion left behind."""

    produced: list[Produced] = field(default_factory=list)
    not_made: list[Produced] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export(
    model: Any,
    *,
    profile: str | DeviceProfile,
    formats: Sequence[str] = FORMATS,
    precision: str | None = None,
    recipe: str | Recipe = "auto",
    calibration: Any = None,
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
        model: ``package.module:attribute``, a .pt2 or TorchScript file, or a ``torch.nn.Module``.
        profile: the target's name, a TOML path, or a loaded profile.
        formats: ``pte`` and/or ``tflite``.
        precision: one or more precisions, comma-separated; the first becomes model.pte / model.tflite.
        recipe: ``auto`` (the profile decides), a named recipe, a TOML file, or a :class:`Recipe`.
        calibration: samples for static int8; see ``load_calibration``.
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
        source_options: how the model is loaded; see ``load_source_model``.

    Raises:
        InputError: anything wrong with the input, or a model neither format can take.
        GateError: a gate failed; its ``bundle`` is on disk, marked failed.
    """
    say = progress or (lambda what: None)
    plan = make_plan(
        model,
        profile=profile,
        formats=formats,
        precision=precision,
        recipe=recipe,
        calibration=calibration,
        output=output,
        force=force,
        progress=say,
        **source_options,
    )
    gates = Gates(max_accuracy_drop, require_full_delegation, strict)
    evaluation = load_evaluation(plan.source, evaluate) if evaluate is not None else None
    gates.check(evaluation is not None)
    say("running the source model")
    checks = make_checks(plan.source, plan.calibration, evaluation, min_snr_db)
    with staged(plan.output) as folder:
        result = _convert(plan, folder, checks, say, max_parallel, use_cache)
        if not result.produced:
            sentences = "; ".join(f.sentence() for p in result.not_made for f in p.findings)
            raise InputError(f"no file could be made of {plan.source.origin}: {sentences}.")
        say("writing the bundle")
        failures = _write(plan, folder, checks, result, gates)
    bundle = load_bundle(plan.output)
    if failures:
        raise GateError(f"{plan.output}: {'; '.join(failures)} (the bundle is marked failed).", bundle)
    return bundle


def make_plan(
    model: Any,
    *,
    profile: str | DeviceProfile,
    formats: Sequence[str] = FORMATS,
    precision: str | None = None,
    recipe: str | Recipe = "auto",
    calibration: Any = None,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **source_options: Any,
) -> Plan:
    """Load and capture the model and decide what to make of it; nothing is written.

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
    if calibration is None:
        calibration = source.companion("calibration")
        calibration = calibration() if calibration is not None else None
    samples = load_calibration(source, calibration) if calibration is not None else None
    say("capturing the model")
    captured = rewrite_capture(capture(source))
    choice = None
    if not named:
        choice = choose_recipe(target, workload(captured.program), calibrated=samples is not None)
        named = (choice.recipe,)
    findings = preflight(captured, formats)
    blocked = blocked_formats(findings, formats)
    if len(blocked) == len(formats):
        errors = "; ".join(f.sentence() for f in findings if f.severity == "error")
        raise InputError(f"{source.origin} can't be exported: {errors}.")
    kept = tuple(name for name in dict.fromkeys(formats) if name not in blocked)
    return Plan(source, captured, target, kept, named, choice, samples, findings, where)


def _named_recipes(precision: str | None, recipe: str | Recipe) -> tuple[Recipe, ...]:
    """The recipes the user named; none when the profile is to decide."""
    if precision is not None:
        if recipe != "auto":
            raise InputError("--precision and --recipe both set the precision: give one of them.")
        return tuple(named_recipe(p.name) for p in parse_precisions(precision))
    if isinstance(recipe, Recipe):
        return (recipe,)
    return () if recipe == "auto" else (load_recipe(recipe),)


def _convert(
    plan: Plan, folder: Path, checks: Checks, say: Progress, max_parallel: int | None, use_cache: bool
) -> _Result:
    optimizer = Optimizer(plan.capture, plan.calibration, say)
    result = _Result()
    wanted = []
    for name, recipe, file in plan.files():
        item = Wanted(name, optimizer.run(recipe), file, use_cache)
        reason = unsupported_reason(item.precision, name, dynamic_shapes=bool(plan.capture.dynamic_shapes))
        if reason is None:
            wanted.append(item)
        else:
            result.not_made.append(Produced(item, findings=(Finding("error", reason, format=name),)))
    say("converting " + ", ".join(item.file for item in wanted))
    made = produce(
        wanted, folder, checks, on_progress=lambda task, what: say(what), max_parallel=max_parallel
    )
    for fallback in plan.choice.fallbacks if plan.choice else ():
        again = [item for item in made if not item.passed]
        if not again:
            break
        made = _fall_back(fallback, made, again, optimizer, folder, checks, say, result)
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
    result: _Result,
) -> list[Produced]:
    """What auto does when its choice fails: the next recipe, said in so many words."""
    for item in again:
        result.notes.append(
            f"{item.wanted.file}: {item.wanted.precision} failed ({_why_failed(item)}), so {recipe.name} was taken"
        )
    retried = produce(
        [replace(i.wanted, model=optimizer.run(recipe)) for i in again],
        folder,
        checks,
        on_progress=lambda task, what: say(what),
    )
    by_file = {item.wanted.file: item for item in retried}
    return [by_file.get(item.wanted.file, item) for item in made]


def _why_failed(item: Produced) -> str:
    if item.checks is not None:
        return "; ".join(f"output {p.output}: {p.reason}" for p in item.checks.parity if not p.passed)
    return "; ".join(finding.sentence() for finding in item.findings) or "it could not be made"


def _write(plan: Plan, folder: Path, checks: Checks, result: _Result, gates: Gates) -> list[str]:
    """Write golden data, summary and manifest; the failures of all gates."""
    inputs = {
        info.name: [sample[i] for sample in checks.samples] for i, info in enumerate(plan.source.inputs)
    }
    outputs = {
        info.name: [sample[i] for sample in checks.reference] for i, info in enumerate(plan.source.outputs)
    }
    golden = write_golden(folder, inputs, outputs)
    artifacts, failures = [], []
    for item in result.produced:
        problems = artifact_failures(item, checks, gates)
        failures += [f"{item.wanted.file}: {problem}" for problem in problems]
        artifacts.append(_artifact(item, folder, problems))
    if gates.strict:
        failures += [f"{i.wanted.file} could not be made: {_why_failed(i)}" for i in result.not_made]
        failures += [f.sentence() for f in plan.findings if f.severity == "error"]
    manifest = _manifest(plan, checks, result, artifacts, golden, failed=bool(failures))
    write_manifest(folder, manifest, bundle_summary(manifest))
    return failures


def _artifact(item: Produced, folder: Path, problems: list[str]) -> dict[str, Any]:
    from .bundle import sha256_of

    assert item.path is not None and item.checks is not None
    model = item.wanted.model
    return {
        "file": item.wanted.file,
        "format": item.wanted.format,
        "precision": item.wanted.precision,
        "recipe": item.wanted.precision,
        "runtime": item.checks.runtime,
        "road": ROADS[KIND_OF_PRECISION[item.wanted.precision], item.wanted.format],
        "status": "failed" if problems else "verified",
        "size_bytes": item.path.stat().st_size,
        "sha256": sha256_of(item.path),
        "inputs": item.checks.io["inputs"],
        "outputs": item.checks.io["outputs"],
        "contents": item.report,
        "parity": [parity.to_dict() for parity in item.checks.parity],
        "changes": list(model.changes),
        "metric": item.checks.metric,
        "warnings": [*(f.sentence() for f in item.findings), *problems, *artifact_warnings(item)],
        "convert_s": round(item.convert_s, 2),
    }


def _manifest(
    plan: Plan,
    checks: Checks,
    result: _Result,
    artifacts: list[dict[str, Any]],
    golden: dict[str, Any],
    *,
    failed: bool,
) -> dict[str, Any]:
    source = plan.source
    choice = list(plan.choice.reasons) if plan.choice else ["the precision was named by the user"]
    not_made = [
        {"file": i.wanted.file, "sentence": f.sentence(), **f.to_dict()}
        for i in result.not_made
        for f in i.findings
    ]
    not_made += [
        {"file": f"model.{f.format or 'pte'}", "sentence": f.sentence(), **f.to_dict()}
        for f in plan.findings
        if f.severity == "error"
    ]
    evaluation = None
    if checks.evaluation is not None and checks.baseline is not None:
        evaluation = {
            "metric": checks.evaluation.metric,
            "value": checks.baseline,
            "samples": checks.baseline_samples,
        }
    return {
        "name": source.name,
        "status": "failed" if failed else "verified",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "origin": source.origin,
            "parameters": source.parameter_count,
            "weight_bytes": source.weight_bytes,
            "macs": workload(plan.capture.program).macs,
        },
        "profile": plan.profile.model_dump(mode="json"),
        "recipes": [recipe.to_dict() for recipe in plan.recipes],
        "choice": choice,
        "inputs": [_tensor_entry(info) for info in source.inputs],
        "outputs": [_tensor_entry(info) for info in source.outputs],
        "artifacts": artifacts,
        "not_made": not_made,
        "evaluation": evaluation,
        "golden": golden,
        "versions": versions(),
        "warnings": [
            *(f.sentence() for f in plan.findings if f.severity != "error"),
            *result.notes,
        ],
    }


def _tensor_entry(info: Any) -> dict[str, Any]:
    # Four dimensions with few channels on the second axis is how PyTorch lays out images.
    image = len(info.shape) == 4 and info.shape[1] in (1, 3, 4)
    return {
        "name": info.name,
        "shape": list(info.shape),
        "dtype": info.dtype,
        "layout": "NCHW" if image else None,
    }


def versions() -> dict[str, str]:
    """Versions of edgeopt, of Python and of every package that had a hand in a bundle."""
    from . import __version__

    found = {"edgeopt": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
