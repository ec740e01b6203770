"""The measurement protocol: how a file's run time is taken so that the figure means something.

Several fresh processes, one after another; in each: cold start (load, first inference) apart, warm-up until
steady, then runs until their interval is tight or the time is over. Processes are added until the interval
over processes is tight or the time limit is reached. The machine's conditions are read around each process;
a process that ran under bad ones is repeated, and is used only when there is no better (then the
measurement says so).
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from ..runtimes import check_file, runtime_for
from ..runtimes.isolation import run_job
from ..runtimes.scratch import ScratchFolder
from ..wording import counted
from .conditions import Conditions, judge, snapshot
from .sampling import Summary, summarize

_WARMUP_LIMIT_S = 2.0
_STARTUP_ALLOWANCE_S = 300.0

Progress = Callable[[str, float | None], None]


def silent(what: str, fraction: float | None = None) -> None:
    """The progress of a caller who doesn't want any."""


@dataclass(frozen=True)
class MeasureOptions:
    """How to measure. Times in seconds.

    ``processes`` is the least number of fresh processes; more are started until the interval's half-width is
    below ``ci_goal`` of the median or ``max_time_s`` is spent. ``run_time_s`` limits the timed part of one
    process; ``num_runs`` fixes its number of runs instead. ``duration_s`` asks for one sustained run, with
    ``rate_hz`` at a camera's pace. ``inputs`` is an .npz with arrays in the order (or by the names) of the
    file's inputs.
    """

    runtime: str | None = None
    num_threads: int = 1
    use_xnnpack: bool = True
    cpu_affinity: tuple[int, ...] = ()
    processes: int = 3
    max_time_s: float = 20.0
    run_time_s: float = 1.0
    ci_goal: float = 0.03
    num_runs: int | None = None
    warmup_runs: int = 3
    duration_s: float | None = None
    rate_hz: float | None = None
    inputs: Path | None = None


@dataclass(frozen=True)
class Take:
    """One fresh process: what its worker reported, and the conditions around it."""

    result: dict[str, Any]
    conditions: Conditions


@dataclass(frozen=True)
class Measurement:
    """All that was taken for one file in one configuration. ``used`` are the takes the figures rest on."""

    path: Path
    runtime: str
    options: MeasureOptions
    takes: tuple[Take, ...]
    used: tuple[Take, ...]
    summary: Summary
    warnings: tuple[str, ...]
    partial: bool

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions of the takes used, merged: the last one's facts, everyone's problems."""
        problems = worst_of(p for take in self.used for p in take.conditions.problems)
        return {**self.used[-1].conditions.facts, "good": not problems, "problems": problems}


def measure(path: Path, options: MeasureOptions, progress: Progress = silent) -> Measurement:
    """Measure one file on this machine.

    Raises:
        InputError: the file or the options are wrong.
        EdgeoptError: the runtime crashed or failed.
        KeyboardInterrupt: interrupted before anything was measured (otherwise the result is partial).
    """
    check_file(path)
    check_options(options)
    runtime = options.runtime or runtime_for(path)
    takes: list[Take] = []
    started = time.monotonic()
    partial = False
    repeats = 0
    while True:
        progress(f"{path.name} · {counted(options.num_threads, 'thread')}", _share(options, started))
        try:
            take = _take(path, runtime, options)
        except KeyboardInterrupt:
            if not takes:
                raise
            partial = True
            break
        if take.result["times_ms"]:
            takes.append(take)
        partial = bool(take.result["partial"])
        good = [t for t in takes if not t.conditions.problems]
        if partial or options.duration_s:
            break
        if len(takes) - len(good) > repeats and len(good) < options.processes and repeats < options.processes:
            repeats += 1
            continue
        if len(takes) - repeats >= options.processes and _enough(good or takes, options, started):
            break
    if not takes:
        raise KeyboardInterrupt
    good = [t for t in takes if not t.conditions.problems]
    used = tuple(good if len(good) >= min(2, options.processes) else takes)
    summary = summarize([t.result["times_ms"] for t in used])
    warnings = [*summary.warnings, *_warnings(used, takes, options)]
    return Measurement(path, runtime, options, tuple(takes), used, summary, tuple(warnings), partial)


def check_options(options: MeasureOptions) -> None:
    """Refuse options that can't be measured here.

    Raises:
        InputError: naming the option.
    """
    check_protocol(options)
    available = os.sched_getaffinity(0)
    wrong = [cpu for cpu in options.cpu_affinity if cpu not in available]
    if wrong:
        raise InputError(
            f"--cpu-affinity names CPU {wrong[0]}, but this process may use {_ranges(available)} only."
        )
    if options.inputs is not None and not options.inputs.is_file():
        raise InputError(f"{options.inputs} does not exist: give an .npz file with the inputs.")


def check_protocol(options: MeasureOptions) -> None:
    """Refuse options that can't be meant, wherever it is measured.

    Raises:
        InputError: naming the option.
    """
    least = (
        ("--num-threads", options.num_threads, 1),
        ("--processes", options.processes, 1),
        ("--num-runs", options.num_runs, 1),
        ("--warmup-runs", options.warmup_runs, 0),
    )
    for name, number, lowest in least:
        if number is not None and number < lowest:
            raise InputError(f"{name} must be at least {lowest}, not {number}.")
    positive = {"--rate": options.rate_hz, "--max-time": options.max_time_s, "--duration": options.duration_s}
    for name, value in positive.items():
        # Of NaN, no comparison is true: a limit that never comes.
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} must be positive, not {value:g}.")


def job_of(path: Path, runtime: str, options: MeasureOptions, mode: str) -> dict[str, Any]:
    """The worker's job file."""
    job = asdict(options)
    if options.rate_hz and not options.duration_s:
        job["duration_s"] = options.max_time_s
    return {
        **job,
        "mode": mode,
        "path": str(path.resolve()),
        "runtime": runtime,
        "cpu_affinity": list(options.cpu_affinity),
        "warmup_limit_s": _WARMUP_LIMIT_S,
        "inputs": str(options.inputs.resolve()) if options.inputs else None,
    }


