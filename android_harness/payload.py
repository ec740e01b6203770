"""What is carried to a device to run a model there, and how its output becomes a report.

Ours is the arm64 runner with its own loader and C library, so that nothing has to be installed. A user's
``benchmark_model`` or ``executor_runner`` (``--runner PATH``) runs as it is; it gives times and no outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .remote import DeviceError, last_line
from .target import Execution

MAX_RUNS = 100_000


@dataclass(frozen=True)
class Job:
    """One process on the device. ``inputs`` are (remote file, shape, dtype); file names are plain words."""

    model: str
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    num_threads: int
    warmup_runs: int
    num_runs: int
    output_prefix: str | None = None
    describe: bool = False
    profile: str | None = None


@dataclass(frozen=True)
class Payload:
    """Files to push (remote name -> local file), the command before the runner's flags, and its dialect."""

    runtime: str
    files: Mapping[str, Path]
    start: tuple[str, ...]
    dialect: str = "edgeopt"
    note: str = ""

    @property
    def gives_outputs(self) -> bool:
        return self.dialect == "edgeopt"

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    def command(self, job: Job) -> list[str]:
        """The command line that runs ``job`` in the private folder."""
        flags = _FLAGS[self.dialect](job)
        return [*self.start, *flags]

    def report(self, done: Execution, where: str) -> Report:
        """What the runner said.

        Raises:
            InputError: the runner refused the model or its inputs.
            DeviceError: it died, or what it printed is not a report.
        """
        if done.returncode != 0:
            raise _explain(done, where)
        report = _PARSERS[self.dialect](done)
        if report is None:
            shown = last_line(done.stdout)[:80]
            raise DeviceError(
                f"the runner on {where} ended well but printed no result (its last line: {shown!r}).",
                "garbage",
            )
        return report


@dataclass(frozen=True)
class Report:
    """Times in ms, memory in MiB; None where the runner doesn't tell."""

    times_ms: tuple[float, ...]
    load_ms: float | None
    first_inference_ms: float | None
    peak_mib: float | None
    planned_mib: float | None = None
    runtime_version: str = ""
    cpu_features: tuple[str, ...] = ()
    uarch: str | None = None
    outputs: tuple[dict[str, Any], ...] = ()
    inputs: tuple[dict[str, Any], ...] = ()
    mean_ms: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def own_payload(runtime: str) -> Payload:
    """The runner that edgeopt builds, with its loader and libraries.

    Raises:
        EdgeoptError: the arm64 toolchain is not set up (edgeopt emulator setup).
    """
    from .emulator import payload

    start = ("./ld-linux-aarch64.so.1", "--library-path", ".", f"./{runtime}_runner")
    return Payload(runtime, payload(runtime), start)


def user_payload(path: Path, runtime: str) -> Payload:
    """A ``benchmark_model`` or ``executor_runner`` binary of the user's.

    Raises:
        InputError: not an arm64 program, or one whose output isn't known.
    """
    try:
        head = path.read_bytes()[:20]
    except OSError as error:
        raise InputError(f"--runner {path} can't be read ({error.strerror}).") from error
    if head[:4] != b"\x7fELF" or len(head) < 20 or int.from_bytes(head[18:20], "little") != 0xB7:
        raise InputError(f"--runner {path} is not a 64-bit Arm Linux or Android program (ELF, aarch64).")
    dialect = next((name for name in ("benchmark_model", "executor_runner") if name in path.name), None)
    if dialect is None:
        raise InputError(
            f"--runner {path} is neither benchmark_model nor executor_runner by its name: their output is known."
        )
    wanted = {"benchmark_model": "litert", "executor_runner": "executorch"}[dialect]
    if runtime != wanted:
        suffix = ".tflite" if wanted == "litert" else ".pte"
        raise InputError(f"{dialect} runs {suffix} files only: choose them with --format {suffix[1:]}.")
    return Payload(runtime, {dialect: path}, (f"./{dialect}",), dialect, note=f"run by {path.name}")


def _own_flags(job: Job) -> list[str]:
    flags = ["--model", job.model, "--num-threads", str(job.num_threads)]
    if job.describe:
        return [*flags, "--describe"]
    for name, shape, dtype in job.inputs:
        flags += ["--input", f"{name}@{'x'.join(map(str, shape))}:{dtype}"]
    flags += ["--warmup", str(job.warmup_runs), "--runs", str(job.num_runs)]
    flags += ["--profile", job.profile] if job.profile else []
    return flags + (["--output-prefix", job.output_prefix] if job.output_prefix else [])


def _benchmark_model_flags(job: Job) -> list[str]:
    return [
        f"--graph={job.model}", f"--num_threads={job.num_threads}", f"--num_runs={job.num_runs}",
        f"--warmup_runs={job.warmup_runs}", "--min_secs=0", "--use_xnnpack=true",
    ]  # fmt: skip


def _executor_runner_flags(job: Job) -> list[str]:
    return [
        f"--model_path={job.model}", f"--num_executions={job.warmup_runs + job.num_runs}",
        f"--cpu_threads={job.num_threads}",
    ]  # fmt: skip


