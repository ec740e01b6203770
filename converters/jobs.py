"""Plans which files to make, makes them side by side, and checks each in the process that made it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import disk_trouble
from ..models.data import Sample
from ..models.findings import Finding
from ..models.source import SourceModel
from ..optimizers.capabilities import ROADS
from ..optimizers.passes import OptimizedModel
from .cache import conversion_key, fetch, keep
from .checks import CheckResult, Checks, check_file_outputs
from .explain import explain
from .file_report import inspect_file
from .workers import Outcome, Progress, Task, parallel_processes, run_tasks

FORMATS = ("pte", "tflite")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """One file to make: the format, the optimised model, and the file's name in the bundle."""

    format: str
    model: OptimizedModel
    file: str
    use_cache: bool = True

    @property
    def precision(self) -> str:
        """Canonical name of the file's precision."""
        return self.model.precision


@dataclass(frozen=True)
class Produced:
    """What became of a wanted file.

    Attributes:
        path: the file, or None when it couldn't be made.
        report: what is inside it (:meth:`FileReport.summary`).
        checks: parity and metric, or None when it couldn't be run.
        findings: what went wrong or is worth knowing.
        log: the exporter's own words.
    """

    wanted: Wanted
    path: Path | None = None
    report: dict[str, Any] = field(default_factory=dict)
    checks: CheckResult | None = None
    findings: tuple[Finding, ...] = ()
    convert_s: float = 0.0
    peak_memory_mib: float = 0.0
    log: str = ""

    @property
    def precision(self) -> str:
        """Canonical name of the file's precision."""
        return self.wanted.precision

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Why the file could not be made or run: not what is only worth knowing."""
        return tuple(f for f in self.findings if f.severity == "error") or self.findings

    @property
    def passed(self) -> bool:
        """Whether the file was made, ran, and is within its tolerances."""
        return self.path is not None and self.checks is not None and self.checks.passed


@dataclass(frozen=True)
class _Part:
    """A :class:`Produced` without what can't or needn't cross a process border."""

    index: int
    path: Path | None
    report: dict[str, Any]
    checks: CheckResult | None
    findings: tuple[Finding, ...]
    convert_s: float
    log: str


@dataclass
class _FloatFile:
    """The float .tflite that the other members of its family are made from, or why it couldn't be made."""

    path: Path | None = None
    error: Exception | None = None


def produce(
    wanted: Sequence[Wanted],
    folder: Path,
    checks: Checks,
    *,
    on_progress: Callable[[str, str], None],
    max_parallel: int | None = None,
) -> list[Produced]:
    """Make and check every wanted file.

    Args:
        folder: where the files are written.
        on_progress: called with (task, what it does).
        max_parallel: processes at once; by default what cores and memory allow.

    Returns:
        One :class:`Produced` for each wanted file, in order; failures are findings, never exceptions.
    """
    groups = _groups(wanted)
    # Removed here, not by the tasks: a process that is killed leaves its own behind.
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        tasks = [_task(name, members, folder, Path(scratch), checks) for name, members in groups.items()]
        limit = max_parallel or parallel_processes(checks.source.weight_bytes, len(tasks))
        outcomes = run_tasks(tasks, max_parallel=limit, on_progress=on_progress)
    produced: dict[int, Produced] = {}
    for outcome, members in zip(outcomes, groups.values(), strict=True):
        produced |= _collect(outcome, members, folder)
    for item in produced.values():
        if item.checks is None and item.log:
            _LOG.debug("%s: the exporter's own words:\n%s", item.wanted.file, item.log)
    return [produced[index] for index in range(len(wanted))]


def _groups(wanted: Sequence[Wanted]) -> dict[str, list[tuple[int, Wanted]]]:
    """Files that share work share a process: LiteRT's float, float16 and dynamic int8 come of one conversion."""
    groups: dict[str, list[tuple[int, Wanted]]] = {}
    # The slowest first, so that the last process running isn't it.
    for index, item in sorted(enumerate(wanted), key=lambda pair: pair[1].model.kind != "pt2e"):
        shared = item.format == "tflite" and item.model.kind != "pt2e"
        name = f"{item.format} float family" if shared else f"{item.format} {item.precision}"
        groups.setdefault(name, []).append((index, item))
    for members in groups.values():
        members.sort(key=lambda pair: pair[1].model.kind != "dense")
    return groups


def _task(
    name: str, members: list[tuple[int, Wanted]], folder: Path, scratch: Path, checks: Checks
) -> Task[list[_Part]]:
    def run(progress: Progress) -> list[_Part]:
        shared = _FloatFile()
        with tempfile.TemporaryDirectory(dir=scratch) as own:
            return [
                _make(index, item, folder, Path(own), checks, shared, progress) for index, item in members
            ]

    return Task(name, run)


