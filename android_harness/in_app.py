"""The sample app of ``edgeopt app`` as a place to measure: started over adb, its report read from the log.

Each take is a fresh app process: ``am start -S`` stops the old one. The app prints its report in lines
``ID PART/PARTS TEXT`` with the tag ``edgeopt-bench`` (BenchmarkReport.kt), where ID is what the start gave it, so
that what an earlier run left in the log is never taken. Nothing is written on the phone and its log is not cleared.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from .device_measure import DeviceMeasurement, DeviceOptions, retried, take_all
from .device_session import DeviceSession
from .measure import MeasureOptions
from .payload import Job, Payload, Report, own_report
from .remote import DeviceError, last_line, quoted

TAG = "edgeopt-bench"
ACTIVITY = ".BenchmarkActivity"
MAX_RUNS = 1000  # of one process: the app's own limit
_FIRST_RUNS = 5
_POLL_S = 0.5
_PACKAGE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_LINE = re.compile(r"^(?:[VDIWEF]/)?(?P<tag>[\w.-]+)\s*: (?P<text>.*)$")
_PART = re.compile(r"^(?P<id>\S+) (?P<part>\d{1,4})/(?P<parts>\d{1,4}) (?P<text>.*)$")
_ALIVE = "edgeopt-alive:"


@dataclass(frozen=True)
class Log:
    """What the log said of one run: the parts of its report, and how the process ended if it did."""

    parts: dict[int, str]
    wanted: int | None
    alive: bool
    crash: str | None
    older: bool = False

    @property
    def report(self) -> str | None:
        """The whole report; None while parts are missing."""
        if self.wanted is None or len(self.parts) < self.wanted:
            return None
        return "".join(self.parts[number] for number in range(1, self.wanted + 1))

    @property
    def rotated(self) -> bool:
        """The last part is there and an earlier one isn't: the log has dropped it."""
        return self.wanted in self.parts and self.report is None


class AppRunner:
    """Starts the sample app's benchmark; every run is a process of its own.

    Raises (on making it):
        InputError: not a package's name, or it isn't installed there.
    """

    def __init__(self, session: DeviceSession, package: str, *, poll_s: float = _POLL_S) -> None:
        self.session, self.package, self._poll_s = session, check_package(package), poll_s
        found = session.target.script(f"pm path {quoted(package)}")
        if not found.stdout.startswith("package:"):
            raise InputError(
                f"{package} is not installed on {self._where}: make the sample app with `edgeopt app` and install "
                "it with ./gradlew :sample:installRelease, or give its id with --package."
            )

    @property
    def _where(self) -> str:
        return self.session.target.name

    def run(self, job: Job, timeout_s: float) -> Report:
        """The report of one process of the app.

        Raises:
            InputError: it isn't the sample app, or it can't run its model.
            DeviceError: it crashed, did not end in time, or its lines were lost.
        """
        runs = min(job.num_runs, MAX_RUNS)
        return retried(self.session, lambda: self._once(replace(job, num_runs=runs), timeout_s))

    def stop(self) -> None:
        """End the app's process; best effort."""
        try:
            self.session.target.script(f"am force-stop {quoted(self.package)}")
        except EdgeoptError:
            return

    def _once(self, job: Job, timeout_s: float) -> Report:
        run_id = secrets.token_hex(4)
        target = self.session.target
        since = target.script("date '+%m-%d %H:%M:%S.000'").stdout.strip()
        after = f"-T {quoted(since)} " if re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d\.000", since) else ""
        look = (
            f"logcat -d -v tag {after}-s {TAG}:I AndroidRuntime:E libc:F; "
            f'echo "{_ALIVE}$(pidof {quoted(self.package)})"'
        )
        try:
            started = target.script(self._start_line(job, run_id), timeout_s=60.0)
            self._check_started(f"{started.stdout}\n{started.stderr}")
            end = time.monotonic() + timeout_s
            ended = False
            while True:
                late = time.monotonic() >= end
                log = read_log(target.script(look).stdout, run_id, self.package)
                if log.report is not None:
                    return self._report(log.report)
                if late or log.rotated or log.older or ended:
                    raise self._problem(log, timeout_s)
                # Its last words may have come between the log and the process: one more look.
                ended = not log.alive
                time.sleep(0.0 if ended else self._poll_s)
        finally:
            self.stop()

    def _start_line(self, job: Job, run_id: str) -> str:
        return (
            f"am start -S -W -n {quoted(f'{self.package}/{ACTIVITY}')} --es id {run_id} "
            f"--ei threads {job.num_threads} --ei warmup {job.warmup_runs} --ei runs {job.num_runs}"
        )

    def _check_started(self, said: str) -> None:
        wrong = next(
            (line.strip() for line in said.splitlines() if re.match(r"\s*(Error|java\.)", line)), None
        )
        if wrong is None:
            return
        if "does not exist" in wrong or "Error type 3" in said:
            raise InputError(
                f"{self.package} on {self._where} has no {ACTIVITY[1:]}: it is not the sample app that `edgeopt app` "
                "makes."
            )
        raise DeviceError(
            f"{self.package} can't be started on {self._where}: {wrong.rstrip('.')[:300]}.", "refused"
        )

    def _problem(self, log: Log, timeout_s: float) -> EdgeoptError:
        if log.older:
            return InputError(
                f"{self.package} on {self._where} was made by an older edgeopt: make the sample app anew with "
                "`edgeopt app` and install it."
            )
        if log.rotated:
            return DeviceError(
                f"the log of {self._where} dropped a part of the app's report: make it larger with "
                "`adb logcat -G 4M` and run again.",
                "garbage",
            )
        if not log.alive:
            why = log.crash or "it ended without a word in the log"
            return DeviceError(
                f"{self.package} crashed on {self._where}: {why.rstrip('.')[:300]}.", "crashed"
            )
        return DeviceError(
            f"{self.package} on {self._where} printed no result within {timeout_s:g} s and was stopped: is its screen "
            "on, and is its log kept (adb logcat -G 4M)?",
            "timeout",
        )

    def _report(self, text: str) -> Report:
        try:
            row: dict[str, Any] = json.loads(text)
            if row["runner"] != 1 or row["where"] != "app":
                raise ValueError(text)
            if "error" in row:
                raise InputError(
                    f"{self.package} on {self._where} can't run its model: {str(row['error']).rstrip('.')}."
                )
            told = {key: row[key] for key in ("model_sha256", "delegates", "fallback", "runtime", "threads")}
            # A phone that hides its memory from the app has none to report.
            report = own_report({**row, "peak_memory_kib": row["peak_memory_kib"] or 0})
            peak = report.peak_mib if row["peak_memory_kib"] else None
            return replace(report, peak_mib=peak, details=told)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DeviceError(
                f"{self.package} on {self._where} printed something that is no report ({last_line(text)[:80]!r}).",
                "garbage",
            ) from error