def _take(path: Path, runtime: str, options: MeasureOptions) -> Take:
    with ScratchFolder("measure") as folder:
        before, started = snapshot(), time.monotonic()
        result = run_job(
            "android_harness.measure_worker",
            job_of(path, runtime, options, "steady"),
            Path(folder),
            what=path,
            runtime=runtime,
            timeout_s=_STARTUP_ALLOWANCE_S + options.max_time_s + (options.duration_s or 0.0),
        )
        return Take(result, judge(before, snapshot(), time.monotonic() - started))


def _share(options: MeasureOptions, started: float) -> float:
    return min(0.99, (time.monotonic() - started) / options.max_time_s)


def _enough(takes: list[Take], options: MeasureOptions, started: float) -> bool:
    if time.monotonic() - started >= options.max_time_s:
        return True
    summary = summarize([t.result["times_ms"] for t in takes], resamples=200)
    if summary.ci95 is None:
        return True
    return (summary.ci95[1] - summary.ci95[0]) / 2 <= options.ci_goal * summary.median_ms


def _warnings(used: tuple[Take, ...], takes: list[Take], options: MeasureOptions) -> list[str]:
    found = []
    if any(take.conditions.problems for take in used):
        problems = worst_of(p for take in used for p in take.conditions.problems)
        found.append(f"measured under bad conditions: {'; '.join(problems)}")
    dropped = len(takes) - len(used)
    if dropped:
        found.append(f"{dropped} of {len(takes)} processes were left out because their conditions were bad")
    if not all(take.result["steady"] for take in used):
        found.append("the run time was still changing when the warm-up ended")
    cpus = len(options.cpu_affinity) or len(os.sched_getaffinity(0))
    if options.num_threads > cpus:
        found.append(f"{options.num_threads} threads share {counted(cpus, 'CPU')}")
    late = sum(take.result.get("late") or 0 for take in used)
    if late:
        found.append(f"{late} frames were late for {options.rate_hz:g} Hz")
    return found


def worst_of(problems: Iterable[str]) -> list[str]:
    """One sentence of each kind, the one with the largest figure."""
    worst: dict[str, str] = {}
    for problem in problems:
        kind = re.sub(r"[\d.]+", "#", problem)
        worst[kind] = max(worst.get(kind, problem), problem, key=_figure)
    return list(worst.values())


def _figure(problem: str) -> float:
    found = re.search(r"\d+(\.\d+)?", problem)
    return float(found[0]) if found else 0.0


def _ranges(cpus: set[int]) -> str:
    return ", ".join(str(cpu) for cpu in sorted(cpus))


def timeline(take: Take, bins: int = 30) -> list[tuple[float, float]]:
    """Latency over time of a sustained run: (seconds since start, median ms) in ``bins`` equal spans."""
    offsets, times = take.result.get("offsets_s"), take.result["times_ms"]
    if not offsets:
        raise EdgeoptError("the measurement has no timeline: it was not a sustained run.")
    import numpy as np

    edges = np.linspace(0, max(offsets) + 1e-9, bins + 1)
    place = np.clip(np.digitize(offsets, edges) - 1, 0, bins - 1)
    values = np.asarray(times)
    return [
        (float((edges[b] + edges[b + 1]) / 2), float(np.median(values[place == b])))
        for b in range(bins)
        if (place == b).any()
    ]
