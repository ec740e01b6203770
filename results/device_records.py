"""Records of what was measured on a phone or board, in the one shape every record has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..android_harness.device_measure import DeviceMeasurement
from ..android_harness.device_session import DeviceSession
from ..android_harness.power import Energy
from .artifacts import Artifact
from .records import UNITS, Record, size_record, spread


def device_records(
    artifact: Artifact, measurement: DeviceMeasurement, session: DeviceSession, profile: str | None
) -> list[Record]:
    """Latency, cold start and memory (not where the CPU is emulated), agreement, size."""
    shared = _shared(artifact, measurement, session, profile)
    found: list[Record] = []
    if measurement.summary is not None:
        found += _timings(measurement, shared)
    parity = measurement.parity
    if parity is not None and (parity.with_reference or parity.with_host):
        chosen = parity.with_reference or parity.with_host
        assert chosen is not None
        details = {**parity.to_dict(), "compared_with": "source model" if parity.with_reference else "host"}
        warnings = () if measurement.summary is not None else measurement.warnings
        found.append(Record("cosine", chosen.cosine, None, details=details, warnings=warnings, **shared))
    return [*found, size_record(artifact, shared["target"], shared["runtime"], shared["runtime_version"])]


def app_records(
    artifact: Artifact,
    measurement: DeviceMeasurement,
    session: DeviceSession,
    profile: str | None,
    package: str,
) -> list[Record]:
    """Latency, cold start and memory inside an app process, under a target of their own: ``app:SERIAL``."""
    shared = _shared(artifact, measurement, session, profile)
    told = measurement.first.details
    shared["target"] = f"app:{session.target.name.partition(':')[2]}"
    shared["conditions"] |= {
        "package": package, "delegates": told["delegates"], "fallback": told["fallback"],
    }  # fmt: skip
    return _timings(measurement, shared)


def device_energy_records(
    energy: Energy,
    artifact: Artifact,
    measurement: DeviceMeasurement,
    session: DeviceSession,
    profile: str | None,
) -> list[Record]:
    """Energy of one inference and the power drawn meanwhile, by one of the device's own meters."""
    shared = _shared(artifact, measurement, session, profile)
    shared["warnings"] = energy.warnings
    shared["details"] = {
        "meter": energy.meter, "scope": energy.scope, "accuracy": energy.accuracy, "windows": energy.windows,
        "inferences": energy.inferences, "idle_mw": energy.idle_mw,
    }  # fmt: skip
    return [
        Record("energy_mj", energy.millijoules, energy.ci95, unit="mJ", **shared),
        Record("power_mw", energy.power_mw, None, unit="mW", **shared),
    ]


def _shared(
    artifact: Artifact, measurement: DeviceMeasurement, session: DeviceSession, profile: str | None
) -> dict[str, Any]:
    options, device, first = measurement.options, measurement.device, measurement.first
    conditions = {
        **session.facts.as_json(),
        **measurement.conditions,
        "profile": profile,
        "cpu_affinity": list(device.cpus) if device.cpus else None,
        "cpu_features": list(first.cpu_features),
        "uarch": first.uarch,
        "runner": measurement.payload.dialect,
    }
    return {
        "grade": "emulated" if session.facts.emulated_by else session.target.grade,
        "artifact": artifact.name,
        "target": session.target.name,
        "threads": options.num_threads,
        "conditions": conditions,
        "artifact_sha256": artifact.sha256(),
        "format": artifact.format,
        "precision": artifact.precision,
        "runtime": measurement.payload.runtime,
        "runtime_version": first.runtime_version,
        "partial": measurement.partial,
    }


def _timings(measurement: DeviceMeasurement, shared: dict[str, Any]) -> list[Record]:
    summary = measurement.summary
    assert summary is not None
    reports = [take.report for take in measurement.used]
    details: dict[str, Any] = {
        "path": str(measurement.path.resolve()), "runs": summary.runs, "processes": len(reports),
        "p90_ms": summary.p90_ms, "p99_ms": summary.p99_ms, "min_ms": summary.min_ms, "mad_ms": summary.mad_ms,
        "processes_left_out": len(measurement.takes) - len(reports), "noise": asdict(summary.noise),
    }  # fmt: skip
    found = [
        Record(
            "latency_ms",
            summary.median_ms,
            summary.ci95,
            unit="ms",
            details=details,
            warnings=measurement.warnings,
            samples=tuple(tuple(r.times_ms) for r in reports),
            **shared,
        )
    ]
    columns: dict[str, Sequence[float | None]] = {
        "first_inference_ms": [r.first_inference_ms for r in reports],
        "load_ms": [r.load_ms for r in reports],
        "peak_memory_mib": [r.peak_mib for r in reports],
    }
    for metric, column in columns.items():
        values = [value for value in column if value is not None]
        if values:
            extra: dict[str, Any] = {"processes": len(values)}
            if metric == "peak_memory_mib":
                extra["planned_mib"] = reports[0].planned_mib
            middle = float(np.median(values))
            found.append(Record(metric, middle, spread(values), unit=UNITS[metric], details=extra, **shared))
    return found
