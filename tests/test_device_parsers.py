"""Quoting, and every parser of what a device prints: real formats, and anything at all.

The texts follow the formats that Android's, Pixel's, NVIDIA's and Raspberry Pi's own sources print.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from device_standins import BATTERY, PIXEL7, REPORT, THERMAL
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.android_harness.device_conditions import (
    DeviceState,
    Policy,
    find_root,
    judge_device,
    mean_mhz,
    parse_residency,
    parse_snapshot,
    parse_thermalservice,
    parse_zones,
)
from edgeopt.android_harness.device_facts import MARK, parse_facts, parse_properties
from edgeopt.android_harness.device_power import (
    compute_rails,
    gauge_watts,
    parse_gauge,
    parse_hwmon,
    parse_odpm_iio,
    parse_odpm_service,
)
from edgeopt.android_harness.device_profile import to_toml
from edgeopt.android_harness.payload import parse_benchmark_model, parse_executor_runner, parse_own
from edgeopt.android_harness.power_meters import pmic_watts
from edgeopt.android_harness.remote import (
    DeviceError,
    RemoteTarget,
    new_folder,
    private_path,
    quoted,
    shell_line,
)
from edgeopt.android_harness.target import Execution
from edgeopt.errors import InputError

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
# Lines such as devices print, with the words that the parsers look for, in any disorder.
PIECES = st.sampled_from(
    ["@@edgeopt battery\n", "@@edgeopt policies\n", "@@edgeopt zones\n", "level: ", "[ro.x]: [", "]\n", "|", "\n",
     "Temperature{mValue=", ", mType=3,", "policy 4\n", "1803000 17\n", "mWs", "PowerStats HAL 2.0 energy meter",
     "CH0(T=1)[S1M], ", "throttled=0x", "current_now=", "-", "9" * 30, "NaN", "²", "qemu-aarch64", "{\"runner\": 1"]
)  # fmt: skip
GARBAGE = st.lists(st.one_of(PIECES, st.text(max_size=12)), max_size=25).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_every_word_reaches_the_program_as_it_is(words: list[str], value: str) -> None:
    line = shell_line(["printf", "%s\\0", *words], environment={"A": value}, folder="/", limit_s=20)
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=30, check=True)
    assert done.stdout.decode() == "".join(f"{word}\0" for word in words)
    told = subprocess.run(
        ["sh", "-c", shell_line(["sh", "-c", 'printf %s "$A"'], environment={"A": value})],
        capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    assert told.stdout.decode() == value


def test_what_no_shell_can_carry_is_refused() -> None:
    with pytest.raises(InputError, match="NUL"):
        quoted("a\0b")
    with pytest.raises(InputError, match="not the name of an environment variable"):
        shell_line(["x"], environment={"A;rm -rf /": "1"})
    with pytest.raises(InputError, match="no command"):
        shell_line([])


@given(st.text())
def test_only_paths_inside_a_private_folder_pass(path: str) -> None:
    folder = new_folder("/data/local/tmp")
    assert private_path(folder) == folder and private_path(f"{folder}/a b/c") == f"{folder}/a b/c"
    with pytest.raises(InputError):
        private_path(path)
    inside = f"{folder}/{path}"
    if ".." in path.split("/") or "\0" in path:
        with pytest.raises(InputError):
            private_path(inside)
    else:
        assert private_path(inside) == inside


@settings(max_examples=300, deadline=None)
@given(GARBAGE)
def test_no_parser_stumbles_over_garbage(text: str) -> None:
    done = Execution(0, text, text)
    parse_facts(text)
    state = parse_snapshot(text)
    judge_device(state, state)
    for parser in (parse_properties, parse_thermalservice, parse_zones, parse_residency, parse_odpm_service,
                   parse_odpm_iio, parse_gauge, parse_hwmon):  # fmt: skip
        parser(text)
    for reader in (parse_own, parse_benchmark_model, parse_executor_runner):
        reader(done)
    with contextlib.suppress(DeviceError):
        gauge_watts(parse_gauge(text))


def facts_text(**changes: str) -> str:
    props = "\n".join(f"[{key}]: [{value}]" for key, value in PIXEL7.items())
    parts = {
        "machine": "aarch64\n5.10.157-android13-4\n2000",
        "props": props,
        "meminfo": "MemTotal:        7792040 kB\nMemFree: 1 kB\nMemAvailable:    3561208 kB",
        "clusters": "0 1 2 3|1803000\n6 7|2850000\n4 5|2348000",
        "emulation": "kernel=aarch64",
        **changes,
    }
    return "".join(f"\n{MARK}{name}\n{body}\n" for name, body in parts.items())


def test_facts_of_a_phone() -> None:
    facts = parse_facts(facts_text())
    assert facts.title == "Google Pixel 7" and facts.soc == "Google GS201" and facts.sdk == 34
    assert facts.ram_mib == 7609 and facts.free_mib == 3477 and facts.uid == 2000
    assert facts.clusters == (((0, 1, 2, 3), 1803.0), ((4, 5), 2348.0), ((6, 7), 2850.0))
    assert facts.problem() is None and facts.emulated_by is None
    json.dumps(facts.as_json())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emulation": "qemu-aarch64\nkernel="}, "QEMU"),
        ({"emulation": "kernel=x86_64"}, "an emulator on x86_64"),
        ({"props": "[ro.kernel.qemu]: [1]"}, "the Android emulator"),
        ({"props": "[ro.hardware]: [ranchu]"}, "the Android emulator"),
        ({"props": "", "model": "linux,dummy-virt"}, "QEMU"),
    ],
)
def test_emulators_give_themselves_away(changes: dict[str, str], words: str) -> None:
    assert parse_facts(facts_text(**changes)).emulated_by == words


def test_what_a_device_calls_itself_commands_no_terminal() -> None:
    facts = parse_facts(
        facts_text(props="[ro.product.model]: [Pix\x1b[31mel\n7\x07]\n[ro.soc.model]: [G\rS]")
    )
    told = json.dumps(facts.as_json(), ensure_ascii=False)
    assert facts.model == "Pix [31mel 7" and "\x1b" not in told and "\\n" not in str(facts.soc)
    assert facts.title.isprintable()


def test_facts_of_a_board() -> None:
    facts = parse_facts(
        facts_text(
            props="",
            model="Raspberry Pi 4 Model B Rev 1.4\n",
            id="0123",
            os='PRETTY_NAME="Debian GNU/Linux 12"',
        )
    )
    assert facts.model == "Raspberry Pi 4 Model B Rev 1.4" and facts.os == "Debian GNU/Linux 12"
    assert facts.identity == "0123" and facts.problem() is None
    assert "armv7l" in str(replace(facts, machine="armv7l").problem())


@pytest.mark.parametrize("filler", ["unknown", "0123456789ABCDEF", "00000000", "", " ", "null"])
def test_a_serial_number_that_many_devices_bear_is_none(filler: str) -> None:
    """Two such phones would wait for each other's lease, and clean up each other's folders."""
    told = f"[ro.serialno]: [{filler}]\n[ro.boot.serialno]: [{filler}]"
    assert parse_facts(facts_text(props=told)).identity is None
    own = parse_facts(facts_text(props=f"[ro.serialno]: [{filler}]\n[ro.boot.serialno]: [28281FDH]"))
    assert own.identity == "28281FDH"


def snapshot_text(**changes: str) -> str:
    parts = {
        "load": "1.25 1.0 0.9 2/1234 5678",
        "battery": BATTERY,
        "thermalservice": THERMAL,
        "screen": "  mWakefulness=Asleep",
        "saver": "0",
        "policies": "0|schedutil|1803000|1803000|1803000\n6|schedutil|2400000|2850000|2850000",
        "residency": "policy 0\n300000 1000\n1803000 500\npolicy 6\n500000 10\n2850000 90",
        **changes,
    }
    return "".join(f"\n{MARK}{name}\n{body}\n" for name, body in parts.items())


def test_a_snapshot_of_a_phone() -> None:
    state = parse_snapshot(snapshot_text())
    assert (state.battery_percent, state.charging_by, state.battery_c, state.battery_mv) == (
        81,
        "usb",
        28.7,
        4321,
    )
    assert (state.thermal_status, state.skin_c, state.cpu_c, state.gate_c) == (0, 30.2, 41.5, 30.2)
    assert state.screen == "asleep" and state.battery_saver is False and state.load_average == 1.25
    assert state.policies[1] == Policy(6, "schedutil", 2400.0, 2850.0, 2850.0)


def test_the_mean_clock_is_of_the_time_between() -> None:
    before = parse_snapshot(snapshot_text())
    after = parse_snapshot(
        snapshot_text(residency="policy 0\n300000 1000\n1803000 500\npolicy 6\n500000 20\n2850000 120")
    )
    assert mean_mhz(before, after) == {6: pytest.approx((10 * 500 + 30 * 2850) / 40)}


def test_a_snapshot_of_a_board() -> None:
    state = parse_snapshot(
        snapshot_text(battery="", thermalservice="", screen="", saver="null", zones="cpu-thermal|48212",
                      firmware="throttled=0x50000")
    )  # fmt: skip
    assert state.cpu_c == 48.212 and state.gate_c == 48.212 and state.charging_by is None
    assert state.firmware == 0x50000
    # What happened since boot, before this run, is no problem of this run.
    assert judge_device(state, state).problems == ()
    now = replace(state, firmware=0x50005)
    assert judge_device(state, now).problems == (
        "the board's supply voltage is too low",
        "the firmware throttles the CPU",
    )
    assert judge_device(replace(state, firmware=0), state).problems != ()


def test_temperatures_in_degrees_and_thousandths() -> None:
    assert parse_zones("cpu|45\nsoc_max|51234\nbroken|\nunplugged|-273000") == [
        ("cpu", 45.0),
        ("soc_max", 51.234),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thermal_status": 2}, "thermal status moderate"),
        ({"cpu_c": 91.0}, "sensor reads 91 °C"),
        ({"battery_saver": True}, "battery saver"),
        ({"battery_percent": 9, "charging_by": "no"}, "battery is at 9%"),
        (
            {"policies": (Policy(6, "schedutil", 1e3, 1e3, 2850.0),)},
            "clock limit of CPU 6 fell from 2850 to 1000 MHz",
        ),
    ],
)
def test_each_condition_that_makes_a_run_invalid(change: dict[str, object], words: str) -> None:
    calm = DeviceState(policies=(Policy(6, "schedutil", 2e3, 2850.0, 2850.0),))
    assert judge_device(calm, calm).problems == ()
    assert any(words in problem for problem in judge_device(calm, replace(calm, **change)).problems)  # type: ignore[arg-type]


ODPM = """
============= PowerStats HAL 2.0 energy consumers ==============
  TPU   999.00 mWs
