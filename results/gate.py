"""``edgeopt gate``: has a file become worse than its baseline?

A baseline is a stored run, a JSON file that ``edgeopt bench --json`` wrote, or the older files themselves. It
must come from the same device. Before a regression in time is called one, old and new are measured side by
side when the old file is still there; else the new one is measured a second time and both measurements must
exceed the limit with their whole interval.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..android_harness.conditions import machine_facts
from ..android_harness.measure import MeasureOptions, Progress, measure, silent
from ..errors import InputError
from ..wording import counted
from .artifacts import Artifact, find_artifacts
from .comparison import Contender, Effort, compare
from .records import Record, records_of, size_record, sizes_once
from .store import Store, record_from_json

TIMES = ("latency_ms", "first_inference_ms", "load_ms")
METRICS = (*TIMES, "peak_memory_mib", "size_bytes")


@dataclass(frozen=True)
class Check:
    """One file and metric against its baseline. ``ratio`` is new over old, ``ci95`` its interval."""

    artifact: str
    metric: str
    threads: int
    baseline: float
    value: float
    ratio: float
    ci95: tuple[float, float] | None
    limit: float
    side_by_side: bool
    ok: bool
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """The object in the JSON list ``checks``."""
        return asdict(self)


def load_baseline(reference: str, store_url: str | None) -> list[Record] | list[Artifact]:
    """What ``--baseline`` means: records of a run or a JSON file, or artefacts to measure against.

    Raises:
        InputError: it is none of these.
    """
    path = Path(reference)
    if path.suffix == ".json" and path.is_file():
        try:
            entries = json.loads(path.read_text())["measurements"]
            records = [record_from_json(entry) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            why = str(error).rstrip(".")
            raise InputError(f"{path} is not what edgeopt bench --json prints ({why}).") from error
        if not records:
            raise InputError(f"{path} holds no measurements.")
        return records
    if path.exists():
        return find_artifacts([path])
    if "/" in reference or path.suffix:
        raise InputError(f"--baseline {reference} does not exist.")
    store = Store(store_url, to_read=True)
    try:
        return store.run(reference)
    finally:
        store.close()


def gate(
    artifacts: Sequence[Artifact],
    baseline: list[Record] | list[Artifact],
    *,
    max_regression: float,
    metrics: Sequence[str] = ("latency_ms",),
    options: MeasureOptions | None = None,
    effort: Effort | None = None,
    progress: Progress = silent,
) -> tuple[list[Check], list[Record]]:
    """Check every artefact that has a baseline.

    Args:
        max_regression: the share by which a metric may grow, e.g. 0.05.

    Returns:
        the checks, and the records measured for them.

    Raises:
        InputError: nothing matches, another device, an unknown metric.
        EdgeoptError: a runtime failed.
    """
    unknown = [m for m in metrics if m not in METRICS]
    if unknown:
        raise InputError(f"unknown metric {unknown[0]!r}: choose from {', '.join(METRICS)}.")
    options, effort = options or MeasureOptions(), effort or Effort()
    timed = [metric for metric in metrics if metric != "size_bytes"]
    old = _measured_baseline(baseline, timed, options, progress) if _are_artifacts(baseline) else baseline
    # One file against one older file: whatever their names are, the user has said what belongs together.
    a_pair = _are_artifacts(baseline) and len(baseline) == len(artifacts) == 1
    records: list[Record] = []
    checks: list[Check] = []
    for artifact in artifacts:
        matching = [r for r in old if isinstance(r, Record) and (a_pair or _matches(r, artifact))]
        if "size_bytes" in metrics and (
            pair := _pair(matching, [size_record(artifact, "host")], "size_bytes", 0)
        ):
            checks.append(_check(artifact, *pair, max_regression, options, effort, progress))
            records.append(pair[1])
        for threads in sorted({r.threads for r in matching if r.metric != "size_bytes"}) if timed else ():
            chosen = replace(options, num_threads=threads)
            new = records_of(artifact, measure(artifact.path, chosen, progress))
            records += new
            for metric in timed:
                if pair := _pair(matching, new, metric, threads):
                    checks.append(_check(artifact, *pair, max_regression, chosen, effort, progress))
    if not checks:
        _not_of_this_host(old, artifacts)
        names = ", ".join(dict.fromkeys(r.artifact for r in old if isinstance(r, Record)))
        raise InputError(f"nothing to compare: the baseline holds {names} and not these files or metrics.")
    return checks, sizes_once(records)


def _not_of_this_host(old: Sequence[Any], artifacts: Sequence[Artifact]) -> None:
    """Say so when the baseline holds the files, but of an emulated or another device."""
    names = {artifact.name for artifact in artifacts}
    elsewhere = [r for r in old if isinstance(r, Record) and r.artifact in names and r.target != "host"]
    if elsewhere:
        helps = (
            "counts are gated with --on emulator and a baseline of --write-baseline"
            if elsewhere[0].target == "emulator"
            else "only measurements of this host can be gated"
        )
        raise InputError(f"the baseline of {elsewhere[0].artifact} is of {elsewhere[0].target}: {helps}.")


def _are_artifacts(baseline: Sequence[Any]) -> bool:
    return all(isinstance(one, Artifact) for one in baseline)


def _measured_baseline(
    artifacts: Sequence[Any], timed: Sequence[str], options: MeasureOptions, progress: Progress
) -> list[Record]:
    """The records of the older files, which aren't run when only sizes are asked for."""
    if not timed:
        return [size_record(artifact, "host") for artifact in artifacts]
    return [r for a in artifacts for r in records_of(a, measure(a.path, options, progress))]


