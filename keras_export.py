"""Carries out the export of a Keras model: train → convert → verify → bundle.

The stages are those of ``pipeline``; TensorFlow runs in its worker, the files are checked in processes of their
own by the same code as any other file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .android_harness.accuracy import task_metric
from .bundle import Bundle, load_bundle, sha256_of, staged, write_golden, write_manifest
from .converters.checks import (
    CheckResult,
    Checks,
    check_file_outputs,
    make_checks,
    uninformative_outputs,
)
from .converters.file_report import inspect_file
from .converters.keras.recipe import KerasRecipe
from .converters.keras.source import KerasSource, keras_evaluation
from .converters.workers import Outcome, Task, parallel_processes, run_tasks
from .device_profiles import DeviceProfile
from .disk import disk_trouble
from .errors import EdgeoptError, GateError, InputError
from .gates import Gates, artifact_failures, artifact_warnings
from .keras_planning import KerasPlan
from .models.findings import Finding, said_once
from .optimizers.workfolder import training_folder
from .record import predicted, versions, warn_of_slower
from .results.summary import bundle_summary

Progress = Callable[[str], None]
_ROADS = {
    "fp32": "TensorFlow Lite converter",
    "fp16": "TensorFlow Lite converter float32, then ai-edge-quantizer float16",
    "int8-dynamic": "TensorFlow Lite converter float32, then ai-edge-quantizer dynamic int8",
    "int8-static": "TensorFlow Lite converter, int8 calibrated after training",
}
_QAT_ROAD = "tensorflow-model-optimization QAT, TensorFlow Lite converter"


@dataclass(frozen=True)
class KerasFile:
    """One .tflite file of a Keras model: what was wanted, and what became of it."""

    file: str
    recipe: KerasRecipe
    path: Path | None = None
    report: dict[str, Any] = field(default_factory=dict)
    checks: CheckResult | None = None
    findings: tuple[Finding, ...] = ()
    convert_s: float = 0.0
    changes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """Canonical name of the file's precision."""
        return self.recipe.precision

    @property
    def passed(self) -> bool:
        """Whether the file was made, ran, and is within its tolerances."""
        return self.path is not None and self.checks is not None and self.checks.passed


def export_keras_plan(
    plan: KerasPlan,
    gates: Gates,
    *,
    evaluate: Any = None,
    min_snr_db: float | None = None,
    progress: Progress | None = None,
    use_cache: bool = True,
    **_: Any,
) -> Bundle:
    """Carry out a plan. Arguments and errors as for ``export_plan``; finished epochs are cached, conversions (they take
    seconds) aren't."""
    say = progress or (lambda what: None)
    worker = plan.keras.worker
    worker.progress = say
    try:
        _export(plan, gates, evaluate, min_snr_db, say, use_cache)
    finally:
        worker.close()
    bundle = load_bundle(plan.output)
    if not bundle.passed:
        failures = [
            *_failures(bundle),
            *(item["sentence"] for item in bundle.manifest.not_made if gates.strict),
        ]
        raise GateError(f"{plan.output}: {'; '.join(failures)} (the bundle is marked failed).", bundle)
    return bundle


def _failures(bundle: Bundle) -> list[str]:
    return [f"{a.file}: {w}" for a in bundle.artifacts if a.status == "failed" for w in a.warnings[:1]]


def _export(
    plan: KerasPlan,
    gates: Gates,
    evaluate: Any,
    min_snr_db: float | None,
    say: Progress,
    use_cache: bool,
) -> None:
    evaluation = keras_evaluation(plan.keras, evaluate) if evaluate is not None else None
    gates.check(evaluation is not None)
    with staged(plan.output) as folder:
        model, changes = _train(plan, say, use_cache)
        say("running the source model")
        checks = make_checks(model.source, plan.calibration, None, min_snr_db)
        if evaluation is not None:
            of_source = task_metric(evaluation, plan.keras.predict, "the source model")
            checks = replace(
                checks,
                evaluation=evaluation,
                baseline=of_source["value"],
                baseline_samples=of_source["samples"],
            )
        wanted = [KerasFile(file, recipe, changes=changes) for _, recipe, file in plan.files()]
        made = _make_all(plan, model, wanted, folder, checks, say)
        notes = []
        for recipe in plan.choice.fallbacks if plan.choice else ():
            again = [item for item in made if not item.passed]
            for item in again:
                notes.append(
                    f"{item.file}: {item.precision} failed ({_why(item)}), so {recipe.name} was taken"
                )
            if again:
                retried = _make_all(
                    plan, model, [KerasFile(i.file, recipe) for i in again], folder, checks, say
                )
                made = [next((r for r in retried if r.file == i.file), i) for i in made]
        for item in made:
            if item.checks is None:
                (folder / item.file).unlink(missing_ok=True)
        if all(item.checks is None for item in made):
            sentences = said_once(f for item in made for f in item.findings)
            raise InputError(f"no file could be made of {plan.keras.source.origin}: {sentences}.")
        notes += [
            f"output {name!r} is the same for every check input, so its parity proves little: give real data "
            "with --calibration or --example-inputs"
            for name in uninformative_outputs(checks)
        ]
        say("writing the bundle")
        _write(plan, folder, checks, made, notes, gates)


