"""What the children of a process are doing, read from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path


def wait_until_busy(parent: int, module: str, cpu_s: float, timeout_s: float = 60.0) -> None:
    """Wait until a child of ``parent`` that runs ``module`` has used ``cpu_s`` seconds of CPU time."""
    deadline = time.monotonic() + timeout_s
    while _cpu_s(parent, module) < cpu_s:
        assert time.monotonic() < deadline, f"no {module} of process {parent} worked for {cpu_s:g} s"
        time.sleep(0.05)


def _cpu_s(parent: int, module: str) -> float:
    most = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if module.encode() in command and int(fields[1]) == parent:
            most = max(most, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    return most
