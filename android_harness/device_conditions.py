"""Under which conditions a device worked: battery, heat, clocks, screen; read before and after each process.

One shell script a snapshot; what a device doesn't show is None. The judgement calls a run invalid that the
device itself slowed down or reported as disturbed, so that it is repeated and never averaged in.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .conditions import Conditions
from .device_facts import MARK, READ_FUNCTION, sections
from .remote import DeviceError, RemoteTarget, last_line

SNAPSHOT_SCRIPT = "\n".join(
    [
        READ_FUNCTION,
        f'S() {{ echo; echo "{MARK}$1"; }}',
        "S load; cat /proc/loadavg",
        "S battery; dumpsys battery 2>/dev/null",
        "S thermalservice; dumpsys thermalservice 2>/dev/null",
        "S screen; dumpsys power 2>/dev/null | grep -E 'mWakefulness=|mIsPowered='",
        "S saver; settings get global low_power 2>/dev/null",
        (
            "S zones; for z in /sys/class/thermal/thermal_zone*; do"
            ' R "$z/type"; a=$v; R "$z/temp"; echo "$a|$v"; done'
        ),
        (
            "S policies; for p in /sys/devices/system/cpu/cpufreq/policy*; do"
            ' R "$p/scaling_governor"; a=$v; R "$p/scaling_cur_freq"; b=$v; R "$p/scaling_max_freq"; c=$v;'
            ' R "$p/cpuinfo_max_freq"; echo "${p##*/policy}|$a|$b|$c|$v"; done'
        ),
        (
            "S residency; for p in /sys/devices/system/cpu/cpufreq/policy*; do"
            ' echo "policy ${p##*/policy}"; cat "$p/stats/time_in_state" 2>/dev/null; done'
        ),
        (
            "S supplies; for p in /sys/class/power_supply/*; do"
            ' R "$p/type"; a=$v; R "$p/status"; b=$v; R "$p/capacity"; echo "$a|$b|$v"; done'
        ),
        "S firmware; command -v vcgencmd >/dev/null 2>&1 && vcgencmd get_throttled",
        "S end",
    ]
)
# Android's names of PowerManager.THERMAL_STATUS_*.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_FIRMWARE_BITS = {
    0: "the board's supply voltage is too low",
    1: "the firmware caps the CPU clock",
    2: "the firmware throttles the CPU",
    3: "the board is at its soft temperature limit",
}
_LOW_BATTERY_PERCENT = 15
_HOT_C = 85.0


@dataclass(frozen=True)
class Policy:
    """One cluster's clock: governor, and in MHz the clock now, the ceiling now, and the chip's maximum."""

    first_cpu: int
    governor: str
    mhz: float | None
    ceiling_mhz: float | None
    max_mhz: float | None


@dataclass(frozen=True)
class DeviceState:
    """A device at one moment. Temperatures in °C; ``residency`` is {first CPU: {MHz: seconds since boot}}."""

    load_average: float | None = None
    battery_percent: int | None = None
    charging_by: str | None = None  # "usb", "ac", "wireless", or "no"
    battery_c: float | None = None
    battery_mv: int | None = None
    thermal_status: int | None = None
    skin_c: float | None = None
    cpu_c: float | None = None
    screen: str | None = None
    battery_saver: bool | None = None
    policies: tuple[Policy, ...] = ()
    residency: dict[int, dict[float, float]] = field(default_factory=dict)
    firmware: int | None = None

    @property
    def gate_c(self) -> float | None:
        """What the cool-down waits for: the case's sensor where there is one, else the chip's."""
        return self.skin_c if self.skin_c is not None else self.cpu_c


def snapshot_of(target: RemoteTarget) -> DeviceState:
    """The device's state now."""
    return parse_snapshot(target.script(SNAPSHOT_SCRIPT, timeout_s=60.0).stdout)


