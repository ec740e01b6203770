"""Measures the suite on this machine or on a device, a little at a time, and goes on where it was stopped."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..android_harness.conditions import judge, snapshot
from ..android_harness.measure import MeasureOptions, worst_of
from ..errors import EdgeoptError, InputError
from ..runtimes.isolation import run_job
from ..runtimes.scratch import ScratchFolder
from ..wording import counted
from .files import SuiteFile
from .op_times import Op

if TYPE_CHECKING:
    from ..android_harness.payload import Payload
    from ..android_harness.remote import RemoteTarget
    from ..device_profiles import DeviceProfile

Say = Callable[[str, float | None], None]

_SECONDS = 0.12  # timed runs of one file in one round
_BATCH = 40
# A latency is settled when its fastest round was seen twice, this near (relative); if not, the file is timed again.
_SETTLED = 0.03
AGAIN = 4
# Those turns in the journal, behind any rounds, and the one in which operators are timed.
_AGAIN_FROM = 1000
_OPS = 2000
_FRESH_S = 6 * 3600.0  # an interrupted calibration older than this starts anew


@dataclass(frozen=True)
class Latency:
    """One file with one number of threads: its fastest round.

    What else a machine does can only slow a round down, so the fastest repeats better than the median.

    Attributes:
        spread: how far the slowest round lies above it (relative).
        doubt: how far the second fastest does: little where the fastest was seen twice.
        ops: what its operators took in a run of their own, where there was one.
    """

    file: SuiteFile
    threads: int
    ms: float
    spread: float
    doubt: float
    ops: tuple[Op, ...] = ()


@dataclass
class Journal:
    """Times as they are taken, kept in a file: (key, threads, round) → ms, or None for a file that fails.

    Attributes:
        path: a line a time, JSON; the first names what is measured.
        problems: what was wrong with the conditions.
        ops: (key, threads) → what the operators of a file took.
    """

    path: Path
    times: dict[tuple[str, int, int], float | None] = field(default_factory=dict)
    ops: dict[tuple[str, int], tuple[Op, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, what: dict[str, Any]) -> Journal:
        """The journal of ``what``; an old one, or one of something else, starts anew."""
        try:
            with path.open() as stream:
                same = json.loads(stream.readline()) == what
            if same and time.time() - path.stat().st_mtime < _FRESH_S:
                journal = cls.read(path)
                with path.open("a") as stream:
                    stream.write("\n")  # Behind a line that was torn.
                return journal
        except (OSError, ValueError):
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(what) + "\n")
        return cls(path)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Whatever the file holds, however old."""
        journal = cls(path)
        for line in path.read_text().splitlines()[1:]:
            # A line may be torn by a kill in the middle of writing it: that time is taken again.
            with suppress(ValueError):
                journal._take(json.loads(line))
        return journal

    def add(self, key: str, threads: int, turn: int, ms: float | None) -> None:
        """Remember one time."""
        self._write({"key": key, "threads": threads, "round": turn, "ms": ms})

    def add_ops(self, key: str, threads: int, ops: Sequence[Op] | None) -> None:
        """Remember what the operators of a file took; None: that can't be told."""
        self._write({"key": key, "threads": threads, "ops": ops})

    def add_problems(self, problems: Iterable[str]) -> None:
        """Remember what was wrong with the conditions."""
        for problem in problems:
            self._write({"problem": problem})

    def _write(self, line: dict[str, Any]) -> None:
        self._take(line)
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def _take(self, line: dict[str, Any]) -> None:
        if "problem" in line:
            self.problems = worst_of([*self.problems, line["problem"]])
        elif "ops" in line:
            self.ops[line["key"], line["threads"]] = tuple(tuple(op) for op in line["ops"] or ())
        else:
            self.times[line["key"], line["threads"], line["round"]] = line["ms"]

    def missing(self, files: Sequence[SuiteFile], threads: int, turn: int) -> list[SuiteFile]:
        """Those of ``files`` that this round still lacks; files that fail aren't tried again."""
        if turn == _OPS:
            return [file for file in files if (file.key, threads) not in self.ops]
        failed = {key for (key, _, _), ms in self.times.items() if ms is None}
        return [f for f in files if (f.key, threads, turn) not in self.times and f.key not in failed]

    def latencies(self, files: Sequence[SuiteFile], threads: Sequence[int], rounds: int) -> list[Latency]:
        """What was measured in these rounds and what settled them, one latency a file and number of threads."""
        found = []
        for file in files:
            for count in threads:
                turns = (*range(rounds), *range(_AGAIN_FROM, _AGAIN_FROM + AGAIN))
                taken = [self.times.get((file.key, count, turn)) for turn in turns]
                values = sorted(ms for ms in taken if ms is not None)
                if values:
                    fastest, second = values[0], values[:2][-1]
                    found.append(
                        Latency(
                            file, count, fastest, values[-1] / fastest - 1, second / fastest - 1,
                            self.ops.get((file.key, count), ()),
                        )
                    )  # fmt: skip
        return found