def _matches(record: Record, artifact: Artifact) -> bool:
    if record.target != "host" or record.grade != "measured":
        return False
    return record.artifact == artifact.name or record.artifact_sha256 == artifact.sha256()


def _pair(
    old: Sequence[Record], new: Sequence[Record], metric: str, threads: int
) -> tuple[Record, Record] | None:
    def pick(records: Sequence[Record]) -> Record | None:
        return next((r for r in records if r.metric == metric and r.threads == threads), None)

    before, after = pick(old), pick(new)
    return (before, after) if before and after else None


def _check(
    artifact: Artifact,
    old: Record,
    new: Record,
    limit: float,
    options: MeasureOptions,
    effort: Effort,
    progress: Progress,
) -> Check:
    ratio, bounds = _ratio(old, new)
    if new.metric == "size_bytes":
        return _verdict(old, new, ratio, None, limit, worse=ratio > 1 + limit, side_by_side=False)
    _same_device(old, new)
    if ratio <= 1 + limit:
        return _verdict(old, new, ratio, bounds, limit, worse=False, side_by_side=False)
    # It looks worse. Don't believe it yet.
    old_file = _old_file(old)
    if new.metric == "latency_ms" and old_file is not None:
        pair = [Contender("baseline", old_file, options), Contender(artifact.name, artifact.path, options)]
        outcome = compare(pair, replace(effort, margin=limit), progress)
        duel = outcome.duels[0]
        found = (duel.ratio.low, duel.ratio.high)
        worse = duel.verdict == "slower"
        return _verdict(old, new, duel.ratio.value, found, limit, worse=worse, side_by_side=True)
    again = records_of(artifact, measure(artifact.path, options, progress))
    second = next(r for r in again if r.metric == new.metric)
    ratio_again, bounds_again = _ratio(old, second)
    lows = [b[0] if b else r for b, r in ((bounds, ratio), (bounds_again, ratio_again))]
    worse = all(low > 1 + limit for low in lows)
    better = min(((ratio, bounds, new), (ratio_again, bounds_again, second)), key=lambda one: one[0])
    return _verdict(old, better[2], better[0], better[1], limit, worse=worse, side_by_side=False)


def _ratio(old: Record, new: Record) -> tuple[float, tuple[float, float] | None]:
    """New over old, and the widest interval that both intervals allow."""
    ratio = new.value / old.value if old.value else float("inf")
    if not (old.ci95 and new.ci95 and old.ci95[0] > 0):
        return ratio, None
    return ratio, (new.ci95[0] / old.ci95[1], new.ci95[1] / old.ci95[0])


def _old_file(old: Record) -> Path | None:
    path = Path(str(old.details.get("path", "")))
    if not path.is_file():
        return None
    same = Artifact(path, path.name, path.suffix.lstrip(".")).sha256() == old.artifact_sha256
    return path if same else None


def _same_device(old: Record, new: Record) -> None:
    here = new.conditions.get("device") or machine_facts()["device"]
    there = old.conditions.get("device")
    if there != here:
        raise InputError(
            f"the baseline was measured on {there or 'an unknown device'}, this is {here}: "
            "times of two devices can't be compared; measure the baseline here."
        )
    for what in ("runtime", "threads"):
        if getattr(old, what) != getattr(new, what):
            raise InputError(
                f"the baseline of {old.artifact} has {what} {getattr(old, what)}, this run "
                f"{getattr(new, what)}: "
                "measure both alike."
            )


def _verdict(
    old: Record,
    new: Record,
    ratio: float,
    bounds: tuple[float, float] | None,
    limit: float,
    *,
    worse: bool,
    side_by_side: bool,
) -> Check:
    how = "side by side" if side_by_side else "against the stored figure"
    interval = f", 95%: {bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else ""
    if worse:
        tail = f"is {ratio:.3f} times the baseline ({how}{interval}): more than the {1 + limit:g} allowed"
    elif ratio > 1 + limit:
        tail = f"looks {ratio:.3f} times the baseline ({how}{interval}), which is not certain enough to fail"
    else:
        tail = f"is {ratio:.3f} times the baseline ({how}{interval}): within {1 + limit:g}"
    sentence = f"{new.artifact}, {new.metric}, {counted(new.threads, 'thread')}: {tail}"
    if new.metric == "size_bytes":
        sentence = f"{new.artifact}, size: {tail.replace(f' ({how})', '')}"
    return Check(
        artifact=new.artifact,
        metric=new.metric,
        threads=new.threads,
        baseline=old.value,
        value=new.value,
        ratio=ratio,
        ci95=bounds,
        limit=limit,
        side_by_side=side_by_side,
        ok=not worse,
        sentence=sentence,
    )