def parse_snapshot(text: str) -> DeviceState:
    """A state out of the script's output, however garbled."""
    part = sections(text)
    battery = dict(re.findall(r"^\s*([\w ]+): (\S+)\s*$", part.get("battery", ""), re.MULTILINE))
    status, skin, hal_cpu = parse_thermalservice(part.get("thermalservice", ""))
    zones = parse_zones(part.get("zones", ""))
    percent, charging = _battery(battery, part.get("supplies", ""))
    wakefulness = re.search(r"mWakefulness=(\w+)", part.get("screen", ""))
    saver = part.get("saver", "").strip()
    tenths = _number(battery.get("temperature", ""))
    volts = _number(battery.get("voltage", ""))
    load = _number((part.get("load", "").split() or [""])[0])
    throttled = re.search(r"throttled=0x([0-9a-fA-F]{1,8})\b", part.get("firmware", ""))
    return DeviceState(
        load_average=load,
        battery_percent=percent,
        charging_by=charging,
        battery_c=tenths / 10 if tenths is not None and -400 < tenths < 1500 else None,
        battery_mv=int(volts) if volts is not None and 1000 < volts < 30_000 else None,
        thermal_status=status,
        skin_c=skin,
        cpu_c=hal_cpu if hal_cpu is not None else _cpu_zone(zones),
        screen=wakefulness[1].lower() if wakefulness else None,
        battery_saver={"1": True, "0": False}.get(saver),
        policies=_policies(part.get("policies", "")),
        residency=parse_residency(part.get("residency", "")),
        firmware=int(throttled[1], 16) if throttled else None,
    )


def parse_thermalservice(text: str) -> tuple[int | None, float | None, float | None]:
    """Status (0-6), the skin's and the CPU's temperature in °C, out of ``dumpsys thermalservice``.

    ``Temperature{mValue=33.2, mType=3, mName=skin, mStatus=0}``; type 3 is SKIN, 0 CPU. The current values of
    the HAL stand last and win over cached ones.
    """
    status = re.search(r"^Thermal Status: ([0-6])\b", text, re.MULTILINE)
    found: dict[str, list[float]] = {}
    head, mark, current = text.partition("Current temperatures from HAL:")
    for source in (head, current.split("Current cooling devices")[0]) if mark else (head,):
        values: dict[str, list[float]] = {}
        for value, kind in re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=(\d+),", source):
            number = _number(value)
            if number is not None and 0 < number < 150:
                values.setdefault(kind, []).append(number)
        found |= values
    return (
        int(status[1]) if status else None,
        max(found["3"]) if "3" in found else None,
        max(found["0"]) if "0" in found else None,
    )


def parse_zones(text: str) -> list[tuple[str, float]]:
    """``type|temperature`` lines as (type, °C); millidegrees and whole degrees both occur."""
    found = []
    for line in text.splitlines():
        kind, bar, value = line.rpartition("|")
        number = _number(value)
        if bar and number is not None:
            degrees = number / 1000 if abs(number) >= 1000 else number
            if 0 < degrees < 150:
                found.append((kind.strip(), degrees))
    return found


def parse_residency(text: str) -> dict[int, dict[float, float]]:
    """``policy N`` headings and ``kHz ticks`` lines (10 ms each) as {N: {MHz: seconds}}."""
    found: dict[int, dict[float, float]] = {}
    current: dict[float, float] | None = None
    for line in text.splitlines():
        heading = re.fullmatch(r"policy (\d{1,4})", line.strip(), re.ASCII)
        pair = re.fullmatch(r"(\d{1,12}) (\d{1,18})", line.strip(), re.ASCII)
        if heading:
            current = found.setdefault(int(heading[1]), {})
        elif pair and current is not None:
            current[int(pair[1]) / 1000] = int(pair[2]) / 100
    return {policy: states for policy, states in found.items() if states}


def mean_mhz(before: DeviceState, after: DeviceState) -> dict[int, float]:
    """The mean clock of each cluster between two snapshots, by its first CPU."""
    found = {}
    for policy, states in after.residency.items():
        spent = {mhz: s - before.residency.get(policy, {}).get(mhz, 0.0) for mhz, s in states.items()}
        total = sum(max(0.0, seconds) for seconds in spent.values())
        if total > 0:
            found[policy] = sum(mhz * max(0.0, s) for mhz, s in spent.items()) / total
    return found


