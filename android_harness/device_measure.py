"""The measurement protocol on a device: fresh processes, conditions around each, invalid ones repeated.

First one short process, whose outputs are pulled and compared; its time says how many runs a process needs.
Then processes until the interval is tight or the time is over. A process that ran under bad conditions is
repeated up to a limit; one that was lost, killed or garbled is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EdgeoptError, InputError
from ..runtimes.scratch import ScratchFolder
from .conditions import Conditions
from .device_conditions import judge_device, snapshot_of, wait_cool
from .device_session import DeviceSession
from .measure import MeasureOptions, worst_of
from .payload import MAX_RUNS, Job, Payload, Report, inputs_of
from .remote import DeviceError
from .sampling import Summary, summarize

if TYPE_CHECKING:
    import numpy as np

    from .emulator import Parity

_ATTEMPTS = 3  # of one process that is lost, killed or garbled
_MIN_RUNS = 5
_FIRST_LIMIT_S = 300.0


@dataclass(frozen=True)
class DeviceOptions:
    """What a device needs beside :class:`MeasureOptions`. Times in seconds, temperatures in °C.

    ``cpus`` are those to run on (None: the scheduler decides); ``timeout_s`` limits one process.
    """

    cpus: tuple[int, ...] | None = None
    cool_c: float | None = None
    cool_timeout_s: float = 300.0
    timeout_s: float = _FIRST_LIMIT_S
    reference: Sequence[np.ndarray] | None = None
    compare_with_host: bool = True


@dataclass(frozen=True)
class DeviceTake:
    """One process on the device, and the conditions around it."""

    report: Report
    conditions: Conditions


@dataclass(frozen=True)
class DeviceMeasurement:
    """One file in one configuration on one device. ``summary`` is None where no time may be claimed."""

    path: Path
    payload: Payload
    options: MeasureOptions
    device: DeviceOptions
    job: Job
    first: Report
    takes: tuple[DeviceTake, ...]
    used: tuple[DeviceTake, ...]
    summary: Summary | None
    parity: Parity | None
    warnings: tuple[str, ...]
    failure: EdgeoptError | KeyboardInterrupt | None

    @property
    def partial(self) -> bool:
        """Whether it was cut short."""
        return self.failure is not None

    def command(self, job: Job) -> list[str]:
        """The command line of a job, on the CPUs chosen."""
        return on_cpus(self.payload.command(job), self.device.cpus)

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions of the takes used: the last one's facts, everyone's problems."""
        if not self.used:
            return {"good": True, "problems": []}
        problems = worst_of(p for take in self.used for p in take.conditions.problems)
        return {**self.used[-1].conditions.facts, "good": not problems, "problems": problems}


def measure_on_device(
    session: DeviceSession,
    path: Path,
    payload: Payload,
    arrays: Sequence[np.ndarray],
    options: MeasureOptions,
    device: DeviceOptions,
    say: Callable[[str], None],
) -> DeviceMeasurement:
    """Measure one file; model, payload and inputs are pushed here.

    Raises:
        InputError: the runner refuses the file or its inputs.
        DeviceError: the device failed before anything was measured.
    """
    model = f"model{path.suffix.lower()}"
    runner = _Runner(session, payload, device, options.num_threads)
    runner.push(path, model, arrays)
    job = Job(model, inputs_of(arrays), options.num_threads, 1, 2, "out" if payload.gives_outputs else None)
    say("first process")
    first = runner.run(job, device.timeout_s)
    parity = _parity(session, path, first, arrays, device) if payload.gives_outputs else None
    if session.facts.emulated_by:
        words = (
            f"{session.target.name} is emulated by {session.facts.emulated_by}: no latency, load time or memory "
            "is reported, for they would be the emulator's"
        )
        return DeviceMeasurement(
            path, payload, options, device, job, first, (), (), None, parity, (words,), None
        )
    job = replace(job, output_prefix=None)
    return take_all(runner, DeviceMeasurement(
        path, payload, options, device, job, first, (), (), None, parity, (), None
    ), say)  # fmt: skip


