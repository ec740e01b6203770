"""Compares files with one another: interleaved rounds in fresh processes, ratios, and verdicts that hold.

The first file is the reference; every other file gets a ratio to it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..android_harness.conditions import Conditions, judge, snapshot
from ..android_harness.measure import MeasureOptions
from ..android_harness.sampling import Summary, summarize
from ..android_harness.session import Session, interleave
from ..errors import InputError
from .statistics import Ratio, ratio_of_rounds, round_log_ratio, verdict

Progress = Callable[[str, float | None], None]


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


def compare(
    contenders: Sequence[Contender], effort: Effort, progress: Progress = lambda what, part=None: None
) -> Comparison:
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
    second_set = False
    try:
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}", number / effort.rounds)
            rounds.append(_round(contenders, effort, number))
        first = _ratios(rounds, len(contenders))
        second_set = any(ratio.excludes_equality(effort.margin) for ratio in first)
        for number in range(effort.rounds if second_set else 0):
            progress(f"there is a difference: measured again, round {number + 1} of {effort.rounds}", None)
            rounds.append(_round(contenders, effort, number + 1))
    except KeyboardInterrupt:
        if len(rounds) < 2:
            raise
        partial = True
    return _evaluate(contenders, rounds, effort, partial)


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
            one = stack.enter_context(Session(contenders[i].path, replace(contenders[i].options)))
            # Wait for it: two processes loading at once would warm up against each other.
            _ = one.start
            sessions[i] = one
        ready = [session for session in sessions if session is not None]
        taken = interleave(ready, slices=effort.slices, slice_s=effort.slice_s, first=number)
        starts = tuple(session.start for session in ready)
    conditions = judge(before, snapshot(), time.monotonic() - started)
    return Round(tuple(tuple(tuple(part) for part in one) for one in taken), starts, conditions)
