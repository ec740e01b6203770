"""Power meters that a phone or board carries: ODPM rails, the fuel gauge, INA3221 sensors, the Pi 5's PMIC.

Each fulfils :class:`.power.PowerMeter`; its text format is parsed by a function of its own. Meters that are
not there, or may not be read, say so in :meth:`problem`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import EdgeoptError, InputError
from .device_facts import READ_FUNCTION
from .device_session import DeviceSession
from .payload import MAX_RUNS
from .power import Channel, Energy, PowerMeter, measure_energy
from .power_meters import pmic_watts
from .remote import DeviceError, RemoteTarget

if TYPE_CHECKING:
    from .device_measure import DeviceMeasurement

# The rails that feed cores, memory and interconnect: what an inference on the CPU draws from. A phone has some
# twenty more (display, modem, camera), which would drown it.
_COMPUTE_RAIL = re.compile(r"VDD_(CPU|CPUCL\d|MIF|INT|DDR)|CPU|DRAM|_DDR|MIF", re.IGNORECASE)
_MILLIAMPERE_LIMIT = 10_000  # an awake phone draws more than 10 mA: a smaller figure isn't in µA


def parse_odpm_service(text: str) -> dict[str, float]:
    """Joules of each rail, out of ``dumpsys android.hardware.power.stats.IPowerStats/default``.

    The section ``PowerStats HAL 2.0 energy meter`` has lines ``[S4M_VDD_CPUCL0]:CPU   123456.78 mWs``.
    """
    _, start, rest = text.partition("PowerStats HAL 2.0 energy meter")
    section = rest.split("End of PowerStats HAL 2.0 energy meter")[0] if start else ""
    found = {}
    for name, value in re.findall(r"^\s*(\S[^\n]*?)\s+(\d{1,16}(?:\.\d{1,6})?) mWs\b", section, re.MULTILINE):
        rail = re.match(r"\[([^\]]+)\]", name)
        found[rail[1] if rail else name] = float(value) / 1e3
    return found


def parse_odpm_iio(text: str) -> dict[str, float]:
    """Joules of each rail, out of ``/sys/bus/iio/devices/iio:device*/energy_value`` (µWs).

    Lines are ``CH0(T=349894)[S10M_VDD_TPU], 6855``; ``t=349894`` stands before them.
    """
    rows = re.findall(r"^CH\d{1,3}\(T=\d{1,18}\)\[([^\]\n]+)\], (\d{1,18})\s*$", text, re.MULTILINE)
    return {name: int(value) / 1e6 for name, value in rows}


def compute_rails(rails: Mapping[str, float]) -> dict[str, float]:
    """The rails of cores and memory; all of them where no name says so."""
    return {name: value for name, value in rails.items() if _COMPUTE_RAIL.search(name)} or dict(rails)


def parse_gauge(text: str) -> dict[str, int | str]:
    """``key=value`` lines of the fuel gauge: status, current_now, voltage_now (integers where they are)."""
    found: dict[str, int | str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and value:
            number = re.fullmatch(r"-?\d{1,12}", value, re.ASCII)
            found[key] = int(value) if number else value
    return found


def gauge_watts(gauge: Mapping[str, int | str]) -> tuple[float, str]:
    """Watts, and in words which unit and sign were assumed for the current.

    Phones report µA or mA, and differ in which direction is positive: the amount counts, and the status tells
    the direction.

    Raises:
        DeviceError: there is no current or voltage.
    """
    current, voltage = gauge.get("current_now"), gauge.get("voltage_now")
    if not isinstance(current, int) or not isinstance(voltage, int) or voltage <= 0:
        raise DeviceError("the fuel gauge shows no current and voltage.", "refused")
    milli = abs(current) < _MILLIAMPERE_LIMIT
    amperes = abs(current) / (1e3 if milli else 1e6)
    volts = voltage / (1e6 if voltage > 100_000 else 1e3)
    sign = "negative" if current < 0 else "positive"
    return (
        amperes * volts,
        f"current taken as {'mA' if milli else 'µA'}, {sign} while {gauge.get('status', 'unknown')}",
    )


def parse_batterystats(text: str) -> float | None:
    """Joules drawn since the battery was full, out of ``dumpsys batterystats`` and ``dumpsys battery``.

    The lines ``Capacity: 4355, Computed drain: 12.3, actual drain: 0-43`` (mAh) and ``voltage: 3870`` (mV).
    """
    drain = re.search(r"Computed drain: (\d{1,6}(?:\.\d{1,6})?)", text)
    voltage = re.search(r"^\s*voltage: (\d{3,5})\s*$", text, re.MULTILINE)
    if drain is None or voltage is None:
        return None
    return float(drain[1]) / 1e3 * 3600.0 * int(voltage[1]) / 1e3


def parse_hwmon(text: str) -> dict[str, float]:
    """Watts of each rail, out of ``label|mV|mA`` lines; the board's input alone when it is among them."""
    found = {}
    for line in text.splitlines():
        words = line.split("|")
        if len(words) == 3 and all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in words[1:]):
            found[words[0].strip()] = int(words[1]) * int(words[2]) / 1e6
    whole = {name: watts for name, watts in found.items() if name.upper() in ("VDD_IN", "POM_5V_IN")}
    return whole or found


