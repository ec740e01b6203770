"""Phones and boards end to end: the real adb server, a real sshd, and our arm64 runner on emulated devices.

Everything behind the wire is arm64 code under QEMU in a root folder of its own (proot): the shell, its tools,
the loader and the runner. So outputs and clean-up are real; times would be QEMU's, and none is reported.
"""

from __future__ import annotations

import getpass
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from device_daemon import Daemon
from device_fixtures import Phone
from device_standins import Arm64Root, OpenSshServer, fake_payload, phone_tools, write_script

from edgeopt.android_harness.adb_server import AdbServer
from edgeopt.android_harness.device_measure import DeviceOptions, measure_on_device
from edgeopt.android_harness.device_power import (
    FuelGauge,
    Ina3221,
    OdpmService,
    choose_device_meter,
    energy_on_device,
)
from edgeopt.android_harness.device_session import DeviceSession
from edgeopt.android_harness.emulator.cache import cache_dir
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.cli import main
from edgeopt.errors import EdgeoptError, InputError

Phones = Callable[..., Phone]


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, profiles and home of this test; the emulator's toolchain stays where it is."""
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(cache_dir().parent))
    monkeypatch.setenv("EDGEOPT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("EDGEOPT_CONFIG_DIR", str(tmp_path / "config"))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def pixel(own_folders: Path, adb_server: AdbServer, tmp_path: Path) -> Iterator[tuple[str, Arm64Root]]:
    """A Pixel 7 stand-in of arm64 code behind the real adb server; its serial and its root."""
    try:
        root = Arm64Root(tmp_path / "pixel")
    except EdgeoptError as error:
        pytest.skip(f"no arm64 device root here: {error}")
    phone_tools(root.root("/system/bin"), "PIXEL7")
    for name in ("uname", "taskset"):  # busybox's own are real arm64 ones
        root.root(f"/system/bin/{name}").unlink()
    with Daemon(root.shell, root.root) as daemon:
        root.seen = daemon.faults.seen
        serial = f"127.0.0.1:{daemon.port}"
        adb_server.reconnect(serial)
        yield serial, root
        with adb_server.connection() as link:
            link.send_command(f"host:disconnect:{serial}")
            link.check_okay()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.emulator
def test_pixel7_over_adb(
    pixel: tuple[str, Arm64Root], emulated_models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    serial, root = pixel
    code, found = run(capsys, "devices")
    (device,) = found["devices"]  # type: ignore[misc]
    assert code == 0 and device["address"] == f"adb:{serial}" and device["profiles"] == ["pixel7"]
    assert (
        device["battery_percent"] == 81
        and device["temperature_c"] == 30.2
        and device["emulated_by"] == "QEMU"
    )

    governor = root.root("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor")
    governor.parent.mkdir(parents=True)
    governor.write_text("schedutil\n")
    model = tmp_path / "my $(touch hacked) 'model'.pte"
    model.write_bytes((emulated_models / "cnn_int8.pte").read_bytes())
    golden = np.load(emulated_models / "golden.npz")["cnn/input"]
    np.savez(tmp_path / "in.npz", image=golden)
    code, found = run(
        capsys,
        "bench",
        str(model),
        "--on",
        "adb",
        "--inputs",
        str(tmp_path / "in.npz"),
        "--no-store",
        "--allow-root",
        "--profile-ops",
    )
    (profile,) = found["profiles_of_ops"]  # type: ignore[misc]
    assert profile["target"] == f"adb:{serial}" and any(op["delegated"] for op in profile["ops"])
    assert all(op["ms"] is None for op in profile["ops"]), "a time of the emulator was reported"
    measurements: list[dict[str, object]] = found["measurements"]  # type: ignore[assignment]
    assert code == 0 and {m["metric"] for m in measurements} == {"cosine", "size_bytes"}
    parity = next(m for m in measurements if m["metric"] == "cosine")
    assert parity["grade"] == "emulated" and parity["target"] == f"adb:{serial}"
    assert parity["details"]["with_host"]["bit_equal"]  # type: ignore[index]
    assert parity["conditions"]["profile"] == "pixel7"  # type: ignore[index]
    assert any("no latency" in warning for warning in found["warnings"])  # type: ignore[union-attr]
    assert root.leftovers() == [] and not list(tmp_path.rglob("hacked"))

    # The governor was set to performance and given back.
    assert any("performance" in line for line in root.seen) and governor.read_text() == "schedutil\n"

    # A profile from what it says of itself, and the profile that doesn't fit it.
    code, found = run(capsys, "profiles", "new", "mine", "--from", f"adb:{serial}")
    assert code == 0 and "cortex-a76" in found["profile"]["toml"]  # type: ignore[index]
    code, found = run(capsys, "profiles", "show", "mine")
    assert found["profile"]["reach"]["adb"]["match"] == {"ro.product.device": ["panther"]}  # type: ignore[index]
    assert main(["profiles", "new", "mine", "--from", "adb"]) == 2
    assert "exists: choose another name, or say --force" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.emulator
@pytest.mark.usefixtures("adb_server")  # `devices` asks adb too: not the user's own server
def test_raspberry_pi_4_over_ssh(
    own_folders: Path, emulated_models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        root = Arm64Root(tmp_path / "pi", core="cortex-a72")
    except EdgeoptError as error:
        pytest.skip(f"no arm64 device root here: {error}")
    (root.root_folder / "device-tree-model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    write_script(root.root("/bin/vcgencmd"), "#!/bin/sh\necho throttled=0x0\n")
    words, environment = root.command("@LINE@", home="/home/pi")
    settings = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    start = " ".join(shlex.quote(word) for word in words[:-1])
    force = tmp_path / "force"
    write_script(force, f'#!/bin/sh\nexec env -i {settings} {start} "$SSH_ORIGINAL_COMMAND\nexit \\$?"\n')
    (tmp_path / "sshd").mkdir()
    try:
        server = OpenSshServer(tmp_path / "sshd", force)
    except (EdgeoptError, OSError, RuntimeError) as error:
        pytest.skip(f"no OpenSSH server here: {error}")
    try:
        settings_folder = own_folders / ".ssh"
        settings_folder.mkdir(mode=0o700)
        (settings_folder / "config").write_text(
            f"Host pi4\n  HostName 127.0.0.1\n  Port {server.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {server.folder}/user_key\n"
        )
        assert main(["bench", str(emulated_models / "cnn.tflite"), "--on", "ssh:pi4", "--no-store"]) == 1
        assert "host key that isn't known" in capsys.readouterr().err
        code, found = run(
            capsys, "bench", str(emulated_models / "cnn.tflite"), "--on", "ssh:pi4", "--profile", "raspberry_pi_4",
            "--accept-host-key", "--no-store", "--profile-ops",
        )  # fmt: skip
        assert found["ok"], found["errors"]
        (profile,) = found["profiles_of_ops"]  # type: ignore[misc]
        assert any("Convolution" in op["name"] and op["delegated"] for op in profile["ops"])
        assert all(op["ms"] is None for op in profile["ops"])
        parity = next(m for m in found["measurements"] if m["metric"] == "cosine")  # type: ignore[union-attr]
        assert code == 0 and parity["grade"] == "emulated" and parity["details"]["ok"]
        assert parity["conditions"]["model"] == "Raspberry Pi 4 Model B Rev 1.4"
        assert not any("not what profile" in warning for warning in found["warnings"])  # type: ignore[union-attr]
        code, found = run(capsys, "devices", "pi4")
        row = next(row for row in found["devices"] if row["address"] == "ssh:pi4")  # type: ignore[union-attr]
        assert row["profiles"] == ["raspberry_pi_4"]
        assert root.leftovers() == []
    finally:
        server.close()


def test_energy_from_a_simulated_odpm_service(
    phones: Phones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phone that draws 0.5 W idle and 5 mJ an inference: the meter finds the 5 mJ."""
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)
    phone = phones()
    count = tmp_path / "count"
    count.write_text("0")
    script = (
        f"import time; n = int(open({str(count)!r}).read()); "
        "mws = (time.time() % 1e5) * 500 + n * 5; "
        "print('============= PowerStats HAL 2.0 energy meter ==============\\n"
        "  [S4M_VDD_CPUCL0]:CPU   %.2f mWs\\n  [VSYS_PWR_MODEM]:Modem   %.2f mWs\\n"
        "========== End of PowerStats HAL 2.0 energy meter ==========' % (mws, time.time()))"
    )
    write_script(
        phone.device.tools / "dumpsys",
        f'#!/bin/sh\ncase "$1" in *IPowerStats*) {sys.executable} -c {shlex.quote(script)};; '
        '*) cat "${0%/*}/${1%%/*}.txt";; esac\n',
    )
    body = (
        'for a; do [ "$p" = --runs ] && n=$a; p=$a; done; '
        f"echo $(($(cat {shlex.quote(str(count))}) + n)) > {shlex.quote(str(count))}; sleep 0.2"
    )
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x")
    with DeviceSession(phone.target()) as session:
        done = measure_on_device(
            session, model, fake_payload(tmp_path, body), [], MeasureOptions(processes=1, max_time_s=0.1, num_runs=8),
            DeviceOptions(compare_with_host=False), lambda what: None,
        )  # fmt: skip
        chosen = choose_device_meter(session.target, None)
        assert chosen.name == "odpm"
        energy = energy_on_device(session, chosen, done, windows=3, window_s=1.0)
    assert energy.scope == "the rails S4M_VDD_CPUCL0" and energy.meter == "odpm"
    assert energy.inferences == 3 * 1000
    assert energy.millijoules == pytest.approx(5.0, rel=0.2)
    assert energy.idle_mw == pytest.approx(500, rel=0.25)  # a reading takes a tenth of the window here


def test_meters_that_cannot_be_used_say_why(phones: Phones) -> None:
    phone = phones()
    target = phone.target()
    with pytest.raises(InputError, match="no device has a power meter 'x'"):
        choose_device_meter(target, "x")
    if not list(Path("/sys/class/power_supply").glob("*/current_now")):
        with pytest.raises(
            InputError, match=r"odpm: the power statistics service shows no rails; odpm-iio: "
        ):
            choose_device_meter(target, None)
    assert OdpmService(target).problem() and (Ina3221(target).problem() or Path("/sys/class/hwmon").exists())


def test_a_charging_phone_is_refused_unless_told(phones: Phones, monkeypatch: pytest.MonkeyPatch) -> None:
    target = phones().target()
    text = "status=Charging\ncurrent_now=450000\nvoltage_now=4000000\n"
    monkeypatch.setattr(FuelGauge, "text", lambda self: text)
    assert "the battery is charging" in str(FuelGauge(target).problem())
    told = FuelGauge(target, while_charging=True)
    assert told.problem() is None and told.read() == pytest.approx(1.8)
    assert "current taken as µA, positive while Charging" in told.channels[0].accuracy


def test_all_devices_at_once_in_one_table(
    phones: Phones, own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)
    payload = fake_payload(tmp_path)
    monkeypatch.setattr("edgeopt.results.device_bench.own_payload", lambda runtime: payload)
    monkeypatch.setattr("edgeopt.android_harness.device_measure._parity", lambda *everything: None)
    one, two = phones("ONE"), phones("TWO")
    bases = {f"127.0.0.1:{phone.daemon.port}": phone.device.base for phone in (one, two)}
    monkeypatch.setattr(
        "edgeopt.android_harness.adb.AdbTarget.base_folder", lambda self: str(bases[self.serial])
    )
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x")
    np.savez(tmp_path / "in.npz", image=np.zeros(4, np.float32))
    arguments = ["bench", str(model), "--on", "adb:all", "--inputs", str(tmp_path / "in.npz"), "--no-store"]
    assert main([*arguments, "--processes", "1", "--max-time", "0.1", "--num-runs", "8", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert f"adb:{one.serial}" in table and f"adb:{two.serial}" in table
    assert one.device.leftovers() == two.device.leftovers() == []
    assert main([*arguments, "--duration", "5"]) == 2
    assert "--duration does not go with --on adb:all" in capsys.readouterr().err


@pytest.mark.parametrize("on", ["adb:", "ssh:", "ssh", "telnet:x", "adbx"])
def test_a_wrong_place_is_refused(on: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert main(["bench", str(tmp_path / "m.tflite"), "--on", on]) == 2
    assert "is not known: say" in capsys.readouterr().err