def _train(plan: KerasPlan, say: Progress, use_cache: bool) -> tuple[KerasSource, tuple[str, ...]]:
    """The model that the files are made of, and what training changed."""
    (recipe, *others) = plan.recipes
    if others or not recipe.training:
        return plan.keras, ()
    say("reading the training data")
    passes = [
        entry
        for entry, config in zip(recipe.entries(), recipe.passes, strict=True)
        if config in recipe.training
    ]
    keras = plan.keras
    found = keras.worker.ask(
        "train",
        passes=[{**entry, "seed": recipe.seed} for entry in passes],
        data=_absolute(plan.training or ""),
        names=[keras.source.inputs[i].name for i in keras.order],
        kept=str(training_folder() / "keras") if use_cache else None,
    )
    return keras.trained(found["model"]), tuple(found["changes"])


def _absolute(spec: str) -> str:
    return str(Path(spec).resolve()) if Path(spec).exists() else spec


def _make_all(
    plan: KerasPlan,
    model: KerasSource,
    wanted: Sequence[KerasFile],
    folder: Path,
    checks: Checks,
    say: Progress,
) -> list[KerasFile]:
    """Convert in the worker, one after the other; then quantise and check side by side."""
    started = [_convert(plan, model, item, folder, say) for item in wanted]
    tasks = [Task(item.file, partial(_finish, item, checks)) for item in started if item.path is not None]
    limit = parallel_processes(model.weight_bytes, len(tasks)) if tasks else 1
    outcomes = run_tasks(tasks, max_parallel=limit, on_progress=lambda task, what: say(f"{task}: {what}"))
    by_file = {outcome.name: outcome for outcome in outcomes}
    return [_collect(item, by_file.get(item.file)) for item in started]


def _convert(plan: KerasPlan, model: KerasSource, item: KerasFile, folder: Path, say: Progress) -> KerasFile:
    path = folder / item.file
    began = time.monotonic()
    say(f"{item.file}: converting to {item.precision}")
    calibration = None
    if item.precision == "int8-static" and not item.recipe.quantizes_in_training:
        calibration = model.in_model_order((plan.calibration or [])[: item.recipe.samples])
    try:
        if model.number == 0 and calibration is None:
            path.write_bytes(plan.float_file.read_bytes())
        else:
            outputs = [info.name for info in model.source.outputs]
            model.worker.write(model.number, path, model.tensors_of_file(), outputs, calibration)
    except EdgeoptError as error:
        finding = Finding("error", str(error), format="tflite")
        return replace(item, findings=(*item.findings, finding), convert_s=time.monotonic() - began)
    changes = item.changes
    if calibration is not None:
        changes += (f"int8 weights, activation ranges from {len(calibration)} samples",)
    return replace(item, path=path, changes=changes, convert_s=time.monotonic() - began)


def _finish(item: KerasFile, checks: Checks, progress: Progress) -> KerasFile:
    assert item.path is not None
    began = time.monotonic()
    try:
        if item.precision in ("fp16", "int8-dynamic"):
            from .converters.tflite_quantizer import quantize_file

            quantize_file(item.path, item.precision, item.path, progress)
        seconds = item.convert_s + time.monotonic() - began
        progress("checking")
        report = inspect_file(item.path).summary()
        result = check_file_outputs(item.path, item.precision, checks)
    except EdgeoptError as error:
        finding = Finding("error", f"the file was written but doesn't run: {error}", format="tflite")
        return replace(item, findings=(*item.findings, finding))
    return replace(item, report=report, checks=result, convert_s=seconds)