def measure_here(
    files: Sequence[SuiteFile],
    threads: Sequence[int],
    rounds: int,
    journal: Journal,
    say: Say,
    *,
    budget_s: float | None = None,
) -> bool:
    """Time every file in every round in this machine's processes; True when all is done.

    Args:
        budget_s: stop after this long, with False.

    Raises:
        KeyboardInterrupt: stopped; what was taken is in the journal.
    """
    ends = _deadline(budget_s)
    total = len(files) * len(threads) * rounds

    def told(what: str, turn: int) -> None:
        # A journal that is gone on with may hold more rounds than are asked for now.
        say(f"{what}, round {turn + 1}", sum(taken < rounds for _, _, taken in journal.times) / total)

    return all(_turn(dict.fromkeys(threads, files), turn, journal, told, ends) for turn in range(rounds))


def settle_here(
    files: Sequence[SuiteFile],
    threads: Sequence[int],
    rounds: int,
    journal: Journal,
    say: Say,
    *,
    budget_s: float | None = None,
) -> bool:
    """Time those files again, up to :data:`AGAIN` times, whose fastest round no other comes near; True when all is done.

    On a quiet machine there are few. Where others use it too, whole rounds are slow, or parts of them.

    Raises:
        KeyboardInterrupt: stopped; what was taken is in the journal.
    """
    ends = _deadline(budget_s)
    for more in range(AGAIN if rounds > 1 else 0):
        latencies = journal.latencies(files, threads, rounds)
        open_ = {
            count: [each.file for each in latencies if each.threads == count and each.doubt > _SETTLED]
            for count in threads
        }
        left = counted(sum(len(some) for some in open_.values()), "unsettled time")

        def told(what: str, turn: int, left: str = left) -> None:
            say(f"{what}, {left}", None)

        if not _turn(open_, _AGAIN_FROM + more, journal, told, ends):
            return False
    return True


def profile_here(
    files: Sequence[SuiteFile],
    threads: Sequence[int],
    rounds: int,
    journal: Journal,
    say: Say,
    *,
    budget_s: float | None = None,
) -> bool:
    """Time the operators of every file that could be timed in these rounds, once; True when all is done.

    Raises:
        KeyboardInterrupt: stopped; what was taken is in the journal.
    """
    ends = _deadline(budget_s)
    latencies = journal.latencies(files, threads, rounds)
    timed = {count: [each.file for each in latencies if each.threads == count] for count in threads}

    def told(what: str, _turn: int) -> None:
        say(f"{what}, operators", len(journal.ops) / max(1, len(latencies)))

    return _turn(timed, _OPS, journal, told, ends)


def _deadline(budget_s: float | None) -> float:
    return time.monotonic() + (budget_s if budget_s is not None else float("inf"))


