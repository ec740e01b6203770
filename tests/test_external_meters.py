"""Bench power meters against modules that imitate their packages: the calls, units and failures of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt.android_harness.external_meters import Streamed, external_meters
from edgeopt.android_harness.power import PowerMeter, choose_meter, measure_energy
from edgeopt.errors import EdgeoptError, InputError

# What each package has of what is called, as its sources have it; LOAD is watts at 4 V (3.3 V for the PPK2).
MONSOON_HVPM = """
class Protocol:
    DEVICE = object()
class Monsoon:
    Protocol = None
    closed = False
    def setup_usb(self, serialno=None):
        print("Unable to find device" if Protocol.DEVICE is None else "connected")
        self.Protocol = Protocol
    def fillStatusPacket(self):
        self.filled = True
    def closeDevice(self):
        Monsoon.closed = True
"""
MONSOON_ENGINE = """
import builtins, time
class channels:
    timeStamp, MainCurrent, USBCurrent, AuxCurrent, MainVoltage, USBVoltage = range(6)
class SampleEngine:
    def __init__(self, monsoon, bulkProcessRate=128):
        assert monsoon.filled
        self.running, self.console = False, True
    def ConsoleOutput(self, value):
        self.console = value
    def periodicStartSampling(self, calTime=1250):
        self.running = True
        return [[], [], [], [], [], []]
    def periodicCollectSamples(self, samples=100):
        assert self.running and not self.console
        time.sleep(samples / 5000)
        n = samples + 3
        return [[0.0] * n, [builtins.LOAD / 4 * 1e3] * n, [], [], [4.0] * n, []]
    def periodicStopSampling(self, closeCSV=False):
        self.running = False
"""
JOULESCOPE = """
import builtins, time
import numpy as np
class Device:
    output_sampling_frequency = 2000000
    opened = False
    def __str__(self):
        return "JS110-000123"
    def open(self):
        self.opened = True
    def read(self, duration=None, contiguous_duration=None):
        if not self.opened:
            raise RuntimeError("not open")
        if getattr(builtins, "UNPLUGGED", False):
            raise OSError("device removed")
        time.sleep(contiguous_duration)
        data = np.tile([builtins.LOAD / 4, 4.0], (1000, 1))
        data[3] = np.nan
        return data
    def close(self):
        self.opened = False
def scan(name=None, config=None):
    assert config == "auto"
    return [Device()]
"""
PPK2 = """
import builtins, time
class PPK2_API:
    def __init__(self, port, **kwargs):
        assert port == "/dev/ttyACM3"
        self.current_vdd, self.mode, self.measuring, self.on = None, None, False, False
    @staticmethod
    def list_devices():
        return ["/dev/ttyACM3"]
    def get_modifiers(self):
        return True
    def use_ampere_meter(self):
        self.mode = "AMPERE_MODE"
    def set_source_voltage(self, mV):
        self.current_vdd = mV
    def toggle_DUT_power(self, state):
        self.on = state == "ON"
    def start_measuring(self):
        if not self.current_vdd:
            raise Exception("Input voltage not set!")
        self.measuring = True
    def stop_measuring(self):
        self.measuring = False
    def get_data(self):
        time.sleep(0.003)
        return bytes(4 * 300) if self.measuring and self.on else b""
    def get_samples(self, buf):
        n = len(buf) // 4
        return [builtins.LOAD / 3.3 * 1e6] * n, [0] * n
"""


@pytest.fixture
def meters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, PowerMeter]]:
    import builtins

    files = {
        "Monsoon/__init__.py": "",
        "Monsoon/HVPM.py": MONSOON_HVPM,
        "Monsoon/sampleEngine.py": MONSOON_ENGINE,
        "joulescope/__init__.py": JOULESCOPE,
        "ppk2_api/__init__.py": "",
        "ppk2_api/ppk2_api.py": PPK2,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in [n for n in sys.modules if n.split(".")[0] in ("Monsoon", "joulescope", "ppk2_api")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "LOAD", 2.0, raising=False)
    monkeypatch.setattr(builtins, "UNPLUGGED", False, raising=False)
    found = external_meters()
    yield {m.name: m for m in found}
    for meter in found:
        assert isinstance(meter, Streamed)
        meter.close()
    for name in [n for n in sys.modules if n.split(".")[0] in ("Monsoon", "joulescope", "ppk2_api")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["monsoon", "joulescope", "ppk2@3300"])
def test_energy_above_idle_is_found_through_each_package(
    meters: dict[str, PowerMeter],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import builtins

    meter = choose_meter(name, list(meters.values()))
    assert [c.unit for c in meter.channels] == ["J"]

    def work(seconds: float) -> int:
        monkeypatch.setattr(builtins, "LOAD", 5.0)
        time.sleep(seconds)
        monkeypatch.setattr(builtins, "LOAD", 2.0)
        return round(seconds * 100)

    found = measure_energy(meter, work, windows=3, window_s=0.6)
    # 3 W above idle, 100 inferences a second: 30 mJ each. A chunk of 50 ms may fall to either side.
    assert found.millijoules == pytest.approx(30, rel=0.25)
    assert found.idle_mw == pytest.approx(2000, rel=0.25)
    assert "wired" in found.scope
    assert capsys.readouterr().out == ""


def test_rates_and_names_are_declared(meters: dict[str, PowerMeter]) -> None:
    assert {n: m.channels[0].rate_hz for n, m in meters.items()} == {
        "monsoon": 5000.0,
        "joulescope": 2e6,
        "ppk2": 100_000.0,
    }
    assert meters["joulescope"].channels[0].name == "JS110-000123"


def test_a_bench_meter_is_never_taken_unasked(meters: dict[str, PowerMeter]) -> None:
    with pytest.raises(InputError, match=r"no power meter \(found: monsoon \(by name only\)"):
        choose_meter(None, list(meters.values()))


def test_the_ppk2_must_be_told_its_voltage(meters: dict[str, PowerMeter]) -> None:
    every = list(meters.values())
    with pytest.raises(InputError, match="ppk2: needs the supply's voltage"):
        choose_meter("ppk2", every)
    for wrong in ("ppk2@3.3", "ppk2@9000"):
        with pytest.raises(InputError, match="takes 800 to 5000"):
            choose_meter(wrong, every)
    with pytest.raises(InputError, match="monsoon takes no setting"):
        choose_meter("monsoon@4", every)


def test_a_meter_that_is_unplugged_ends_the_measurement_in_words(
    meters: dict[str, PowerMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    meter = choose_meter("joulescope", list(meters.values()))

    def work(seconds: float) -> int:
        monkeypatch.setattr(builtins, "UNPLUGGED", True)
        time.sleep(0.2)
        return 1

    with pytest.raises(EdgeoptError, match=r"joulescope can't be (used|read) any more.*device removed"):
        measure_energy(meter, work, windows=1, window_s=0.05)


def test_nothing_plugged_in_is_no_meter(
    meters: dict[str, PowerMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    import joulescope
    from Monsoon.HVPM import Protocol
    from ppk2_api.ppk2_api import PPK2_API

    monkeypatch.setattr(Protocol, "DEVICE", None)
    monkeypatch.setattr(joulescope, "scan", lambda name=None, config=None: [])
    monkeypatch.setattr(PPK2_API, "list_devices", staticmethod(list))
    assert external_meters() == []


def test_without_the_packages_there_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.android_harness import external_meters as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert external_meters() == []