class _DeviceMeter(ABC):
    """What the meters share: a script on the device, and its text turned into one figure."""

    name = ""
    script = ""

    def __init__(self, target: RemoteTarget) -> None:
        self._target = target
        self.channels: tuple[Channel, ...] = ()

    def text(self) -> str:
        return self._target.script(self.script, timeout_s=30.0).stdout

    def problem(self) -> str | None:
        try:
            self.read()
        except DeviceError as error:
            if error.kind in ("lost", "timeout"):
                raise
            return str(error).rstrip(".")
        return None

    @abstractmethod
    def read(self) -> float:
        """Joules so far, or watts now; the channels say which."""


class OdpmService(_DeviceMeter):
    """Pixel's rails through the power statistics service; a shell may read them without root."""

    name = "odpm"
    script = "dumpsys android.hardware.power.stats.IPowerStats/default 2>/dev/null"

    def rails(self) -> dict[str, float]:
        return compute_rails(parse_odpm_service(self.text()))

    def read(self) -> float:
        rails = self.rails()
        if not rails:
            raise DeviceError("the power statistics service shows no rails.", "refused")
        if not self.channels:
            scope = f"the rails {', '.join(rails)}"
            self.channels = tuple(
                Channel(name, "J", 5.0, "on-device power monitor; the maker states no accuracy", scope)
                for name in rails
            )
        return sum(rails.values())


class OdpmFiles(OdpmService):
    """The same rails through sysfs, where the shell may read it (mostly as root)."""

    name = "odpm-iio"
    script = 'for f in /sys/bus/iio/devices/iio:device*/energy_value; do cat "$f" 2>/dev/null; done'

    def rails(self) -> dict[str, float]:
        return compute_rails(parse_odpm_iio(self.text()))


class FuelGauge(_DeviceMeter):
    """The battery's gauge: the whole device, slow; refused while the device charges unless told."""

    name = "fuel-gauge"
    script = READ_FUNCTION + (
        '; for s in /sys/class/power_supply/*; do R "$s/type"; if [ "$v" = Battery ]; then'
        ' for k in status current_now voltage_now; do R "$s/$k"; echo "$k=$v"; done; break; fi; done'
    )

    def __init__(self, target: RemoteTarget, *, while_charging: bool = False) -> None:
        super().__init__(target)
        self._while_charging = while_charging

    def read(self) -> float:
        gauge = parse_gauge(self.text())
        watts, assumed = gauge_watts(gauge)
        if gauge.get("status") != "Discharging" and not self._while_charging:
            raise DeviceError(
                f"the battery is {str(gauge.get('status', 'in an unknown state')).lower()}, so its current is not "
                "what the phone draws: unplug it and use adb over Wi-Fi, or say --while-charging",
                "refused",
            )
        if not self.channels:
            accuracy = f"fuel gauge, some percent, new about once a second; {assumed}"
            self.channels = (Channel("battery", "W", 2.0, accuracy, "whole device"),)
        return watts


class Batterystats(_DeviceMeter):
    """Android's own account of the battery: a model of the phone's maker, not a meter. By name only."""

    name = "batterystats"
    script = "dumpsys batterystats 2>/dev/null; dumpsys battery 2>/dev/null"

    def read(self) -> float:
        joules = parse_batterystats(self.text())
        if joules is None:
            raise DeviceError(
                "batterystats shows no computed drain (it counts on battery only: unplug the phone).",
                "refused",
            )
        if not self.channels:
            accuracy = "Android's power model (power_profile.xml), not a measurement"
            self.channels = (Channel("battery", "J", 1.0, accuracy, "whole device, as Android models it"),)
        return joules


