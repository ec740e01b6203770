"""The child of a measurement: one fresh process that loads one file and times its inferences.

Run as ``python -m edgeopt.android_harness.measure_worker FOLDER``. Two modes: ``steady`` measures on its own
and leaves a result; ``serve`` measures slices on command, so that two files can take turns. Only the
runtime's call is timed: inputs are handed over before the clock starts, outputs are not fetched.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError, InputError
from ..runtimes import LoadedModel, TensorSpec, open_model, preload
from ..runtimes.protocol import fit_inputs
from ..runtimes.worker import serve
from .sampling import relative_half_width

_CHUNK_S = 0.1
_WINDOW_S = 0.02
_MOST_RUNS = 10_000  # of one process: each run's time is kept


class Stop:
    """Set by SIGINT or SIGTERM: finish the inference that runs and report what was measured."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked = True


class Bench:
    """A loaded file, its inputs and the clock."""

    def __init__(self, job: dict[str, Any]) -> None:
        if job["cpu_affinity"]:
            os.sched_setaffinity(0, job["cpu_affinity"])
        preload(job["runtime"])
        gc.collect()
        _reset_peak()
        self.idle_mib = _memory_mib("VmRSS")
        self.model: LoadedModel = open_model(
            job["path"],
            runtime=job["runtime"],
            num_threads=job["num_threads"],
            use_xnnpack=job["use_xnnpack"],
        )
        self.inputs = inputs_of(self.model, job)
        self.one_thread = job["num_threads"] == 1
        self.first_ms = self.once()
        self.model.fetch()
        gc.collect()
        gc.disable()

    def once(self) -> float:
        """One inference, in ms."""
        self.model.prepare(self.inputs)
        return self._prepared()

    def _prepared(self) -> float:
        started = time.perf_counter_ns()
        self.model.invoke()
        return (time.perf_counter_ns() - started) / 1e6

    def for_seconds(self, seconds: float, *, least: int = 1, most: int = 10**9) -> list[float]:
        """Inferences one after another for a while, each in ms."""
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < least or (len(times) < most and time.perf_counter() < end):
            times.append(self.once())
        return times

    def slice(self, seconds: float, least: int) -> tuple[list[float], int]:
        """As :meth:`for_seconds`, for files that take turns; with how many runs other processes broke into.

        A run longer than the scheduler's time slice is broken into every time where a shorter one never is, so that
        on a busy machine a tenth more work can look like half. What one thread spends off the CPU then isn't counted.
        """
        times: list[float] = []
        broken = 0
        end = time.perf_counter() + seconds
        while len(times) < least or time.perf_counter() < end:
            self.model.prepare(self.inputs)
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            on_cpu = time.process_time_ns()
            taken = self._prepared()
            on_cpu = time.process_time_ns() - on_cpu
            if self.one_thread and resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > switches:
                broken += 1
                taken = min(taken, on_cpu / 1e6)
            times.append(taken)
        return times, broken


def inputs_of(model: LoadedModel, job: dict[str, Any]) -> list[np.ndarray]:
    """The inputs a job names, else examples; checked against the file."""
    specs = model.inputs
    if not specs and model.takes_any_inputs and not job.get("inputs"):
        raise InputError(f"{model.path.name} doesn't tell its inputs: give --inputs FILE.npz.")
    if not job.get("inputs"):
        return fit_inputs(model.path, specs, example_inputs(specs))
    with np.load(job["inputs"], allow_pickle=False) as archive:
        golden = [key for key in archive.files if key.startswith("0/input/")]
        names = [spec.name for spec in specs]
        keys = golden or (names if names and all(name in archive for name in names) else archive.files)
        given = [archive[key] for key in (keys[: len(names)] if names else keys)]
    if not specs and model.takes_any_inputs:
        return given
    try:
        return fit_inputs(model.path, specs, given)
    except InputError:
        # A bundle's golden inputs are the source model's; a file may have another layout or type.
        if not golden:
            raise
        return fit_inputs(model.path, specs, example_inputs(specs))


def example_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """Inputs for a file of which nothing else is known: floats from N(0, 1), 8-bit values over their whole
    range, other integers 0 or 1 (they may be indices into a small table), booleans true."""
    generator = np.random.default_rng(seed)
    return [_example(spec, generator) for spec in specs]


