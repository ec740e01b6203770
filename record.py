"""Writes down what an export made: golden data, manifest and summary of the bundle."""

from __future__ import annotations

import platform
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .bundle import sha256_of, write_golden, write_manifest
from .converters.checks import Checks
from .converters.jobs import Produced
from .cost_model import predict
from .device_profiles import DeviceProfile
from .errors import EdgeoptError
from .estimating import Overrun, estimate
from .gates import Gates, artifact_failures, artifact_warnings
from .models.kernels import program_kernels
from .models.workload import workload
from .optimizers.capabilities import ROADS
from .planning import Plan
from .results.summary import bundle_summary

# How much longer than float32 a file must be expected to take to be called slower: less could be either way.
SLOWER = 1.1
PACKAGES = ("torch", "executorch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torchao", "numpy")


@dataclass
class ExportResult:
    """What conversion left behind: files that ran, files that could not be made or run, and notes."""

    produced: list[Produced] = field(default_factory=list)
    not_made: list[Produced] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def why_failed(item: Produced) -> str:
    """What is wrong with a file, in words."""
    if item.checks is not None:
        return "; ".join(f"output {p.output}: {p.reason}" for p in item.checks.parity if not p.passed)
    return (
        "; ".join(finding.sentence(with_format=False) for finding in item.reasons) or "it could not be made"
    )


def write_record(plan: Plan, folder: Path, checks: Checks, result: ExportResult, gates: Gates) -> list[str]:
    """Write golden data, summary and manifest into ``folder``; returns the failures of all gates."""
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
        shrinks = plan.optimized is not None and bool(plan.optimized.model.masks)
        artifacts.append(_artifact(item, problems, plan.profile, shrinks=shrinks))
    if gates.strict:
        failures += [f"{i.wanted.file} could not be made: {why_failed(i)}" for i in result.not_made]
        failures += [f.sentence() for f in plan.findings if f.severity == "error"]
    warn_of_slower(artifacts)
    manifest = _manifest(plan, checks, result, artifacts, golden, failed=bool(failures))
    write_manifest(folder, manifest, bundle_summary(manifest))
    return failures


def _artifact(
    item: Produced, problems: list[str], profile: DeviceProfile, *, shrinks: bool
) -> dict[str, Any]:
    assert item.path is not None and item.checks is not None
    model = item.wanted.model
    foretold, overruns = predicted(item.path, profile)
    return {
        "file": item.wanted.file,
        "format": item.wanted.format,
        "precision": item.wanted.precision,
        "recipe": item.wanted.precision,
        "runtime": item.checks.runtime,
        "road": ROADS[item.wanted.precision, item.wanted.format],
        "status": "failed" if problems else "verified",
        "size_bytes": item.path.stat().st_size,
        "compressed_bytes": _compressed_bytes(item.path) if shrinks else None,
        "sha256": sha256_of(item.path),
        "inputs": item.checks.io["inputs"],
        "outputs": item.checks.io["outputs"],
        "contents": item.report,
        "parity": [parity.to_dict() for parity in item.checks.parity],
        "predicted": foretold,
        "changes": list(model.changes),
        "metric": item.checks.metric,
        "warnings": [
            *(f.sentence(with_format=False) for f in item.findings),
            *problems,
            *artifact_warnings(item, profile.budgets.size_mib),
            *overruns,
        ],
        "convert_s": round(item.convert_s, 2),
    }


def predicted(path: Path, profile: DeviceProfile) -> tuple[list[dict[str, Any]], list[str]]:
    """What the cost model expects of a file on its device, as the manifest keeps it; nothing where it can't say.

    Beside it a sentence for each budget of the profile (but for the size, which isn't foretold but known) that the
    file is expected to exceed with any number of threads.
    """
    try:
        items = estimate(path, profile=profile).items
    except EdgeoptError:
        return [], []
    entries = [
        {
            "threads": item.latency.num_threads,
            "latency_ms": item.latency.latency_ms,
            "band80": [item.latency.low_ms, item.latency.high_ms],
            "peak_memory_mib": item.memory.peak_mib,
            "grade": item.latency.grade,
            "basis": item.latency.basis,
        }
        for item in items
    ]
    least: dict[str, list[Overrun]] = {}
    for overrun in (each for item in items for each in item.overruns):
        least.setdefault(overrun.what, []).append(overrun)
    sentences = [
        f"the predicted {min(found, key=lambda each: each.value).sentence}"
        for what, found in least.items()
        if what != "size" and len(found) == len(items)
    ]
    return entries, sentences


def warn_of_slower(artifacts: list[dict[str, Any]]) -> None:
    """Add a warning to each artifact that is expected to take longer than the float32 file of its format beside it."""
    floats = {each["format"]: each for each in artifacts if each["precision"] == "fp32"}
    for one in artifacts:
        other = floats.get(one["format"])
        if other is None or not (one["predicted"] and other["predicted"]):
            continue
        found, least = (min(each["latency_ms"] for each in item["predicted"]) for item in (one, other))
        if found > SLOWER * least:
            smaller = "smaller, not faster" if one["size_bytes"] < other["size_bytes"] else "not faster"
            one["warnings"].append(
                f"{found:.3g} ms are predicted, {least:.3g} ms of {other['file']}: it is {smaller}"
            )


def _optimization(plan: Plan) -> dict[str, Any] | None:
    """What a recipe that trains did, with the latency in float32 that is expected before and after it."""
    if plan.optimized is None:
        return None
    programs = [plan.optimized.original.program, plan.optimized.model.capture.program]
    try:
        found = [predict(program_kernels(each), plan.profile, runtime="executorch") for each in programs]
    except EdgeoptError:
        return plan.optimized.to_dict()
    expected = {"predicted_ms": [each.latency_ms for each in found], "predicted_grade": found[0].grade}
    return {**plan.optimized.to_dict(), **expected}


def _compressed_bytes(path: Path) -> int:
    """Size of a file after zlib, as it travels in an app or an update: what zeros and repeated weights save."""
    return len(zlib.compress(path.read_bytes(), 6))


def _manifest(
    plan: Plan,
    checks: Checks,
    result: ExportResult,
    artifacts: list[dict[str, Any]],
    golden: dict[str, Any],
    *,
    failed: bool,
) -> dict[str, Any]:
    captured = plan.optimized.original if plan.optimized else plan.capture
    source = captured.source
    named = "the recipe was named by the user" if plan.optimized else "the precision was named by the user"
    choice = list(plan.choice.reasons) if plan.choice else [named]
    not_made = [
        {"file": i.wanted.file, "sentence": f.sentence(with_format=False), **f.to_dict()}
        for i in result.not_made
        for f in i.reasons
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
            "macs": workload(captured.program).macs,
        },
        "optimization": _optimization(plan),
        "profile": plan.profile.model_dump(mode="json"),
        "recipes": [recipe.to_dict() for recipe in plan.recipes],
        "choice": choice,
        "inputs": [_tensor_entry(info) for info in source.inputs],
        "outputs": [_tensor_entry(info) for info in source.outputs],
        "artifacts": artifacts,
        "not_made": not_made,
        "evaluation": evaluation,
        "deployment": plan.deployment,
        "golden": golden,
        "versions": versions(),
        "warnings": [
            *(f.sentence() for f in plan.findings if f.severity != "error"),
            *(w for report in (plan.optimized.reports if plan.optimized else ()) for w in report.warnings),
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
