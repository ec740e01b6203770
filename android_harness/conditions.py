"""Under which conditions a measurement was taken on a Linux machine, and whether they were good enough.

Everything is read from /proc and /sys; what a machine doesn't show is left out, never guessed.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_THROTTLE_TEMPERATURE_C = 85.0
_BUSY_SHARE = 0.15  # of one CPU per CPU, used by others while measuring
_FREQUENCY_CHANGE = 0.10


@dataclass(frozen=True)
class Snapshot:
    """The machine at one moment. Frequencies in MHz, temperatures in °C, CPU time in seconds of all CPUs."""

    load_average: float
    cpus: int
    governors: tuple[str, ...]
    frequency_mhz: float | None
    temperature_c: float | None
    on_battery: bool | None
    charging: bool | None
    throttle_count: int | None
    busy_s: float | None
    stolen_s: float | None
    own_cpu_s: float


@dataclass(frozen=True)
class Conditions:
    """Before and after a measurement, and what was wrong with them in words (empty: nothing found)."""

    facts: dict[str, Any]
    problems: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """The ``conditions`` object of a measurement; ``good`` is false when there were problems."""
        return {**self.facts, "good": not self.problems, "problems": list(self.problems)}


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the machine's state; ``root`` is another root directory, for tests."""
    sys = root / "sys"
    cpu_dirs = sorted((sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    governors = {file_text(d / "scaling_governor") for d in cpu_dirs} - {None}
    frequencies = [khz / 1000 for d in cpu_dirs if (khz := _number(d / "scaling_cur_freq"))]
    zones = [
        (sys / "class/thermal").glob("thermal_zone*/temp"),
        (sys / "class/hwmon").glob("hwmon*/temp*_input"),
    ]
    temperatures = [value / 1000 for files in zones for f in files if (value := _number(f)) is not None]
    # A sensor that isn't connected reads 0 or a hundred thousand.
    plausible = [value for value in temperatures if 0 < value < 150]
    throttles = list((sys / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    supplies = list((sys / "class/power_supply").glob("*"))
    statuses = [file_text(s / "status") for s in supplies if file_text(s / "type") == "Battery"]
    busy, stolen = _cpu_seconds(root / "proc/stat")
    load = (file_text(root / "proc/loadavg") or "0").split()[0]
    times = os.times()
    return Snapshot(
        load_average=float(load),
        cpus=len(os.sched_getaffinity(0)),
        governors=tuple(sorted(g for g in governors if g)),
        frequency_mhz=max(frequencies) if frequencies else None,
        temperature_c=max(plausible) if plausible else None,
        on_battery="Discharging" in statuses if statuses else None,
        charging="Charging" in statuses if statuses else None,
        throttle_count=sum(int(_number(f) or 0) for f in throttles) if throttles else None,
        busy_s=busy,
        stolen_s=stolen,
        own_cpu_s=times.user + times.system + times.children_user + times.children_system,
    )


def judge(before: Snapshot, after: Snapshot, wall_s: float) -> Conditions:
    """Compare two snapshots taken ``wall_s`` seconds apart, around a measurement by child processes."""
    problems = []
    facts: dict[str, Any] = {**machine_facts(), "load_average": [before.load_average, after.load_average]}
    if before.busy_s is not None and after.busy_s is not None and wall_s > 0.2:
        others = after.busy_s - before.busy_s - (after.own_cpu_s - before.own_cpu_s)
        share = max(0.0, others / (wall_s * (os.cpu_count() or 1)))
        facts["other_cpu_share"] = round(share, 3)
        if share > _BUSY_SHARE:
            problems.append(f"other processes used {share:.0%} of the CPUs meanwhile")
    elif before.load_average > 0.5 * before.cpus:
        problems.append(f"load average {before.load_average:g} on {before.cpus} CPUs before the start")
    if before.stolen_s is not None and after.stolen_s is not None and wall_s > 0.2:
        stolen = (after.stolen_s - before.stolen_s) / (wall_s * (os.cpu_count() or 1))
        facts["stolen_cpu_share"] = round(stolen, 3)
        if stolen > 0.02:
            problems.append(f"the hypervisor took {stolen:.0%} of the CPU time away")
    problems += _frequency_problems(before, after, facts) + _heat_problems(before, after, facts)
    if after.on_battery is not None:
        facts["on_battery"], facts["charging"] = after.on_battery, after.charging
        if after.on_battery:
            problems.append("running on battery, where the machine may slow itself down")
        elif after.charging:
            problems.append("the battery is charging")
    return Conditions(facts, tuple(problems))


def machine_facts() -> dict[str, Any]:
    """What doesn't change between two measurements on this machine."""
    return {
        "device": cpu_model(),
        "cpus": os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def cpu_model(root: Path = Path("/")) -> str:
    """The CPU's (or board's) name as the kernel tells it, else the architecture."""
    board = file_text(root / "proc/device-tree/model")
    if board:
        return board.rstrip("\0")
    for line in (file_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Hardware")) and ":" in line:
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _frequency_problems(before: Snapshot, after: Snapshot, facts: dict[str, Any]) -> list[str]:
    problems = []
    if after.governors:
        facts["governor"] = ",".join(after.governors)
        if "powersave" in after.governors and "intel_pstate" not in (_driver() or ""):
            problems.append("the CPU governor is powersave")
    if before.frequency_mhz and after.frequency_mhz:
        facts["frequency_mhz"] = [round(before.frequency_mhz), round(after.frequency_mhz)]
        change = after.frequency_mhz / before.frequency_mhz - 1
        # Idle before, working after: only a fall says that something held the clock back.
        if change < -_FREQUENCY_CHANGE:
            problems.append(f"the CPU clock fell by {-change:.0%} meanwhile")
    return problems


def _heat_problems(before: Snapshot, after: Snapshot, facts: dict[str, Any]) -> list[str]:
    problems = []
    if after.temperature_c is not None:
        facts["temperature_c"] = [before.temperature_c, after.temperature_c]
        if after.temperature_c >= _THROTTLE_TEMPERATURE_C:
            problems.append(f"the hottest sensor reads {after.temperature_c:.0f} °C")
    if before.throttle_count is not None and after.throttle_count is not None:
        throttled = after.throttle_count - before.throttle_count
        facts["throttle_events"] = throttled
        if throttled > 0:
            problems.append(f"the CPU throttled {throttled} times for heat")
    return problems


def _driver() -> str | None:
    return file_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"))


def _cpu_seconds(stat: Path) -> tuple[float | None, float | None]:
    """Busy and stolen CPU seconds since boot, all CPUs together (proc_stat(5))."""
    first = (file_text(stat) or "").split("\n", 1)[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(value) for value in first[1:9])
    hertz = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / hertz, steal / hertz


def file_text(path: Path) -> str | None:
    """What a small file says, without spaces around it; None where it can't be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = file_text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None