def _example(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray:
    shape = spec.example_shape()
    if spec.dtype in ("int8", "uint8"):
        limits = np.iinfo(spec.dtype)
        return generator.integers(limits.min, limits.max + 1, shape).astype(spec.dtype)
    if spec.dtype == "bool":
        return np.ones(shape, dtype=bool)
    try:
        dtype = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind in "iu":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    raise InputError(
        f"no example input can be made for {spec.name} of type {spec.dtype}: give --inputs FILE.npz."
    )


def warm_up(bench: Bench, least: int, limit_s: float, stop: Stop) -> dict[str, Any]:
    """Run until the run time no longer falls: short windows, whose last two medians are not more than 2%
    below the two before. Gives up after ``limit_s``, and says so."""
    started = time.perf_counter()
    medians: list[float] = []
    runs = 1  # the first inference, taken apart
    while not stop.asked:
        window = bench.for_seconds(_WINDOW_S, least=max(1, least - runs) if runs < least else 1)
        runs += len(window)
        medians.append(float(np.median(window)))
        if runs >= least and len(medians) >= 4 and min(medians[-2:]) > 0.98 * min(medians[-4:-2]):
            return {"warmup_runs": runs, "steady": True}
        if runs >= least and time.perf_counter() - started > limit_s:
            break
    return {"warmup_runs": runs, "steady": False}


def until_tight(bench: Bench, job: dict[str, Any], stop: Stop) -> list[float]:
    """Run until the interval of the median is tight or the time is over (or exactly ``num_runs`` times)."""
    if job["num_runs"]:
        times: list[float] = []
        while len(times) < job["num_runs"] and not stop.asked:
            times.append(bench.once())
        return times
    times = []
    started = time.perf_counter()
    while not stop.asked:
        times += bench.for_seconds(_CHUNK_S, most=_MOST_RUNS)
        spent = time.perf_counter() - started
        if (spent >= job["run_time_s"] and len(times) >= 5) or len(times) >= _MOST_RUNS:
            break
        enough = len(times) >= 30 and spent >= job["run_time_s"] / 3
        if enough and relative_half_width(times) <= job["ci_goal"] / 2:
            break
        bench.once()  # the check above has displaced the model from the caches
    return times


def sustained(bench: Bench, job: dict[str, Any], stop: Stop) -> dict[str, Any]:
    """Run for ``duration_s``; with ``rate_hz`` like a camera: a frame every 1/rate s, late ones counted."""
    times: list[float] = []
    offsets: list[float] = []
    late = 0
    period = 1 / job["rate_hz"] if job["rate_hz"] else 0.0
    started = time.perf_counter()
    due = started
    while not stop.asked and (now := time.perf_counter()) - started < job["duration_s"]:
        if period:
            if now < due:
                time.sleep(due - now)
            offsets.append(time.perf_counter() - started)
            times.append(bench.once())
            due += period
            if time.perf_counter() > due:
                late += 1
                due = time.perf_counter()
        else:
            offsets.append(now - started)
            times.append(bench.once())
    return {"times_ms": times, "offsets_s": offsets, "late": late if period else None}


def steady(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """The mode ``steady``: cold start, warm-up, measured runs, memory and CPU time."""
    stop = Stop()
    bench = Bench(job)
    warm = warm_up(bench, job["warmup_runs"], job["warmup_limit_s"], stop)
    cold = cold_start(bench)  # now: what follows is the measurement's own memory
    cpu_before = time.process_time()
    wall_before = time.perf_counter()
    taken = sustained(bench, job, stop) if job["duration_s"] else {"times_ms": until_tight(bench, job, stop)}
    wall_s = time.perf_counter() - wall_before
    cpu_s = time.process_time() - cpu_before
    runs = max(1, len(taken["times_ms"]))
    return {
        **taken,
        **warm,
        **cold,
        "cpu_ms": cpu_s * 1e3 / runs,
        "wall_s": wall_s,
        "partial": stop.asked,
    }


def cold_start(bench: Bench) -> dict[str, Any]:
    """Load and first inference in ms, memory in MiB above the idle runtime."""
    planned = bench.model.planned_bytes
    return {
        "load_ms": bench.model.load_ms,
        "first_inference_ms": bench.first_ms,
        "idle_mib": bench.idle_mib,
        "peak_mib": max(0.0, _memory_mib("VmHWM") - bench.idle_mib),
        "planned_mib": None if planned is None else planned / 2**20,
    }


def serve_slices(job: dict[str, Any]) -> None:
    """The mode ``serve``: a line on stdin (``{"seconds": s, "least": n}``), a line out on the reply pipe."""
    with os.fdopen(job["reply_fd"], "w", buffering=1) as reply:

        def answer(payload: dict[str, Any]) -> None:
            reply.write(json.dumps(payload) + "\n")

        try:
            stop = Stop()
            bench = Bench(job)
            warm = warm_up(bench, job["warmup_runs"], job["warmup_limit_s"], stop)
            answer({**warm, **cold_start(bench)})
            for line in sys.stdin:
                command = json.loads(line)
                bench.once()  # the other file has had the caches meanwhile
                times, broken = bench.slice(command["seconds"], command["least"])
                kept = times if command.get("times", True) else []
                answer({"runs": len(times), "times_ms": kept, "interrupted": broken})
                if stop.asked:
                    break
        except EdgeoptError as error:
            kind = "input" if isinstance(error, InputError) else "edgeopt"
            answer({"error": {"kind": kind, "message": str(error)}})
        except Exception as error:
            text = f"the runtime failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            answer({"error": {"kind": "edgeopt", "message": text}})
    os._exit(0)


def _memory_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _reset_peak() -> None:
    # 5 resets VmHWM (proc_pid_clear_refs(5)); where it is forbidden the peak includes the imports.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _job = json.loads((Path(sys.argv[1]) / "job.json").read_text())
    if _job["mode"] == "serve":
        serve_slices(_job)
    else:
        serve(steady)