========== End of PowerStats HAL 2.0 energy consumers ==========

============= PowerStats HAL 2.0 energy meter ==============
                           Channel    Cumulative Energy
                  [S4M_VDD_CPUCL0]:CPU         123456.78 mWs
                  [S2M_VDD_CPUCL2]:CPU(BIG)     65432.10 mWs
                     [S1M_VDD_MIF]:DDR          20000.00 mWs
                  [VSYS_PWR_MODEM]:Modem       900000.00 mWs
========== End of PowerStats HAL 2.0 energy meter ==========
"""


def test_pixel_rails_from_the_service_and_from_sysfs() -> None:
    rails = parse_odpm_service(ODPM)
    assert rails["S4M_VDD_CPUCL0"] == pytest.approx(123.45678) and "TPU" not in rails
    assert set(compute_rails(rails)) == {"S4M_VDD_CPUCL0", "S2M_VDD_CPUCL2", "S1M_VDD_MIF"}
    text = "t=349894\nCH0(T=349894)[S10M_VDD_TPU], 6855\nCH1(T=349894)[S1M_VDD_MIF], 2500000\n"
    assert parse_odpm_iio(text) == {"S10M_VDD_TPU": pytest.approx(0.006855), "S1M_VDD_MIF": 2.5}
    assert compute_rails({"A": 1.0}) == {"A": 1.0}


@pytest.mark.parametrize(
    ("current", "voltage", "watts", "words"),
    [
        (-450_000, 4_000_000, 1.8, "µA, negative while Discharging"),
        (450_000, 4_000_000, 1.8, "µA, positive while Discharging"),
        (-450, 4_000, 1.8, "mA, negative while Discharging"),
    ],
)
def test_fuel_gauges_differ_in_sign_and_unit(current: int, voltage: int, watts: float, words: str) -> None:
    gauge = parse_gauge(f"status=Discharging\ncurrent_now={current}\nvoltage_now={voltage}\n")
    seen, assumed = gauge_watts(gauge)
    assert seen == pytest.approx(watts) and words in assumed


def test_boards_sensors() -> None:
    assert parse_hwmon("VDD_IN|5064|960\nVDD_CPU_GPU_CV|5064|200\n||\n") == {"VDD_IN": pytest.approx(4.86144)}
    assert parse_hwmon("rail1|5000|100\nrail2|3300|10") == {"rail1": 0.5, "rail2": pytest.approx(0.033)}
    adc = "    VDD_CORE_A current(7)=1.46A\n    VDD_CORE_V volt(15)=0.72V\n     EXT5V_V volt(24)=5.15V\n"
    assert pmic_watts(adc) == pytest.approx(1.46 * 0.72)


def test_our_runners_line_is_found_among_noise() -> None:
    report = parse_own(Execution(0, f'INFO: x\n{{"a": 1}}\n{REPORT}\nbye\n', ""))
    assert (
        report is not None and report.load_ms == 3.5 and report.peak_mib == 20.0 and len(report.times_ms) == 8
    )
    assert parse_own(Execution(0, REPORT.replace("1.01", '"x"'), "")) is None
    assert parse_own(Execution(0, REPORT.replace("3.5", "-1"), "")) is None
    assert parse_own(Execution(0, REPORT[:-30], "")) is None


def test_the_official_runners_are_understood() -> None:
    text = (
        "INFO: count=50 first=14310 curr=14412 min=14211 max=15411 avg=14575.2 std=212 p5=1 median=2 p95=3\n"
        "INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, "
        "Inference (avg): 14575.2\nINFO: Memory footprint delta from the start of the tool (MB): init=2.1 overall=9.5\n"
    )
    report = parse_benchmark_model(Execution(0, "", text))
    assert (
        report is not None
        and report.mean_ms == pytest.approx(14.5752)
        and report.load_ms == pytest.approx(5.685)
    )
    assert (
        report.details["runs"] == 50
        and report.details["min_ms"] == pytest.approx(14.211)
        and report.peak_mib == 9.5
    )
    text = "I 00:00:00.02 executor_runner.cpp:381] Model executed successfully 10 time(s) in 125.0 ms."
    report = parse_executor_runner(Execution(0, text, ""))
    assert report is not None and report.mean_ms == 12.5


class RootTarget(RemoteTarget):
    """A device on which only commands that begin with ``road`` are root's."""

    def __init__(self, road: str) -> None:
        self.name, self.road = "adb:X", road

    def transport(self, line: str, timeout_s: float, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        command = line.partition("; then exec timeout -s KILL 25 ")[2].partition(";")[0]
        return (0, b"0\n" if command == self.road else b"2000\n", b"")

    def wait_back(self, timeout_s: float) -> bool:
        return True

    def push(self, local: Path, remote: str) -> None:
        raise AssertionError("nothing is copied to look for root")

    def pull(self, remote: str, local: Path) -> None:
        raise AssertionError("nothing is copied to look for root")

    def base_folder(self) -> str:
        return "/data/local/tmp"


@pytest.mark.parametrize(
    ("road", "command"),
    [
        ("id -u", ["sh", "-c", "a b"]),
        ("su 0 id -u", ["su", "0", "sh", "-c", "a b"]),
        ("su -c 'id -u'", ["su", "-c", "sh -c 'a b'"]),
        ("sudo -n id -u", ["sudo", "-n", "sh", "-c", "a b"]),
    ],
)
def test_each_road_to_root_is_found(road: str, command: list[str]) -> None:
    assert find_root(RootTarget(road))(["sh", "-c", "a b"]) == command


def test_a_device_without_root_says_so() -> None:
    with pytest.raises(DeviceError, match="gives no root"):
        find_root(RootTarget("nothing"))


TOML_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TOML_DATA = st.dictionaries(
    TOML_TEXT,
    st.one_of(TOML_TEXT, st.integers(-(2**60), 2**60), st.booleans(), st.lists(TOML_TEXT, max_size=3),
              st.dictionaries(TOML_TEXT, TOML_TEXT, max_size=3),
              st.lists(st.dictionaries(TOML_TEXT, st.integers(0, 9), max_size=2), min_size=1, max_size=2)),
    max_size=5,
)  # fmt: skip


@settings(deadline=None)
@given(TOML_DATA)
def test_written_toml_reads_back_as_it_was(content: dict[str, object]) -> None:
    import tomllib

    assert tomllib.loads(to_toml(content)) == content


BATTERYSTATS = """\
  Estimated power use (mAh):
    Capacity: 4355, Computed drain: 12.5, actual drain: 0-43.6
    Global
      screen: 3.21 apps: 3.21
Current Battery Service state:
  AC powered: false
  level: 81
  voltage: 4000
"""


def test_batterystats_is_charge_times_voltage() -> None:
    from edgeopt.android_harness.device_power import parse_batterystats

    assert parse_batterystats(BATTERYSTATS) == pytest.approx(0.0125 * 3600 * 4.0)
    assert parse_batterystats("Computed drain: 12.5") is None


@given(st.text())
def test_any_batterystats_text_is_read_or_refused(text: str) -> None:
    from edgeopt.android_harness.device_power import parse_batterystats

    found = parse_batterystats(text)
    assert found is None or found >= 0
