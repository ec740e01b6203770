"""The meters edgeopt knows: RAPL, INA3221 and other hwmon sensors, battery gauges, NVML, Raspberry Pi 5's PMIC."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .conditions import file_text
from .power import Channel, PowerMeter


def local_meters(root: Path) -> list[PowerMeter]:
    """The meters found under ``root`` (files) and, for the real root, by libraries and tools."""
    found: list[PowerMeter] = []
    if root == Path("/"):
        found += [*Nvml.find(), *Pi5Pmic.find()]
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
    if zones:
        found.append(Rapl(zones))
    for hwmon in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        rails = hwmon_rails(hwmon)
        if rails:
            found.append(Hwmon(hwmon, rails))
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if file_text(supply / "type") == "Battery" and (
            (supply / "power_now").exists() or (supply / "current_now").exists()
        ):
            found.append(Battery(supply))
    return found


class Rapl:
    """Running Average Power Limit counters of Intel and AMD packages (Linux powercap)."""

    name = "rapl"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = list(zones)
        self._last = dict.fromkeys(self._zones, 0)
        self._wraps = dict.fromkeys(self._zones, 0)
        names = [file_text(zone / "name") or zone.name for zone in zones]
        self.channels = tuple(
            Channel(name, "J", 1000.0, "a model of the CPU's, about 5%", "CPU package") for name in names
        )

    def problem(self) -> str | None:
        try:
            self.read()
        except PermissionError:
            return "energy_uj may be read by root only (chmod a+r the files under powercap)"
        except (OSError, ValueError) as error:
            return f"can't be read ({error})"
        return None

    def read(self) -> float:
        total = 0
        for zone in self._zones:
            now = int((zone / "energy_uj").read_text())
            if now < self._last[zone]:  # the counter wrapped around
                self._wraps[zone] += int((zone / "max_energy_range_uj").read_text())
            self._last[zone] = now
            total += now + self._wraps[zone]
        return total / 1e6


def hwmon_rails(hwmon: Path) -> list[tuple[str, Path | tuple[Path, Path]]]:
    """(label, power file in µW) or (label, (volt file in mV, current file in mA)) of a sensor."""
    rails: list[tuple[str, Path | tuple[Path, Path]]] = []
    for power in sorted([*hwmon.glob("power[0-9]*_input"), *hwmon.glob("power[0-9]*_average")]):
        label = file_text(hwmon / f"{power.name.split('_')[0]}_label") or power.name.split("_")[0]
        rails.append((label, power))
    if rails:
        return rails
    for current in sorted(hwmon.glob("curr[0-9]*_input")):
        number = re.sub(r"\D", "", current.name)
        volt = hwmon / f"in{number}_input"
        if volt.exists():
            rails.append((file_text(hwmon / f"in{number}_label") or f"rail{number}", (volt, current)))
    return rails


class Hwmon:
    """A sensor chip of the board: INA3221 on Jetson, INA2xx, and whatever reports power or volts and amperes.

    When one rail is the board's input (VDD_IN), it alone is read: the others are parts of it.
    """

    def __init__(self, hwmon: Path, rails: Sequence[tuple[str, Path | tuple[Path, Path]]]) -> None:
        chip = file_text(hwmon / "name") or hwmon.name
        self.name = f"hwmon:{chip}"
        inputs = [rail for rail in rails if rail[0].upper() in ("VDD_IN", "POM_5V_IN")]
        self._rails = inputs or list(rails)
        accuracy = "INA3221: about 1-3% of full scale" if "ina3221" in chip else "as the sensor chip states"
        scope = "board input" if inputs else "the rails " + ", ".join(label for label, _ in self._rails)
        self.channels = tuple(Channel(label, "W", 20.0, accuracy, scope) for label, _ in self._rails)

    def problem(self) -> str | None:
        try:
            self.read()
        except (OSError, ValueError) as error:
            return f"can't be read ({error})"
        return None

    def read(self) -> float:
        total = 0.0
        for _, source in self._rails:
            if isinstance(source, Path):
                total += int(source.read_text()) / 1e6
            else:
                total += int(source[0].read_text()) * int(source[1].read_text()) / 1e6
        return total


class Battery:
    """A battery's fuel gauge: the whole device, slow, and only while it discharges.

    Gauges disagree about the sign of the current; while discharging its amount is what flows out.
    """

    def __init__(self, supply: Path) -> None:
        self._supply = supply
        self.name = f"battery:{supply.name}"
        accuracy = "fuel gauge, some percent; new values about once a second"
        self.channels: tuple[Channel, ...] = (Channel(supply.name, "W", 2.0, accuracy, "whole device"),)

    def problem(self) -> str | None:
        status = file_text(self._supply / "status") or "unknown"
        if status != "Discharging":
            return f"the battery is {status.lower()}: unplug the charger"
        return None

    def read(self) -> float:
        power = file_text(self._supply / "power_now")
        if power:
            return abs(int(power)) / 1e6
        current = int((self._supply / "current_now").read_text())
        return abs(current) * int((self._supply / "voltage_now").read_text()) / 1e12


class Nvml:
    """An NVIDIA GPU's own counter (total energy since the driver was loaded, in mJ)."""

    external = True  # not what a file on the CPU draws

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._handle = library.nvmlDeviceGetHandleByIndex(index)
        self.name = f"nvml:{index}"
        name = library.nvmlDeviceGetName(self._handle)
        label = name.decode() if isinstance(name, bytes) else str(name)
        self.channels: tuple[Channel, ...] = (
            Channel(label, "J", 10.0, "about 5% of the board's power", "GPU board"),
        )

    @classmethod
    def find(cls) -> list[PowerMeter]:
        """One meter a GPU, when the package nvidia-ml-py and a driver are there."""
        try:
            import pynvml

            pynvml.nvmlInit()
            return [cls(pynvml, i) for i in range(pynvml.nvmlDeviceGetCount())]
        except Exception:  # no package, no driver, no GPU: no meter
            return []

    def problem(self) -> str | None:
        try:
            self.read()
        except Exception as error:
            return f"the GPU has no energy counter ({error})"
        return None

    def read(self) -> float:
        return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


