"""A comparison as records, as the JSON list ``comparisons``, and in words."""

from __future__ import annotations

from typing import Any

from ..android_harness.measure import worst_of
from ..runtimes import runtime_for, version_of
from .artifacts import Artifact
from .comparison import Comparison, Duel
from .records import Record, Run, size_record
from .tables import number


def records_of_comparison(comparison: Comparison, artifacts: list[Artifact], subject: str) -> Run:
    """A latency record for each contender, and the size of each file."""
    facts = comparison.rounds[-1].conditions.facts
    problems = worst_of(p for r in comparison.rounds for p in r.conditions.problems)
    found = []
    for i, (contender, artifact) in enumerate(zip(comparison.contenders, artifacts, strict=True)):
        summary = comparison.summaries[i]
        runtime = contender.options.runtime or runtime_for(artifact.path)
        shared: dict[str, Any] = {
            "grade": "measured",
            "artifact": artifact.name,
            "target": "host",
            "artifact_sha256": artifact.sha256(),
            "format": artifact.format,
            "precision": artifact.precision,
            "runtime": runtime,
            "runtime_version": version_of(runtime),
            "partial": comparison.partial,
        }
        details = {
            "label": contender.label,
            "interleaved": True,
            "runs": summary.runs,
            "processes": len(comparison.rounds),
            "p90_ms": summary.p90_ms,
            "p99_ms": summary.p99_ms,
            "min_ms": summary.min_ms,
            "mad_ms": summary.mad_ms,
        }
        found.append(
            Record(
                "latency_ms",
                summary.median_ms,
                summary.ci95,
                unit="ms",
                threads=contender.options.num_threads,
                conditions={**facts, "good": not problems, "problems": problems},
                details=details,
                samples=tuple(tuple(t for part in r.slices[i] for t in part) for r in comparison.rounds),
                **shared,
            )
        )
        found.append(size_record(artifact, "host", runtime, shared["runtime_version"]))
    return Run("compare", subject, tuple(found))


def comparisons_json(comparison: Comparison) -> list[dict[str, Any]]:
    """The JSON list ``comparisons``: each contender's time over the reference's."""
    reference = comparison.contenders[0].label
    return [
        {
            "artifact": duel.contender.label,
            "reference": reference,
            "metric": "latency_ms",
            "ratio": duel.ratio.value,
            "ci95": [duel.ratio.low, duel.ratio.high],
            "rounds": duel.ratio.rounds,
            "verdict": duel.verdict,
            "sentence": in_words(duel, reference, comparison.margin),
            "margin": comparison.margin,
            "measured_twice": duel.remeasured,
            "grade": "measured",
        }
        for duel in comparison.duels
    ]


def in_words(duel: Duel, reference: str, margin: float) -> str:
    """``b is 1.12× slower than a (95%: 1.10–1.14)``, or that nothing can be told."""
    ratio, name = duel.ratio, duel.contender.label
    bounds = f"95%: {ratio.low:.3f}–{ratio.high:.3f}"
    if duel.verdict == "slower":
        return f"{name} takes {number(ratio.value)}× as long as {reference} ({bounds})"
    if duel.verdict == "faster":
        return f"{name} is {number(1 / ratio.value)}× as fast as {reference} (its time is {bounds} of it)"
    if duel.verdict == "same":
        return f"{name} and {reference} are equally fast within {margin:.0%} ({bounds})"
    return f"no difference between {name} and {reference} that can be told at 95% (ratio {bounds})"


def comparison_rows(comparison: Comparison, run: Run) -> list[dict[str, str]]:
    """Rows for the tables: each contender with its latency and its ratio to the first."""
    from .tables import interval, metric_cell, size

    sizes = {r.artifact_sha256: r.value for r in run.records if r.metric == "size_bytes"}
    latencies = [r for r in run.records if r.metric == "latency_ms" and r.target == "host"]
    beside = {(r.metric, r.artifact_sha256): r for r in run.records if r.target == "host"}
    rows = []
    for i, record in enumerate(latencies):
        row = {
            "artifact": record.details["label"],
            "precision": record.precision or "",
            "runtime": record.runtime,
            "latency": interval(record.as_json()),
            "size": size(sizes.get(record.artifact_sha256)),
            "energy mJ (95%)": "",
            "accuracy": metric_cell(beside.get(("accuracy", record.artifact_sha256))),
            "ratio (95%)": "1.000",
            "verdict": "reference",
        }
        energy = beside.get(("energy_mj", record.artifact_sha256))
        if energy is not None:
            row["energy mJ (95%)"] = interval(energy.as_json())
        if i:
            ratio = comparison.duels[i - 1].ratio
            bounds = f"{ratio.low:.3f}–{ratio.high:.3f}"
            row["ratio (95%)"] = f"{ratio.value:.3f} ({bounds})"
            row["verdict"] = VERDICTS[comparison.duels[i - 1].verdict]
        rows.append(row)
    return rows


VERDICTS = {
    "slower": "slower",
    "faster": "faster",
    "same": "equally fast",
    "undecided": "can't be told",
}