def judge_device(before: DeviceState, after: DeviceState) -> Conditions:
    """Compare two snapshots around a process; problems are sentences about what made it invalid."""
    problems = []
    status = max((s.thermal_status for s in (before, after) if s.thermal_status is not None), default=0)
    if status:
        problems.append(f"the device reports thermal status {THERMAL_STATUS[status]}")
    if after.cpu_c is not None and after.cpu_c >= _HOT_C:
        problems.append(f"the CPU's sensor reads {after.cpu_c:.0f} °C")
    if after.battery_saver:
        problems.append("battery saver is on")
    low = after.battery_percent is not None and after.battery_percent < _LOW_BATTERY_PERCENT
    if low and after.charging_by in (None, "no"):
        problems.append(f"the battery is at {after.battery_percent}%, where devices slow themselves down")
    capped = {p.first_cpu: p for p in before.policies}
    for policy in after.policies:
        earlier = capped.get(policy.first_cpu)
        fell = (
            earlier is not None
            and earlier.ceiling_mhz is not None
            and policy.ceiling_mhz is not None
            and policy.ceiling_mhz < earlier.ceiling_mhz
        )
        if fell:
            assert earlier is not None and earlier.ceiling_mhz is not None and policy.ceiling_mhz is not None
            problems.append(
                f"the clock limit of CPU {policy.first_cpu} fell from {earlier.ceiling_mhz:.0f} to "
                f"{policy.ceiling_mhz:.0f} MHz: it throttled"
            )
    problems += _firmware_problems(before.firmware, after.firmware)
    return Conditions(_facts(before, after), tuple(problems))


def wait_cool(
    target: RemoteTarget,
    limit_c: float,
    *,
    timeout_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Wait until the device is at ``limit_c`` or below; a sentence when it wasn't within ``timeout_s``."""
    started = time.monotonic()
    while True:
        now = snapshot_of(target).gate_c
        if now is None or now <= limit_c:
            return None
        waited = time.monotonic() - started
        if waited >= timeout_s:
            return f"{target.name} was still at {now:.0f} °C after {waited:.0f} s of cooling (goal {limit_c:g} °C)"
        say(f"cools down: {now:.1f} °C, goal {limit_c:g} °C")
        sleep(min(5.0, max(0.1, timeout_s - waited)))


def _facts(before: DeviceState, after: DeviceState) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "load_average": [before.load_average, after.load_average],
        "battery_percent": after.battery_percent,
        "charging_by": after.charging_by,
        "battery_c": after.battery_c,
        "thermal_status": THERMAL_STATUS[after.thermal_status] if after.thermal_status is not None else None,
        "temperature_c": [before.cpu_c, after.cpu_c],
        "skin_c": [before.skin_c, after.skin_c],
        "screen": after.screen,
        "battery_saver": after.battery_saver,
        "governor": ",".join(dict.fromkeys(p.governor for p in after.policies if p.governor)),
        "frequency_mhz": {str(p.first_cpu): [_mhz_of(before, p.first_cpu), p.mhz] for p in after.policies},
        "mean_mhz": {str(cpu): round(mhz) for cpu, mhz in mean_mhz(before, after).items()},
        "firmware_throttled": hex(after.firmware) if after.firmware is not None else None,
    }
    return {key: value for key, value in facts.items() if value not in (None, "", {}, [None, None])}


def _mhz_of(state: DeviceState, cpu: int) -> float | None:
    return next((p.mhz for p in state.policies if p.first_cpu == cpu), None)


def _firmware_problems(before: int | None, after: int | None) -> list[str]:
    """Raspberry Pi's ``get_throttled``: bits 0-3 are now, the same 16 higher have happened since boot."""
    if after is None:
        return []
    happened = (after >> 16) & ~((before or 0) >> 16)
    return [words for bit, words in _FIRMWARE_BITS.items() if after >> bit & 1 or happened >> bit & 1]


