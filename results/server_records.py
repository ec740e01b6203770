"""The server path as records and as rows beside the edge's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..android_harness.conditions import Conditions
from ..android_harness.power import Energy
from ..android_harness.sampling import summarize
from ..android_harness.server import ServerOptions
from .records import Record, energy_details
from .tables import interval, metric_cell, number, significant


def server_records(
    model: str, options: ServerOptions, result: Mapping[str, Any], conditions: Conditions
) -> list[Record]:
    """Latency of one item, throughput of every batch size, memory and energy where they could be measured."""
    facts = conditions.as_json()
    if result["device"]:
        facts["device"] = result["device"]
    facts["mode"] = "torch.compile" if options.compiled else "eager"
    shared: dict[str, Any] = {
        "grade": "measured",
        "artifact": model,
        "target": f"server:{options.device}",
        "threads": int(result["threads"]) if options.device == "cpu" else 0,
        "conditions": facts,
        "format": "torch",
        "precision": options.precision,
        "runtime": "torch_compile" if options.compiled else "torch",
        "runtime_version": result["torch"],
    }
    found = []
    for point in result["points"]:
        summary = summarize([point["times_ms"]])
        per_second = point["batch"] * 1e3
        bounds = summary.ci95
        details = {"batch": point["batch"], "runs": summary.runs, "snr_db": result["snr_db"]}
        if result["int8_share"] is not None:
            details["int8_share"] = result["int8_share"]
        latency = Record(
            "latency_ms",
            summary.median_ms,
            bounds,
            unit="ms",
            details=details,
            warnings=summary.warnings,
            **shared,
        )
        found.append(latency)
        rate = (per_second / bounds[1], per_second / bounds[0]) if bounds else None
        found.append(
            Record(
                "throughput_per_s",
                per_second / summary.median_ms,
                rate,
                unit="1/s",
                details=details,
                **shared,
            )
        )
        if point["peak_mib"] is not None:
            found.append(
                Record("peak_memory_mib", point["peak_mib"], None, unit="MiB", details=details, **shared)
            )
    energy = result["energy"]
    if energy:
        details = {
            k: energy[k] for k in ("meter", "scope", "accuracy", "windows", "inferences", "idle_mw", "batch")
        }
        bounds = tuple(energy["ci95"]) if energy["ci95"] else None
        found.append(Record("energy_mj", energy["millijoules"], bounds, unit="mJ", details=details, **shared))
    if result["accuracy"]:
        found.append(accuracy_beside(found[0], result["accuracy"]))
    return found


# What a record copied from a latency must not keep of it.
_BARE: dict[str, Any] = {"ci95": None, "unit": "", "warnings": (), "samples": ()}


def accuracy_beside(latency: Record, found: Mapping[str, Any]) -> Record:
    """The task metric of the file whose latency was measured."""
    details = {"metric": found["metric"], "samples": found["samples"]}
    return replace(latency, **_BARE, metric="accuracy", value=found["value"], details=details)


def energy_beside(latency: Record, energy: Energy) -> Record:
    """The energy of the file whose latency was measured."""
    changed = {**_BARE, "ci95": energy.ci95, "unit": "mJ", "warnings": energy.warnings}
    return replace(
        latency, **changed, metric="energy_mj", value=energy.millijoules, details=energy_details(energy)
    )


def server_rows(records: Sequence[Record]) -> list[dict[str, str]]:
    """Edge and server in one table: latency of one item, best throughput, energy."""
    rows = []
    groups: dict[tuple[str, str, str, str | None], list[Record]] = {}
    for record in records:
        key = (record.target, record.artifact, record.runtime, record.precision)
        groups.setdefault(key, []).append(record)
    for (target, artifact, runtime, precision), group in groups.items():
        latency = next((r for r in group if r.metric == "latency_ms"), None)
        if latency is None:
            continue
        rates = [r for r in group if r.metric == "throughput_per_s"]
        best = max(rates, key=lambda r: r.value, default=None)
        energy = next((r for r in group if r.metric == "energy_mj"), None)
        accuracy = next((r for r in group if r.metric == "accuracy"), None)
        rows.append(
            {
                "where": "edge" if target == "host" else target,
                "artifact": artifact,
                "precision": precision or "",
                "runtime": runtime,
                "latency": interval(latency.as_json()),
                "items/s": f"{significant(best.value)} at batch {best.details['batch']}"
                if best
                else f"{significant(1e3 / latency.value)} at batch 1",
                "energy mJ (95%)": interval(energy.as_json()) if energy else "",
                "accuracy": metric_cell(accuracy),
                "SNR dB": number(latency.details.get("snr_db")),
            }
        )
    return rows
