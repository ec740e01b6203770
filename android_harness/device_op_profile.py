"""Where a file's time goes on a device, op by op: a process of its own, whose profile is pulled and read here.

ExecuTorch's runner writes an ETDump, LiteRT's the text of its profiler. Where the CPU is emulated the ops and who
runs them are told, and no time is: it would be the emulator's.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError
from ..runtimes.scratch import ScratchFolder
from .device_measure import DeviceMeasurement
from .device_session import DeviceSession
from .op_profile import op_times, read_etdump

_FILE = "ops.profile"
_RUNS, _WARMUPS = 30, 5
# One line of "Run Order": node type, start, first and average in ms, two percentages, memory, count, [name]:index.
_LINE = re.compile(
    r"^\s*(?P<op>\S.*?)\s+[\d.]+\s+[\d.]+\s+(?P<avg>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+\d+\s+\[.*\]:\d+\s*$"
)


def profile_ops_on_device(session: DeviceSession, done: DeviceMeasurement) -> list[dict[str, Any]]:
    """The ops of the file that ``done`` measured, in the order of execution, as in the JSON list ``ops``.

    ``ms`` and ``share`` are None where the device is emulated.

    Raises:
        EdgeoptError: the runner writes no profile, or one that can't be read.
        DeviceError: the device failed.
    """
    if not done.payload.gives_outputs:
        raise EdgeoptError(
            f"{done.payload.dialect} writes no op profile: leave --runner or --profile-ops out."
        )
    job = replace(done.job, num_runs=_RUNS, warmup_runs=_WARMUPS, output_prefix=None, profile=_FILE)
    report = session.run(done.command(job), timeout_s=done.device.timeout_s)
    done.payload.report(report, session.target.name)
    with ScratchFolder("ops") as folder:
        local = Path(folder) / _FILE
        session.pull(_FILE, local)
        if done.payload.runtime == "executorch":
            ops = read_etdump(local, done.path)
        else:
            ops = read_litert_summary(local.read_text(encoding="utf-8", errors="replace"))
    if session.facts.emulated_by:
        return [{**op, "ms": None, "share": None} for op in ops]
    return ops


def read_litert_summary(text: str) -> list[dict[str, Any]]:
    """Ops from the text of LiteRT's profiler, whose times have whole microseconds.

    Raises:
        EdgeoptError: there is no op in it.
    """
    lines = text.partition("Run Order")[2].splitlines()[1:]
    section = itertools.takewhile(lambda line: not line.startswith("====="), lines)
    found = [match for match in map(_LINE.match, section) if match]
    # A call of the delegate holds the delegate's own ops, which are listed one by one.
    inside = [match for match in found if match["op"].startswith("Delegate/")]
    kept = [match for match in found if not (inside and match["op"].startswith("TfLiteXNNPackDelegate"))]
    return op_times([[_event(match) for match in kept]])


def _event(match: re.Match[str]) -> dict[str, Any]:
    op = match["op"]
    return {
        "name": op.removeprefix("Delegate/"),
        "ms": float(match["avg"]),
        "delegated": op.startswith("Delegate/"),
    }