class ProcessRunner(Protocol):
    """Starts one fresh process on a device and returns its report."""

    @property
    def session(self) -> DeviceSession: ...

    def run(self, job: Job, timeout_s: float) -> Report: ...


def take_all(
    runner: ProcessRunner, begun: DeviceMeasurement, say: Callable[[str], None]
) -> DeviceMeasurement:
    """``begun``, whose first process has run, with the timed processes and what they show.

    Raises:
        KeyboardInterrupt, EdgeoptError: nothing could be timed.
    """
    options = begun.options
    takes, warnings, failure = _take_processes(runner, begun, say)
    warnings += _words(takes, begun.payload, begun.parity, failure)
    good = [take for take in takes if not take.conditions.problems]
    used = tuple(good if len(good) >= min(2, options.processes) else takes)
    summary = summarize([_times(take) for take in used])
    return replace(
        begun,
        takes=tuple(takes),
        used=used,
        summary=summary,
        warnings=(*warnings, *_condition_words(used, takes), *summary.warnings),
        failure=failure,
    )


class _Runner:
    """Runs jobs of one payload in a session, again when that makes sense."""

    def __init__(self, session: DeviceSession, payload: Payload, device: DeviceOptions, threads: int) -> None:
        self.session, self.payload, self.device = session, payload, device
        self._threads = threads

    def push(self, path: Path, model: str, arrays: Sequence[np.ndarray]) -> None:
        for name, local in self.payload.files.items():
            self.session.push(local, name)
        self.session.push(path, model)
        import numpy as np

        with ScratchFolder("inputs") as folder:
            for index, array in enumerate(arrays):
                local = Path(folder) / f"in{index}.bin"
                np.ascontiguousarray(array).tofile(local)
                self.session.push(local, local.name)

    def run(self, job: Job, timeout_s: float) -> Report:
        """The report of one process."""
        command = on_cpus(self.payload.command(job), self.device.cpus)

        def once() -> Report:
            return self.payload.report(
                self.session.run(command, timeout_s=timeout_s), self.session.target.name
            )

        return retried(self.session, once)