def measure_in_app(
    runner: AppRunner,
    path: Path,
    first: Report,
    options: MeasureOptions,
    device: DeviceOptions,
    say: Callable[[str], None],
) -> DeviceMeasurement:
    """Measure in the app as :func:`.device_measure.measure_on_device` does in a shell.

    Args:
        path: the local file that the app carries.
        first: the report of the app's first process.

    Raises:
        InputError, DeviceError: nothing could be measured.
    """
    job = app_job(options.num_threads)
    payload = Payload(str(first.details["runtime"]), {}, (), "app")
    begun = DeviceMeasurement(path, payload, options, device, job, first, (), (), None, None, (), None)
    return take_all(runner, begun, lambda what: say(f"in the app, {what}"))


def app_job(num_threads: int) -> Job:
    """A short first run, which tells what the app carries and how long an inference takes."""
    return Job("model", (), num_threads, 1, _FIRST_RUNS)


def check_package(name: str) -> str:
    """An application id.

    Raises:
        InputError: it isn't one.
    """
    if not _PACKAGE.fullmatch(name):
        raise InputError(f"--package {name!r} is not an app's id, like com.acme.vision.sample.")
    return name


def read_log(text: str, run_id: str, package: str) -> Log:
    """What ``logcat -v tag`` printed of the run ``run_id``, followed by the line with the app's process."""
    parts: dict[int, str] = {}
    wanted: int | None = None
    alive = older = False
    java: list[str] = []
    native: str | None = None
    for line in text.splitlines():
        if line.startswith(_ALIVE):
            alive = bool(line.removeprefix(_ALIVE).strip())
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        if match["tag"] == TAG:
            part = _PART.match(match["text"])
            if part is None:
                older = older or match["text"].startswith(('{"runner"', "error: "))
            elif part["id"] == run_id:
                wanted = int(part["parts"])
                parts[int(part["part"])] = part["text"]
        elif match["tag"] == "AndroidRuntime":
            java.append(match["text"])
        elif "Fatal signal" in match["text"] and package[-15:] in match["text"]:
            native = match["text"]
    return Log(parts, wanted, alive, _exception(java, package) or native, older and wanted is None)


def _exception(lines: list[str], package: str) -> str | None:
    """The last exception of the package's process: the line below ``Process: PACKAGE, PID: ...``."""
    found = None
    for above, line in itertools.pairwise(lines):
        if above.startswith(f"Process: {package},"):
            found = line.strip()
    return found