def _make(
    index: int,
    wanted: Wanted,
    folder: Path,
    scratch: Path,
    checks: Checks,
    shared: _FloatFile,
    progress: Progress,
) -> _Part:
    path = folder / wanted.file
    label = f"{wanted.format} {wanted.precision}"
    started = time.monotonic()
    findings: list[Finding] = []
    try:
        findings += _convert(wanted, path, scratch, shared, lambda what: progress(f"{label}: {what}"))
    except Exception as error:
        finding = explain(error, wanted.format, wanted.model.capture.program, folder=folder)
        path.unlink(missing_ok=True)
        seconds = time.monotonic() - started
        return _Part(index, None, {}, None, (*findings, finding), seconds, traceback.format_exc())
    seconds = time.monotonic() - started
    report: dict[str, Any] = {}
    try:
        progress(f"{label}: checking")
        report = inspect_file(path).summary()
        result = check_file_outputs(path, wanted.precision, checks)
    except Exception as error:
        finding = explain(error, wanted.format, wanted.model.capture.program, path, folder=folder)
        finding = replace(finding, message=f"the file was written but doesn't run: {finding.message}")
        return _Part(index, path, report, None, (*findings, finding), seconds, traceback.format_exc())
    return _Part(index, path, report, result, tuple(findings), seconds, "")


def _convert(
    wanted: Wanted, path: Path, scratch: Path, shared: _FloatFile, progress: Progress
) -> list[Finding]:
    if not wanted.use_cache:
        return _convert_anew(wanted, path, scratch, shared, progress)
    key = conversion_key(wanted.model, wanted.format)
    findings = fetch(key, path)
    if findings is None:
        findings = _convert_anew(wanted, path, scratch, shared, progress)
        keep(key, path, findings)
    else:
        progress("taken from the cache")
        if wanted.format == "tflite" and wanted.model.kind == "dense":
            shared.path = path
    return findings


def _convert_anew(
    wanted: Wanted, path: Path, scratch: Path, shared: _FloatFile, progress: Progress
) -> list[Finding]:
    model = wanted.model
    assert (model.precision, wanted.format) in ROADS
    if wanted.format == "pte":
        from . import executorch

        return executorch.convert(model, path, progress)
    from . import litert, tflite_quantizer

    if model.kind == "pt2e":
        return litert.convert_static(model, path, progress)
    if model.kind == "dense":
        try:
            notes = litert.convert_float(model.capture, path, progress)
        except Exception as error:
            shared.error = error
            raise
        shared.path = path
        return notes
    if shared.error is not None:
        raise shared.error
    notes = []
    if shared.path is None:
        path_of_float = scratch / "float.tflite"
        dense = replace(wanted, model=replace(model, precision="fp32"))
        notes = _convert(dense, path_of_float, scratch, shared, progress)
    assert shared.path is not None
    tflite_quantizer.quantize_file(
        shared.path,
        model.precision,
        path,
        progress,
        group=model.weight_group,
        samples=[named_sample(model.capture.source, sample) for sample in model.samples],
    )
    return notes


def named_sample(source: SourceModel, sample: Sample) -> dict[str, np.ndarray]:
    """A calibration sample as the signature of a .tflite file takes it: by name, whole numbers in 32 bits."""
    found = {}
    for info, tensor in zip(source.inputs, sample, strict=True):
        array = tensor.detach().cpu().numpy()
        found[info.name] = array.astype(np.int32) if array.dtype == np.int64 else array
    return found


def _collect(
    outcome: Outcome[list[_Part]], members: list[tuple[int, Wanted]], folder: Path
) -> dict[int, Produced]:
    if outcome.value is None:
        # The process died: which of its files were finished can't be known, so none counts.
        message, suggestion = disk_trouble(outcome.last_words, folder) or (
            f"converting or running the file failed: {outcome.error}",
            "run with --verbose for the exporter's own words",
        )
        return {
            index: Produced(
                wanted=item,
                findings=(Finding("error", message, format=item.format, suggestion=suggestion),),
                log=outcome.log,
            )
            for index, item in members
        }
    by_index = dict(members)
    found = {}
    for part in outcome.value:
        found[part.index] = Produced(
            wanted=by_index[part.index],
            path=part.path,
            report=part.report,
            checks=part.checks,
            findings=part.findings,
            convert_s=part.convert_s,
            peak_memory_mib=outcome.peak_memory_mib,
            log=part.log + (outcome.log if part.path is None else ""),
        )
    return found


def discard(produced: Sequence[Produced]) -> None:
    """Delete the files of artefacts that could not be made or run."""
    for item in produced:
        if item.path is not None and item.checks is None:
            with contextlib.suppress(OSError):
                item.path.unlink()