def _battery(battery: dict[str, str], supplies: str) -> tuple[int | None, str | None]:
    rows = [line.split("|") for line in supplies.splitlines() if line.startswith("Battery|")]
    cells = [row for row in rows if len(row) == 3]
    if battery:
        percent = _number(battery.get("level", ""))
        sources = {
            "AC powered": "ac",
            "USB powered": "usb",
            "Wireless powered": "wireless",
            "Dock powered": "dock",
        }
        found = [word for key, word in sources.items() if battery.get(key) == "true"]
        charging: str | None = "+".join(found) or "no"
    elif cells:
        percent = _number(cells[0][2])
        charging = "no" if cells[0][1] == "Discharging" else "ac"
    else:
        return None, None
    return int(percent) if percent is not None and 0 <= percent <= 100 else None, charging


def _policies(text: str) -> tuple[Policy, ...]:
    found = []
    for line in text.splitlines():
        words = line.split("|")
        if len(words) == 5 and words[0].isascii() and words[0].isdigit() and len(words[0]) < 5:
            khz = [_number(word) for word in words[2:]]
            now, ceiling, most = (k / 1000 if k else None for k in khz)
            found.append(Policy(int(words[0]), words[1].strip(), now, ceiling, most))
    return tuple(sorted(found, key=lambda policy: policy.first_cpu))


def _cpu_zone(zones: list[tuple[str, float]]) -> float | None:
    """The hottest zone that is the CPU's by its name; where no name says so, the hottest at all."""
    words = ("cpu", "big", "mid", "little", "soc", "tsens", "cluster", "x86_pkg")
    named = [degrees for kind, degrees in zones if any(word in kind.lower() for word in words)]
    return max(named or [degrees for _, degrees in zones], default=None)


def _number(text: str) -> float | None:
    word = text.strip()
    if not re.fullmatch(r"-?\d{1,18}(\.\d{1,9})?", word, re.ASCII):
        return None
    return float(word)


Root = Callable[[list[str]], list[str]]


def find_root(target: RemoteTarget) -> Root:
    """How a command becomes root's on this device: as it is, by ``su`` (its two dialects), or by ``sudo``.

    Raises:
        DeviceError: none of them works without a question.
    """
    roads: tuple[Root, ...] = (
        lambda words: words,
        lambda words: ["su", "0", *words],  # AOSP's
        lambda words: ["su", "-c", shlex.join(words)],  # Magisk's
        lambda words: ["sudo", "-n", *words],
    )
    for road in roads:
        done = target.execute(road(["id", "-u"]), timeout_s=20.0)
        if done.returncode == 0 and done.stdout.strip() == "0":
            return road
    raise DeviceError(f"{target.name} gives no root (neither su nor sudo without a password).", "refused")


def pin_governor(target: RemoteTarget, root: Root) -> dict[str, str]:
    """Set every cluster's governor to ``performance``; the old ones (file -> name), to be given back.

    Raises:
        DeviceError: it isn't allowed.
    """
    before = {
        f"/sys/devices/system/cpu/cpufreq/policy{p.first_cpu}/scaling_governor": p.governor
        for p in snapshot_of(target).policies
        if p.governor
    }
    set_governors(target, root, dict.fromkeys(before, "performance"))
    return before


def set_governors(target: RemoteTarget, root: Root, wanted: dict[str, str]) -> None:
    """Write governors: file -> name.

    Raises:
        DeviceError: it isn't allowed.
    """
    for path, governor in wanted.items():
        words = ["sh", "-c", 'echo "$1" > "$2"', "sh", governor, path]
        done = target.execute(root(words), timeout_s=20.0)
        if done.returncode != 0:
            raise DeviceError(
                f"the governor of {target.name} can't be set to {governor} ({last_line(done.stderr)}).",
                "refused",
            )