def _turn(
    files: Mapping[int, Sequence[SuiteFile]],
    turn: int,
    journal: Journal,
    told: Callable[[str, int], None],
    ends: float,
) -> bool:
    """One round of the files for each number of threads; False when the time was up before its end."""
    for count, some in files.items():
        for runtime in sorted({file.runtime for file in some}):
            waiting = journal.missing([f for f in some if f.runtime == runtime], count, turn)
            # In another order each round: what disturbs for seconds must not meet the same files again.
            random.Random(f"{runtime}{count}{turn}").shuffle(waiting)
            for batch in (waiting[i : i + _BATCH] for i in range(0, len(waiting), _BATCH)):
                if time.monotonic() > ends:
                    return False
                told(f"measuring: {runtime}, {counted(count, 'thread')}", turn)
                _batch(batch, runtime, count, turn, journal)
    return True


def _batch(batch: Sequence[SuiteFile], runtime: str, threads: int, turn: int, journal: Journal) -> None:
    job = {
        "files": [{"key": file.key, "path": str(file.path)} for file in batch],
        "runtime": runtime,
        "num_threads": threads,
        "seconds": _SECONDS,
        "ops": turn == _OPS,
    }
    before, started = snapshot(), time.monotonic()
    with ScratchFolder("calibrate") as name:
        folder, died = Path(name), None
        try:
            run_job(
                "calibration.worker", job, folder, what=folder / "the suite", runtime=runtime, timeout_s=600.0
            )
        except InputError:
            raise
        except EdgeoptError as error:
            died = error
        finally:
            times = folder / "times.jsonl"
            lines = [json.loads(x) for x in times.read_text().splitlines()] if times.is_file() else []
            for line in lines:
                _note(line["key"], threads, turn, line, journal)
    if died is not None:
        if len(lines) == len(batch):
            return
        # The file after the last one told killed the process: it is left out, the rest goes on.
        _note(batch[len(lines)].key, threads, turn, {}, journal)
        rest = journal.missing(batch, threads, turn)
        if rest:
            _batch(rest, runtime, threads, turn, journal)
        return
    if len(lines) < len(batch):
        raise KeyboardInterrupt
    journal.add_problems(judge(before, snapshot(), time.monotonic() - started).problems)


def _note(key: str, threads: int, turn: int, taken: dict[str, Any], journal: Journal) -> None:
    if turn == _OPS:
        journal.add_ops(key, threads, taken.get("ops"))
    else:
        journal.add(key, threads, turn, taken.get("median_ms"))


def measure_on(
    target: RemoteTarget,
    profile: DeviceProfile,
    files: Sequence[SuiteFile],
    threads: Sequence[int],
    rounds: int,
    journal: Journal,
    say: Say,
    *,
    make_payload: Callable[[str], Payload] | None = None,
) -> None:
    """Time every file on a phone or board, by the device's measurement protocol with short runs.

    Args:
        make_payload: what runs a file there, instead of our own runner.

    Raises:
        EdgeoptError: the device is emulated, was lost, or ran none of the files.
    """
    from ..results.artifacts import find_artifacts
    from ..results.device_bench import DeviceBenchOptions, bench_on_devices

    options = MeasureOptions(processes=rounds, max_time_s=3.0 * rounds, run_time_s=0.3, ci_goal=0.1)
    device = DeviceBenchOptions(profile=profile, compare_with_host=False, make_payload=make_payload)
    waiting = {count: journal.missing(files, count, 0) for count in threads}
    for index, file in enumerate(files):
        counts = [count for count in threads if file in waiting[count]]
        if not counts:
            continue
        say(f"measuring: {file.key}", index / len(files))
        result, warnings = bench_on_devices(
            [target], find_artifacts([file.path]), options, device, threads=counts
        )
        timed = {r.threads: r for r in result.run.records if r.metric == "latency_ms" and not r.partial}
        if not timed and not result.failures and not result.interrupted:
            raise EdgeoptError(f"nothing can be calibrated on {target.name}: {'; '.join(warnings)}.")
        for count in counts:
            # What was interrupted didn't fail: the next call takes it.
            if count in timed or not result.interrupted:
                journal.add(file.key, count, 0, timed[count].value if count in timed else None)
        journal.add_problems(p for r in timed.values() for p in r.conditions.get("problems", ()))
        if result.interrupted:
            raise KeyboardInterrupt