def _collect(item: KerasFile, outcome: Outcome[KerasFile] | None) -> KerasFile:
    if outcome is None:
        return item
    if outcome.value is not None:
        return outcome.value
    message, suggestion = disk_trouble(outcome.last_words, item.path and item.path.parent) or (
        f"quantising or running the file failed: {outcome.error}",
        None,
    )
    finding = Finding("error", message, format="tflite", suggestion=suggestion)
    return replace(item, findings=(*item.findings, finding))


def _why(item: KerasFile) -> str:
    if item.checks is not None:
        return "; ".join(f"output {p.output}: {p.reason}" for p in item.checks.parity if not p.passed)
    return "; ".join(finding.sentence() for finding in item.findings)


def _write(
    plan: KerasPlan, folder: Path, checks: Checks, made: Sequence[KerasFile], notes: list[str], gates: Gates
) -> None:
    source = checks.source
    golden = write_golden(
        folder,
        {info.name: [sample[i] for sample in checks.samples] for i, info in enumerate(source.inputs)},
        {info.name: [sample[i] for sample in checks.reference] for i, info in enumerate(source.outputs)},
    )
    produced = [item for item in made if item.checks is not None]
    not_made = [(item.file, f) for item in made if item.checks is None for f in item.findings]
    not_made += [(f"model.{f.format}", f) for f in plan.findings if f.severity == "error"]
    artifacts = [_artifact(item, checks, gates, plan.profile) for item in produced]
    warn_of_slower(artifacts)
    failed = any(a["status"] == "failed" for a in artifacts) or (gates.strict and bool(not_made))
    evaluation = None
    if checks.evaluation is not None:
        evaluation = {
            "metric": checks.evaluation.metric,
            "value": checks.baseline,
            "samples": checks.baseline_samples,
        }
    choice = list(plan.choice.reasons) if plan.choice else ["the precision was named by the user"]
    manifest = {
        "name": source.name,
        "status": "failed" if failed else "verified",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "origin": source.origin,
            "framework": {"keras3": "keras", "tf_keras": "tf-keras"}.get(plan.keras.kind, "tensorflow"),
            "parameters": plan.keras.parameters,
            "weight_bytes": plan.keras.weight_bytes,
            "macs": plan.float_report.summary()["macs"],
        },
        "profile": plan.profile.model_dump(mode="json"),
        "recipes": [recipe.to_dict() for recipe in plan.recipes],
        "choice": choice,
        "inputs": [_tensor_entry(info) for info in source.inputs],
        "outputs": [_tensor_entry(info) for info in source.outputs],
        "artifacts": artifacts,
        "not_made": [{"file": file, "sentence": f.sentence(), **f.to_dict()} for file, f in not_made],
        "evaluation": evaluation,
        "deployment": plan.deployment,
        "golden": golden,
        "versions": {**versions(), **plan.keras.worker.versions},
        "warnings": [*(f.sentence() for f in plan.findings if f.severity != "error"), *notes],
    }
    write_manifest(folder, manifest, bundle_summary(manifest))


def _artifact(item: KerasFile, checks: Checks, gates: Gates, profile: DeviceProfile) -> dict[str, Any]:
    assert item.path is not None and item.checks is not None
    problems = artifact_failures(item, checks, gates)
    foretold, overruns = predicted(item.path, profile)
    return {
        "file": item.file,
        "format": "tflite",
        "precision": item.precision,
        "recipe": item.recipe.name,
        "runtime": item.checks.runtime,
        "road": _QAT_ROAD if item.recipe.quantizes_in_training else _ROADS[item.precision],
        "status": "failed" if problems else "verified",
        "size_bytes": item.path.stat().st_size,
        "sha256": sha256_of(item.path),
        "inputs": item.checks.io["inputs"],
        "outputs": item.checks.io["outputs"],
        "contents": item.report,
        "parity": [parity.to_dict() for parity in item.checks.parity],
        "predicted": foretold,
        "changes": list(item.changes),
        "metric": item.checks.metric,
        "warnings": [
            *problems,
            *(f.sentence() for f in item.findings),
            *artifact_warnings(item, profile.budgets.size_mib),
            *overruns,
        ],
        "convert_s": round(item.convert_s, 2),
    }


def _tensor_entry(info: Any) -> dict[str, Any]:
    # Four dimensions with few channels on the last axis is how Keras lays out images.
    image = len(info.shape) == 4 and info.shape[-1] in (1, 3, 4)
    return {
        "name": info.name,
        "shape": list(info.shape),
        "dtype": info.dtype,
        "layout": "NHWC" if image else None,
    }
