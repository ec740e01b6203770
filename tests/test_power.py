"""Power meters against files like the kernel's, and the energy protocol against a source of known power."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgeopt.android_harness.power import Channel, choose_meter, find_meters, measure_energy, window
from edgeopt.android_harness.power_meters import Battery, Hwmon, Rapl, hwmon_rails, pmic_watts
from edgeopt.errors import EdgeoptError, InputError


def write(folder: Path, **files: str | int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


class Source:
    """A load of known power: 2 W idle, 5 W while it works."""

    name = "source"

    def __init__(self, unit: str) -> None:
        self.channels = (Channel("all", unit, 200.0, "exact", "everything"),)
        self.watts = 2.0
        self.joules = 0.0
        self.since = time.perf_counter()
        self.charging = False

    def set(self, watts: float) -> None:
        self.read_joules()
        self.watts = watts

    def read_joules(self) -> float:
        now = time.perf_counter()
        self.joules += self.watts * (now - self.since)
        self.since = now
        return self.joules

    def problem(self) -> str | None:
        return "the battery is charging" if self.charging else None

    def read(self) -> float:
        return self.read_joules() if self.channels[0].unit == "J" else self.watts

    def work(self, seconds: float) -> int:
        self.set(5.0)
        time.sleep(seconds)
        self.set(2.0)
        return round(seconds * 100)


@pytest.mark.parametrize("unit", ["J", "W"])
def test_energy_is_what_lies_above_idle(unit: str) -> None:
    source = Source(unit)
    found = measure_energy(source, source.work, windows=3, window_s=0.15)
    # 3 W above idle, 100 inferences a second: 30 mJ each.
    assert found.millijoules == pytest.approx(30, rel=0.15)
    assert found.idle_mw == pytest.approx(2000, rel=0.1)
    assert found.ci95 is not None
    assert found.ci95[0] <= found.millijoules <= found.ci95[1]
    assert found.inferences == 45


def test_energy_is_refused_while_charging() -> None:
    source = Source("J")

    def work(seconds: float) -> int:
        source.charging = True
        return source.work(seconds)

    with pytest.raises(EdgeoptError, match="charging"):
        measure_energy(source, work, windows=2, window_s=0.02)


def test_a_load_that_cannot_be_resolved_is_said() -> None:
    source = Source("J")
    found = measure_energy(source, lambda s: (time.sleep(s), 10)[1], windows=3, window_s=0.05)
    assert abs(found.millijoules) < 3
    if found.millijoules <= 0:
        assert any("not positive" in w for w in found.warnings)


def test_rapl_counts_and_wraps(tmp_path: Path) -> None:
    zone = write(
        tmp_path / "sys/class/powercap/intel-rapl:0",
        name="package-0",
        energy_uj=900_000,
        max_energy_range_uj=10**6,
    )
    write(tmp_path / "sys/class/powercap/intel-rapl:0:0", name="core", energy_uj=1)
    (meter,) = find_meters(tmp_path)
    assert isinstance(meter, Rapl)
    assert meter.problem() is None

    def work() -> None:
        (zone / "energy_uj").write_text("100000")

    joules, _, _ = window(meter, work)
    assert joules == pytest.approx(0.2)
    (zone / "energy_uj").unlink()
    assert "can't be read" in (meter.problem() or "")


def test_a_board_sensor_reads_its_input_rail_alone(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon3"
    write(folder, name="ina3221", in1_label="VDD_IN", in1_input=5000, curr1_input=1200)
    write(folder, in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=400)
    assert len(hwmon_rails(folder)) == 2
    (meter,) = find_meters(tmp_path)
    assert isinstance(meter, Hwmon)
    assert meter.read() == pytest.approx(6.0)
    assert meter.channels[0].scope == "board input"


def test_a_gauge_is_read_while_it_discharges_whatever_its_sign(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/power_supply/BAT0"
    write(folder, type="Battery", status="Charging", current_now=-500_000, voltage_now=4_000_000)
    (meter,) = find_meters(tmp_path)
    assert isinstance(meter, Battery)
    with pytest.raises(InputError, match="battery is charging: unplug"):
        choose_meter(None, [meter])
    write(folder, status="Discharging")
    assert choose_meter(None, [meter]).read() == pytest.approx(2.0)


def test_no_meter_means_no_joules(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no power meter: no energy can be measured"):
        choose_meter(None, find_meters(tmp_path))


def test_the_pmic_multiplies_the_rails_that_tell_both() -> None:
    text = """ 3V7_WL_SW_A current(0)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.75000000V
      EXT5V_V volt(24)=5.10000000V
"""
    assert pmic_watts(text) == pytest.approx(0.37 + 1.5)
    assert pmic_watts("nonsense") == 0
