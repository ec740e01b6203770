"""Power meters as plug-ins, and the protocol that makes an energy figure out of one.

A meter says which channels it has, in what unit, how often it can be read and how far it can be trusted.
Meters stand in ``power_meters.py``; others come from the entry point group ``edgeopt.power_meters`` (a
callable that returns a list of meters). Energy per inference = (energy over a window of many inferences -
idle power * its duration) / inferences; the figure is the median of several windows. Latency is never taken
while a meter is read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import EdgeoptError, InputError
from .sampling import t975


@dataclass(frozen=True)
class Channel:
    """What a meter measures: a rail or a whole device, its unit, how often it is new, how exact it is."""

    name: str
    unit: str  # "J" (a counter) or "W" (a reading)
    rate_hz: float
    accuracy: str
    scope: str


class PowerMeter(Protocol):
    """A meter that was found on this machine. Readings cover the scope its channels declare."""

    name: str
    channels: tuple[Channel, ...]

    def problem(self) -> str | None:
        """Why it can't be used now (no permission, charging, ...), or None."""
        ...

    def read(self) -> float:
        """All channels together: joules since some start (unit "J") or watts now (unit "W")."""
        ...


@dataclass(frozen=True)
class Energy:
    """Energy of one inference in mJ above idle, with what it rests on."""

    millijoules: float
    ci95: tuple[float, float] | None
    power_mw: float
    idle_mw: float
    windows: int
    inferences: int
    meter: str
    scope: str
    accuracy: str
    warnings: tuple[str, ...] = ()


def find_meters(root: Path = Path("/")) -> list[PowerMeter]:
    """Every meter this machine has, the best first; ``root`` is another root directory, for tests."""
    from .external_meters import external_meters
    from .power_meters import local_meters

    found: list[PowerMeter] = list(local_meters(root))
    if root == Path("/"):
        found += external_meters()
    for entry in metadata.entry_points(group="edgeopt.power_meters"):
        found += entry.load()()
    return found


def choose_meter(name: str | None, meters: list[PowerMeter]) -> PowerMeter:
    """The meter of that name, or the first that works.

    A meter with ``external`` measures something else than this machine's CPU, a GPU or what is wired to it: only
    its name chooses it. What follows an ``@`` in the name goes to the meter's ``configure``.

    Raises:
        InputError: no such meter, or none that works, with the reason of each.
    """
    name, _, setting = (name or "").partition("@")
    if name:
        wanted = [m for m in meters if m.name == name]
    else:
        wanted = [m for m in meters if not getattr(m, "external", False)]
    if not wanted:
        known = ", ".join(m.name + (" (by name only)" if not name else "") for m in meters)
        found = f" (found: {known})" if known else " nor any other" if name else ""
        raise InputError(
            f"this machine has no power meter{f' {name!r}' if name else ''}{found}: no energy can be measured here."
        )
    problems = []
    for meter in wanted:
        if setting:
            if not hasattr(meter, "configure"):
                raise InputError(f"the power meter {meter.name} takes no setting: leave out @{setting}.")
            meter.configure(setting)
        problem = meter.problem()
        if problem is None:
            return meter
        problems.append(f"{meter.name}: {problem}")
    raise InputError(f"no power meter can be used: {'; '.join(problems)}.")


def measure_energy(
    meter: PowerMeter,
    run_for: Callable[[float], int],
    *,
    windows: int = 5,
    window_s: float = 3.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Energy of one inference.

    Args:
        run_for: runs inferences for so many seconds and returns how many they were.
        windows: measured windows, each with an idle window before it.

    Raises:
        EdgeoptError: the meter can't be used any more (the charger was plugged in).
    """
    per_inference, powers, idles, total = [], [], [], 0
    for _ in range(windows):
        _check(meter)
        idle_j, idle_s, _ = window(meter, lambda: sleep(window_s))
        busy_j, busy_s, runs = window(meter, lambda: run_for(window_s))
        _check(meter)
        idle_w = idle_j / idle_s
        per_inference.append((busy_j - idle_w * busy_s) / runs * 1e3)
        powers.append(busy_j / busy_s * 1e3)
        idles.append(idle_w * 1e3)
        total += runs
    values = np.array(per_inference)
    middle = float(np.median(values))
    warnings = []
    if middle <= 0:
        warnings.append("the energy above idle is not positive: the meter can't resolve this load")
    if np.ptp(idles) > 0.2 * np.median(idles):
        warnings.append("the idle power changed by more than 20% between windows")
    interval = None
    if len(values) >= 3:
        half = t975(len(values) - 1) * float(values.std(ddof=1)) / np.sqrt(len(values))
        interval = (min(middle, float(values.mean()) - half), max(middle, float(values.mean()) + half))
    return Energy(
        millijoules=middle,
        ci95=interval,
        power_mw=float(np.median(powers)),
        idle_mw=float(np.median(idles)),
        windows=windows,
        inferences=total,
        meter=meter.name,
        scope=", ".join(dict.fromkeys(c.scope for c in meter.channels)),
        accuracy=meter.channels[0].accuracy,
        warnings=tuple(warnings),
    )


def window(meter: PowerMeter, work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Joules and seconds of ``work``, and what it returned."""
    if meter.channels[0].unit == "J":
        started, before = time.perf_counter(), meter.read()
        result = work()
        return meter.read() - before, time.perf_counter() - started, result
    sampler = _Sampler(meter)
    with sampler:
        result = work()
    return (*sampler.energy(), result)


class _Sampler:
    """Reads a power channel in the background and integrates it by trapezoids."""

    def __init__(self, meter: PowerMeter) -> None:
        self._meter = meter
        self._period = 1 / meter.channels[0].rate_hz
        self._stop = threading.Event()
        self._points: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def _loop(self) -> None:
        while not self._stop.wait(self._period):
            self._points.append((time.perf_counter(), self._meter.read()))

    def __enter__(self) -> None:
        self._points.append((time.perf_counter(), self._meter.read()))
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._points.append((time.perf_counter(), self._meter.read()))

    def energy(self) -> tuple[float, float]:
        times, watts = (np.array(column) for column in zip(*self._points, strict=True))
        return float(np.trapezoid(watts, times)), float(times[-1] - times[0])


def _check(meter: PowerMeter) -> None:
    problem = meter.problem()
    if problem is not None:
        raise EdgeoptError(f"the power meter {meter.name} can't be used any more: {problem}.")
