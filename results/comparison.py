"""Compares files with one another: interleaved rounds in fresh processes, ratios, and verdicts that hold.

The first file is the reference; every other file gets a ratio to it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..android_harness.conditions import Conditions, judge, snapshot
from ..android_harness.measure import MeasureOptions, Progress, silent
from ..android_harness.sampling import Summary, summarize
from ..android_harness.session import Session, interleave
from ..errors import InputError
from .artifacts import Artifact
from .statistics import Ratio, ratio_of_rounds, round_log_ratio, verdict

_MANY_BROKEN = 0.02  # of all runs, from which it is said
_TOO_WIDE = 0.05  # relative half-width of a ratio's interval that makes a set of rounds invalid


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: a file and how to run it."""

    label: str
    path: Path
    options: MeasureOptions


@dataclass(frozen=True)
class Round:
    """One round: for each contender its slices of run times in ms, its cold start, and the conditions."""

    slices: tuple[tuple[tuple[float, ...], ...], ...]
    starts: tuple[dict[str, float], ...]
    conditions: Conditions


@dataclass(frozen=True)
class Duel:
    """A contender against the reference. ``verdict``: "slower", "faster", "same" or "undecided"."""

    contender: Contender
    ratio: Ratio
    verdict: str
    remeasured: bool


@dataclass(frozen=True)
class Comparison:
    """The outcome: one summary a contender (all rounds), one duel for each but the reference."""

    contenders: tuple[Contender, ...]
    summaries: tuple[Summary, ...]
    duels: tuple[Duel, ...]
    rounds: tuple[Round, ...]
    margin: float
    partial: bool


@dataclass(frozen=True)
class Effort:
    """How much to measure: ``rounds`` of fresh processes, each of ``slices`` slices of ``slice_s`` seconds.

    ``margin`` is the relative difference below which nobody is called slower or faster.
    """

    rounds: int = 6
    slices: int = 16
    slice_s: float = 0.04
    margin: float = 0.01


def contenders_of(artifacts: Sequence[Artifact], options: MeasureOptions) -> list[Contender]:
    """One contender a file; files of the same name are told apart by their folder and number."""
    names = [artifact.name for artifact in artifacts]
    return [
        Contender(
            a.name if names.count(a.name) == 1 else f"{a.path.resolve().parent.name}/{a.name} [{i + 1}]",
            a.path,
            replace(options, inputs=options.inputs or a.inputs),
        )
        for i, a in enumerate(artifacts)
    ]


def compare(contenders: Sequence[Contender], effort: Effort, progress: Progress = silent) -> Comparison:
    """Measure all contenders side by side.

    A difference is measured a second time, with as many rounds, before a verdict calls it one. The number of
    rounds is fixed beforehand: stopping when the interval looks right would make it lie.

    Raises:
        InputError: fewer than two contenders, or a wrong file.
        EdgeoptError: a runtime crashed or failed.
        KeyboardInterrupt: interrupted before two rounds were done (otherwise the result is partial).
    """
    if len(contenders) < 2:
        raise InputError("compare needs at least two files.")
    if effort.rounds < 2:
        raise InputError(f"--rounds must be at least 2, not {effort.rounds}.")
    rounds: list[Round] = []
    partial = False
    try:
        _add_rounds(rounds, contenders, effort, "round", progress)
        if any(ratio.half_width > _TOO_WIDE for ratio in _ratios(rounds, len(contenders))):
            # An invalid set is repeated once. Its width alone decides, so that neither side gains by it.
            noisy, rounds = rounds, []
            try:
                _add_rounds(rounds, contenders, effort, "too noisy, measured again: round", progress)
            except KeyboardInterrupt:
                rounds = noisy
                raise
        if any(r.excludes_equality(effort.margin) for r in _ratios(rounds, len(contenders))):
            _add_rounds(rounds, contenders, effort, "a difference, measured again: round", progress)
    except KeyboardInterrupt:
        if len(rounds) < 2:
            raise
        partial = True
    return _evaluate(contenders, rounds, effort, partial)


def _add_rounds(
    rounds: list[Round], contenders: Sequence[Contender], effort: Effort, what: str, progress: Progress
) -> None:
    for number in range(effort.rounds):
        progress(f"{what} {number + 1} of {effort.rounds}", number / effort.rounds)
        rounds.append(_round(contenders, effort, len(rounds)))


def _evaluate(
    contenders: Sequence[Contender], rounds: list[Round], effort: Effort, partial: bool
) -> Comparison:
    first = _ratios(rounds[: effort.rounds], len(contenders))
    again = rounds[effort.rounds :]
    # An interrupted second set confirms nothing.
    second = _ratios(again, len(contenders)) if len(again) == effort.rounds else [None] * len(first)
    pooled = _ratios(rounds, len(contenders))
    duels = tuple(
        Duel(contender, ratio, verdict(one, two, ratio, effort.margin), two is not None)
        for contender, ratio, one, two in zip(contenders[1:], pooled, first, second, strict=True)
    )
    summaries = tuple(
        summarize([[t for part in r.slices[i] for t in part] for r in rounds]) for i in range(len(contenders))
    )
    return Comparison(tuple(contenders), summaries, duels, tuple(rounds), effort.margin, partial)


def _ratios(rounds: Sequence[Round], contenders: int) -> list[Ratio]:
    return [
        ratio_of_rounds([round_log_ratio(r.slices[0], r.slices[i]) for r in rounds])
        for i in range(1, contenders)
    ]


def _round(contenders: Sequence[Contender], effort: Effort, number: int) -> Round:
    before, started = snapshot(), time.monotonic()
    with contextlib.ExitStack() as stack:
        sessions: list[Session | None] = [None] * len(contenders)
        # The order of starting alternates too: the later process finds another memory layout.
        order = range(len(contenders)) if number % 2 == 0 else reversed(range(len(contenders)))
        for i in order:
            options = _on_one_cpu(contenders[i].options, number)
            one = stack.enter_context(Session(contenders[i].path, options))
            # Wait for it: two processes loading at once would warm up against each other.
            _ = one.start
            sessions[i] = one
        ready = [session for session in sessions if session is not None]
        taken = interleave(ready, slices=effort.slices, slice_s=effort.slice_s, first=number)
        starts = tuple(session.start for session in ready)
    conditions = judge(before, snapshot(), time.monotonic() - started)
    broken = sum(s.interrupted for s in ready) / max(1, sum(s.runs for s in ready))
    if broken > _MANY_BROKEN:
        said = f"other processes broke into {broken:.0%} of the runs (their time off the CPU isn't counted)"
        conditions = replace(conditions, problems=(*conditions.problems, said))
    return Round(tuple(tuple(tuple(part) for part in one) for one in taken), starts, conditions)


def _on_one_cpu(options: MeasureOptions, number: int) -> MeasureOptions:
    """Single-threaded contenders of a round share one CPU, another one each round: only one of them runs at
    a time, and left to the scheduler each would keep a CPU of its own with its own neighbours."""
    if options.num_threads > 1 or options.cpu_affinity:
        return options
    cpus = sorted(os.sched_getaffinity(0))
    return replace(options, cpu_affinity=(cpus[number % len(cpus)],))