class Ina3221(_DeviceMeter):
    """A Jetson's (or another board's) INA3221 behind hwmon."""

    name = "ina3221"
    script = READ_FUNCTION + (
        '; for h in /sys/class/hwmon/hwmon*; do R "$h/name"; case "$v" in ina3221*) for c in 1 2 3; do'
        ' R "$h/in${c}_label"; l=$v; R "$h/in${c}_input"; m=$v; R "$h/curr${c}_input"; echo "$l|$m|$v";'
        " done;; esac; done"
    )

    def read(self) -> float:
        rails = parse_hwmon(self.text())
        if not rails:
            raise DeviceError("there is no INA3221.", "refused")
        if not self.channels:
            scope = "board input" if len(rails) == 1 else f"the rails {', '.join(rails)}"
            self.channels = tuple(
                Channel(name, "W", 5.0, "INA3221: about 1-3% of full scale", scope) for name in rails
            )
        return sum(rails.values())


class PiPmic(_DeviceMeter):
    """Raspberry Pi 5: the power management chip's ADC."""

    name = "pi5-pmic"
    script = "command -v vcgencmd >/dev/null 2>&1 && vcgencmd pmic_read_adc"

    def read(self) -> float:
        watts = pmic_watts(self.text())
        if watts <= 0:
            raise DeviceError("vcgencmd shows no rails (a Raspberry Pi 5 is needed).", "refused")
        if not self.channels:
            accuracy, scope = "about 5-10%; without the USB and 5 V rails", "the SoC's and memory's rails"
            self.channels = (Channel("pmic", "W", 5.0, accuracy, scope),)
        return watts


def check_meter_name(name: str) -> None:
    """Refuse a meter that no device has, which needs no device to be told.

    Raises:
        InputError: naming those there are.
    """
    kinds: tuple[type[_DeviceMeter], ...] = (OdpmService, OdpmFiles, Ina3221, PiPmic, FuelGauge, Batterystats)
    known = [kind.name for kind in kinds]
    if name not in known:
        raise InputError(f"no device has a power meter {name!r}: known are {', '.join(known)}.")


def choose_device_meter(
    target: RemoteTarget, name: str | None, *, while_charging: bool = False
) -> PowerMeter:
    """The meter of that name, or the first that works: rails before the whole device.

    Raises:
        InputError: no such meter, or none that works, with the reason of each.
    """
    if name is not None:
        check_meter_name(name)
    meters: list[_DeviceMeter] = [OdpmService(target), OdpmFiles(target), Ina3221(target), PiPmic(target)]
    meters.append(FuelGauge(target, while_charging=while_charging))
    model = Batterystats(target)
    wanted = [model] if name == model.name else [meter for meter in meters if name in (None, meter.name)]
    reasons = []
    for meter in wanted:
        problem = meter.problem()
        if problem is None:
            return meter
        reasons.append(f"{meter.name}: {problem}")
    raise InputError(f"{target.name} has no power meter that can be used ({'; '.join(reasons)}).")


def energy_on_device(
    session: DeviceSession,
    meter: PowerMeter,
    done: DeviceMeasurement,
    *,
    windows: int = 5,
    window_s: float = 5.0,
) -> Energy:
    """Energy of one inference, by a meter of the device; every window is a fresh process.

    Raises:
        EdgeoptError: the device failed, or the meter can't be used any more.
    """
    summary = done.summary
    if summary is None:
        raise EdgeoptError("no energy is measured where the CPU is emulated.")
    shares: list[float] = []

    def run_for(seconds: float) -> int:
        runs = int(min(MAX_RUNS, max(1.0, seconds * 1e3 / summary.median_ms)))
        job = replace(done.job, output_prefix=None, warmup_runs=0, num_runs=runs)
        report = done.payload.report(
            session.run(done.command(job), timeout_s=60.0 + 10 * seconds), session.target.name
        )
        busy_ms = sum(report.times_ms) or (report.mean_ms or 0.0) * runs
        shares.append((report.load_ms or 0.0) / max(1e-9, busy_ms + (report.load_ms or 0.0)))
        return runs

    energy = measure_energy(meter, run_for, windows=windows, window_s=window_s)
    share = max(shares)
    if share > 0.05:
        words = f"loading the file takes {share:.0%} of a window and is in the figure"
        energy = replace(energy, warnings=(*energy.warnings, words))
    return energy