def parse_own(done: Execution) -> Report | None:
    """Our runner's line of JSON: the last such line of stdout, whatever else was printed."""
    for line in reversed(done.stdout.splitlines()):
        if not line.lstrip().startswith("{"):
            continue
        try:
            row = json.loads(line)
            if isinstance(row, dict) and row.get("runner") == 1:
                return own_report(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def own_report(row: dict[str, Any]) -> Report:
    """The object that our runners, and the sample app, print.

    Raises:
        KeyError, TypeError, ValueError: it isn't one.
    """
    times = tuple(_duration(value) for value in row["runs_ms"])
    planned = row["planned_memory_bytes"]
    return Report(
        times_ms=times,
        load_ms=_duration(row["load_ms"]),
        first_inference_ms=_duration(row["first_inference_ms"]),
        peak_mib=_duration(row["peak_memory_kib"]) / 1024,
        planned_mib=None if planned is None else _duration(planned) / (1 << 20),
        runtime_version=str(row["runtime_version"]),
        cpu_features=tuple(str(name) for name in row["cpu_features"]),
        uarch=None if row["uarch"] is None else str(row["uarch"]),
        outputs=tuple(_tensor(entry) for entry in row["outputs"]),
        inputs=tuple(_tensor(entry) for entry in row["inputs"]),
    )


def _tensor(entry: dict[str, Any]) -> dict[str, Any]:
    shape = [int(size) for size in entry["shape"]]
    return {"file": str(entry["file"]), "dtype": str(entry["dtype"]), "shape": shape}


def _duration(value: Any) -> float:
    number = float(value)
    if not 0 <= number < 1e15:
        raise ValueError(value)
    return number


def parse_benchmark_model(done: Execution) -> Report | None:
    """The summary of TensorFlow Lite's ``benchmark_model``: times in µs, no single runs.

    ``Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, Inference (avg):
    14575.2`` and the ``count=`` line before it (stdout or stderr; the minimum and maximum come from there).
    """
    text = f"{done.stdout}\n{done.stderr}"
    summary = re.search(
        rf"Inference timings in us: Init: {_N}, First inference: {_N}, Warmup \(avg\): {_N}, Inference \(avg\): {_N}",
        text,
    )
    if summary is None:
        return None
    init, first, _, mean = (float(value) for value in summary.groups())
    spread = re.findall(rf"count=(\d+) first={_N} curr={_N} min={_N} max={_N} avg={_N} std={_N}", text)
    memory = re.search(
        rf"overall={_N}|Overall peak memory footprint \(MB\).*?via periodic monitoring: {_N}", text
    )
    details: dict[str, Any] = {}
    if spread:
        details = {
            "runs": int(spread[-1][0]),
            "min_ms": float(spread[-1][3]) / 1e3,
            "std_ms": float(spread[-1][6]) / 1e3,
        }
    peak = next((float(value) for value in memory.groups() if value), None) if memory else None
    return Report((), init / 1e3, first / 1e3, peak, mean_ms=mean / 1e3, details=details)


def parse_executor_runner(done: Execution) -> Report | None:
    """The log of ExecuTorch's ``executor_runner``: ``Model executed successfully 5 time(s) in 12.5 ms.``"""
    text = f"{done.stdout}\n{done.stderr}"
    found = re.search(rf"[Mm]odel executed successfully (\d+) time\(s\) in {_N} ms", text)
    if found is None or int(found[1]) < 1 or len(found[1]) > 9:
        return None
    loaded = re.search(rf"Model loaded? (?:successfully )?in {_N} ms", text)
    count, total = int(found[1]), float(found[2])
    return Report(
        (), float(loaded[1]) if loaded else None, None, None, mean_ms=total / count, details={"runs": count}
    )


_N = r"(\d{1,15}(?:\.\d+)?(?:e[+-]?\d{1,2})?)"
_FLAGS = {
    "edgeopt": _own_flags,
    "benchmark_model": _benchmark_model_flags,
    "executor_runner": _executor_runner_flags,
}
_PARSERS = {
    "edgeopt": parse_own,
    "benchmark_model": parse_benchmark_model,
    "executor_runner": parse_executor_runner,
}


def _explain(done: Execution, where: str) -> Exception:
    """One sentence for a runner that failed."""
    said = [line.removeprefix("runner: ") for line in done.stderr.splitlines() if line.startswith("runner: ")]
    text = f"{done.stdout}\n{done.stderr}".lower()
    if "no space left" in text:
        return DeviceError(
            f"{where} has no space left for the runner's files: free some and run again.", "space"
        )
    if said:
        return InputError(f"the model can't be run on {where}: {said[-1].rstrip('.')}.")
    code = done.returncode
    if code == 137:
        return DeviceError(
            f"the runner on {where} was killed (SIGKILL): most likely the system was short of memory; "
            "close apps, or use a smaller model.",
            "killed",
        )
    if code == 132:
        return DeviceError(
            f"the runner on {where} used an instruction that its CPU does not have (SIGILL).", "crashed"
        )
    if code in (134, 135, 139):
        name = {134: "SIGABRT", 135: "SIGBUS", 139: "SIGSEGV"}[code]
        return DeviceError(f"the runner on {where} crashed ({name}): {last_line(done.stderr)}.", "crashed")
    if code == 126 or "not executable" in text or "exec format error" in text:
        return DeviceError(
            f"the runner can't be started on {where}: {last_line(done.stderr)} (is the folder mounted noexec?).",
            "unusable",
        )
    return DeviceError(
        f"the runner on {where} ended with exit code {code}: {last_line(done.stderr)}.", "crashed"
    )


def inputs_of(arrays: Sequence[Any]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """The job's entries for a list of numpy arrays, in order: ``in0.bin``, ``in1.bin``, ..."""
    return tuple(
        (f"in{i}.bin", tuple(int(n) for n in array.shape), str(array.dtype)) for i, array in enumerate(arrays)
    )
