"""Turns what was measured into records: the one shape in which JSON, the store and the tables hold them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..android_harness.measure import Measurement, MeasureOptions, timeline
from ..android_harness.power import Energy
from ..android_harness.sampling import t975
from ..runtimes import version_of
from .artifacts import Artifact

UNITS = {
    "latency_ms": "ms",
    "first_inference_ms": "ms",
    "load_ms": "ms",
    "peak_memory_mib": "MiB",
    "size_bytes": "B",
    "energy_mj": "mJ",
    "power_mw": "mW",
}


@dataclass(frozen=True)
class Record:
    """One measured value with its interval, grade and conditions (DESIGN: one JSON shape)."""

    metric: str
    value: float
    ci95: tuple[float, float] | None
    grade: str
    artifact: str
    target: str
    threads: int
    conditions: dict[str, Any]
    unit: str = ""
    artifact_sha256: str = ""
    format: str = ""
    precision: str | None = None
    runtime: str = ""
    runtime_version: str = ""
    partial: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    samples: tuple[tuple[float, ...], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object in ``measurements``; the single run times stay in the store."""
        found = asdict(self)
        found.pop("samples")
        found["ci95"] = list(self.ci95) if self.ci95 else None
        found["warnings"] = list(self.warnings)
        return found


@dataclass(frozen=True)
class Run:
    """One call of a measuring command: its id, when, what, and its records."""

    command: str
    subject: str
    records: tuple[Record, ...]
    id: str = field(default_factory=lambda: "r" + uuid.uuid4().hex[:10])
    created_at: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


def records_of(artifact: Artifact, measurement: Measurement, target: str = "host") -> list[Record]:
    """The records of one file in one configuration: latency, cold start, memory, size."""
    results = [take.result for take in measurement.used]
    summary = measurement.summary
    options = measurement.options
    shared: dict[str, Any] = {
        "grade": "measured",
        "artifact": artifact.name,
        "target": target,
        "threads": options.num_threads,
        "conditions": {**measurement.conditions, **_how(measurement.runtime, options)},
        "artifact_sha256": artifact.sha256(),
        "format": artifact.format,
        "precision": artifact.precision,
        "runtime": measurement.runtime,
        "runtime_version": version_of(measurement.runtime),
        "partial": measurement.partial,
    }
    details: dict[str, Any] = {
        "path": str(artifact.path.resolve()),
        "runs": summary.runs,
        "processes": len(results),
        "p90_ms": summary.p90_ms,
        "p99_ms": summary.p99_ms,
        "min_ms": summary.min_ms,
        "mad_ms": summary.mad_ms,
        "cpu_time_ms": float(np.median([r["cpu_ms"] for r in results])),
        "warmup_runs": int(np.median([r["warmup_runs"] for r in results])),
        "noise": asdict(summary.noise),
    }
    if options.duration_s or options.rate_hz:
        details["timeline"] = timeline(measurement.used[-1])
        details["late_frames"] = results[-1]["late"]
    found = [
        Record(
            "latency_ms",
            summary.median_ms,
            summary.ci95,
            unit="ms",
            details=details,
            warnings=measurement.warnings,
            samples=tuple(tuple(r["times_ms"]) for r in results),
            **shared,
        )
    ]
    for metric, key in (
        ("first_inference_ms", "first_inference_ms"),
        ("load_ms", "load_ms"),
        ("peak_memory_mib", "peak_mib"),
    ):
        values = [r[key] for r in results]
        extra: dict[str, Any] = {"processes": len(values)}
        if metric == "peak_memory_mib":
            extra |= {"idle_runtime_mib": float(np.median([r["idle_mib"] for r in results]))}
            extra |= {"planned_mib": results[0]["planned_mib"]}
        found.append(
            Record(
                metric, float(np.median(values)), spread(values), unit=UNITS[metric], details=extra, **shared
            )
        )
    return [*found, size_record(artifact, target, measurement.runtime, shared["runtime_version"])]


def size_record(artifact: Artifact, target: str, runtime: str = "", runtime_version: str = "") -> Record:
    """The record of a file's size, for which nothing need run."""
    return Record(
        "size_bytes", artifact.path.stat().st_size, None, grade="measured", artifact=artifact.name, target=target,
        threads=0, conditions={}, unit="B", artifact_sha256=artifact.sha256(), format=artifact.format,
        precision=artifact.precision, runtime=runtime, runtime_version=runtime_version,
    )  # fmt: skip


def sizes_once(records: Sequence[Record]) -> list[Record]:
    """The records without the second and later ones of a file's size: it doesn't depend on the configuration."""
    seen: set[str] = set()
    kept = []
    for record in records:
        if record.metric == "size_bytes":
            if record.artifact_sha256 in seen:
                continue
            seen.add(record.artifact_sha256)
        kept.append(record)
    return kept


def energy_records(energy: Energy, artifact: Artifact, measurement: Measurement) -> list[Record]:
    """Energy of one inference and the power drawn while they ran, as one meter saw them."""
    shared: dict[str, Any] = {
        "grade": "measured",
        "artifact": artifact.name,
        "target": "host",
        "threads": measurement.options.num_threads,
        "conditions": {**measurement.conditions, **_how(measurement.runtime, measurement.options)},
        "artifact_sha256": artifact.sha256(),
        "format": artifact.format,
        "precision": artifact.precision,
        "runtime": measurement.runtime,
        "runtime_version": version_of(measurement.runtime),
        "warnings": energy.warnings,
        "details": energy_details(energy),
    }
    return [
        Record("energy_mj", energy.millijoules, energy.ci95, unit="mJ", **shared),
        Record("power_mw", energy.power_mw, None, unit="mW", **shared),
    ]


def energy_details(energy: Energy) -> dict[str, Any]:
    """What an energy figure rests on."""
    return {
        "meter": energy.meter,
        "scope": energy.scope,
        "accuracy": energy.accuracy,
        "windows": energy.windows,
        "inferences": energy.inferences,
        "idle_mw": energy.idle_mw,
    }


def _how(runtime: str, options: MeasureOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"cpu_affinity": list(options.cpu_affinity) or None}
    if runtime in ("litert", "tflite_runtime"):
        found["xnnpack"] = options.use_xnnpack
    if options.rate_hz:
        found["rate_hz"] = options.rate_hz
    if options.duration_s:
        found["duration_s"] = options.duration_s
    return found


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """t interval of a few process values, stretched to hold their median; None for fewer than three."""
    if len(values) < 3:
        return None
    array = np.asarray(values, dtype=np.float64)
    half = t975(len(array) - 1) * float(array.std(ddof=1)) / len(array) ** 0.5
    middle = float(np.median(array))
    return max(0.0, min(middle, float(array.mean()) - half)), max(middle, float(array.mean()) + half)


def subject_of(paths: Sequence[Path]) -> str:
    """How a run names what it measured."""
    return " ".join(path.name or str(path) for path in paths)