def retried(session: DeviceSession, once: Callable[[], Report]) -> Report:
    """What ``once`` gives, tried again where that makes sense: lost, killed or garbled."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return once()
        except DeviceError as error:
            if not error.worth_a_retry or attempt == _ATTEMPTS:
                raise
            if error.kind == "lost":
                session.recover()
    raise AssertionError("unreachable")


def _take_processes(
    runner: ProcessRunner, begun: DeviceMeasurement, say: Callable[[str], None]
) -> tuple[list[DeviceTake], list[str], EdgeoptError | KeyboardInterrupt | None]:
    """The timed processes, sentences, and what cut them short."""
    first, options, device = begun.first, begun.options, begun.device
    one_ms = max(1e-3, min(first.times_ms, default=first.mean_ms or 1.0))
    runs = options.num_runs or int(min(MAX_RUNS, max(_MIN_RUNS, options.run_time_s * 1e3 / one_ms)))
    warmups = int(max(options.warmup_runs, min(1000.0, 200.0 / one_ms)))
    limit_s = min(device.timeout_s, 60.0 + 20 * (runs + warmups) * one_ms / 1e3)
    job = replace(begun.job, num_runs=runs, warmup_runs=warmups)
    takes: list[DeviceTake] = []
    warnings: list[str] = []
    started = time.monotonic()
    target = runner.session.target
    while True:
        bad = sum(1 for take in takes if take.conditions.problems)
        enough = len(takes) - bad >= options.processes or len(takes) >= 2 * options.processes
        if enough and (_tight(takes, options) or time.monotonic() - started >= options.max_time_s):
            return takes, warnings, None
        say(f"process {len(takes) + 1}")
        try:
            if device.cool_c is not None:
                hot = wait_cool(target, device.cool_c, timeout_s=device.cool_timeout_s, say=say)
                warnings += [hot] if hot and hot not in warnings else []
            before = snapshot_of(target)
            report = runner.run(job, limit_s)
            takes.append(DeviceTake(report, judge_device(before, snapshot_of(target))))
        except (KeyboardInterrupt, EdgeoptError) as error:
            if not takes:
                raise
            return takes, warnings, error


def _tight(takes: list[DeviceTake], options: MeasureOptions) -> bool:
    good = [take for take in takes if not take.conditions.problems] or takes
    summary = summarize([_times(take) for take in good], resamples=200)
    if summary.ci95 is None:
        return True
    return (summary.ci95[1] - summary.ci95[0]) / 2 <= options.ci_goal * summary.median_ms


def _times(take: DeviceTake) -> Sequence[float]:
    """Run times of a process; a runner that tells only the mean gives that one."""
    return take.report.times_ms or (take.report.mean_ms or 0.0,)


def _words(
    takes: list[DeviceTake], payload: Payload, parity: Parity | None, failure: BaseException | None
) -> list[str]:
    words = []
    if isinstance(failure, EdgeoptError):
        words.append(f"cut short after {len(takes)} process(es): {str(failure).rstrip('.')}")
    if payload.note:
        words.append(
            f"{payload.note}: its mean of all runs stands for single run times, and outputs were not compared"
        )
    if parity is not None and not parity.ok:
        words.append(parity.words[0])
    return words


def _condition_words(used: Sequence[DeviceTake], takes: list[DeviceTake]) -> list[str]:
    words = []
    problems = worst_of(p for take in used for p in take.conditions.problems)
    if problems:
        words.append(f"measured under bad conditions: {'; '.join(problems)}")
    if len(used) < len(takes):
        words.append(
            f"{len(takes) - len(used)} of {len(takes)} processes were left out because their conditions were bad"
        )
    return words


def on_cpus(command: list[str], cpus: Sequence[int] | None) -> list[str]:
    """The command, kept to these CPUs; every ``taskset`` takes the mask in hex."""
    return command if cpus is None else ["taskset", f"{sum(1 << cpu for cpu in cpus):x}", *command]


def _parity(
    session: DeviceSession, path: Path, report: Report, arrays: Sequence[np.ndarray], device: DeviceOptions
) -> Parity:
    """The outputs of the first process against this machine's run of the file, and the source model's."""
    import numpy as np

    from ..runtimes import run_isolated
    from .emulator import check_parity
    from .emulator.rounding import tolerance_of

    outputs = []
    with ScratchFolder("outputs") as folder:
        for index, entry in enumerate(report.outputs):
            local = Path(folder) / f"out{index}.bin"
            session.pull(f"out{index}.bin", local)
            try:
                outputs.append(np.fromfile(local, dtype=entry["dtype"]).reshape(entry["shape"]))
            except (ValueError, TypeError) as error:
                raise DeviceError(
                    f"output {index} of {session.target.name} has {local.stat().st_size} bytes, "
                    f"not {entry['dtype']} {entry['shape']}.",
                    "garbage",
                ) from error
    host = run_isolated(path, [list(arrays)])[0] if device.compare_with_host else None
    tolerance = tolerance_of(path, report.cpu_features)
    return check_parity(outputs, host, device.reference, tolerance=tolerance)


def describe_inputs(
    session: DeviceSession, path: Path, payload: Payload, *, timeout_s: float = _FIRST_LIMIT_S
) -> list[dict[str, Any]]:
    """dtype and shape of a file's inputs, as the runner on the device reads them.

    Raises:
        InputError: the user's runner can't tell.
    """
    if not payload.gives_outputs:
        raise InputError(f"{payload.dialect} takes no inputs: leave --inputs out.")
    model = f"model{path.suffix.lower()}"
    runner = _Runner(session, payload, DeviceOptions(), 1)
    runner.push(path, model, [])
    return list(runner.run(Job(model, (), 1, 0, 1, describe=True), timeout_s).inputs)