class Pi5Pmic:
    """Raspberry Pi 5: the power management chip's ADC, by ``vcgencmd pmic_read_adc``."""

    name = "pi5-pmic"
    channels: tuple[Channel, ...] = (
        Channel(
            "pmic", "W", 5.0, "about 5-10%; without the USB and 5 V rails", "the SoC's and memory's rails"
        ),
    )

    def __init__(self, command: Sequence[str] = ("vcgencmd", "pmic_read_adc")) -> None:
        self._command = list(command)

    @classmethod
    def find(cls) -> list[PowerMeter]:
        """The meter, on a machine that has the tool and a PMIC that answers."""
        meter = cls()
        return [meter] if shutil.which("vcgencmd") and meter.problem() is None else []

    def problem(self) -> str | None:
        try:
            return None if self.read() > 0 else "vcgencmd reports no rails (a Pi 5 is needed)"
        except (OSError, subprocess.SubprocessError) as error:
            return f"vcgencmd failed ({error})"

    def read(self) -> float:
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=5, check=True)
        return pmic_watts(done.stdout)


def pmic_watts(text: str) -> float:
    """Sum of volts times amperes over the rails that report both: ``VDD_CORE_A current(7)=1.46A``."""
    found: dict[str, dict[str, float]] = {}
    for rail, kind, value in re.findall(r"(\w+)_[AV] (current|volt)\(\d+\)=([\d.]+)[AV]", text):
        found.setdefault(rail, {})[kind] = float(value)
    return sum(pair["current"] * pair["volt"] for pair in found.values() if len(pair) == 2)
