"""What the commands say of devices that can't be used: every device's own sentence, and the right exit code."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from device_benches import QUICKEST, Phones, assert_clean, bench
from device_fixtures import Phone
from device_standins import OpenSshServer, fake_payload, write_script
from test_ssh import board

from edgeopt.android_harness.adb_server import AdbServer
from edgeopt.android_harness.device_facts import DeviceFacts
from edgeopt.android_harness.device_profile import write_profile
from edgeopt.android_harness.device_session import DeviceSession
from edgeopt.android_harness.discovery import mismatch
from edgeopt.android_harness.remote import DeviceError
from edgeopt.cli import main
from edgeopt.device_profiles import load_profile
from edgeopt.errors import EdgeoptError
from edgeopt.results.artifacts import Artifact


@pytest.fixture(autouse=True)
def taken_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with a runner that is a shell script."""
    payload = fake_payload(tmp_path)
    monkeypatch.setattr("edgeopt.results.device_bench.own_payload", lambda runtime: payload)
    monkeypatch.setattr("edgeopt.results.device_bench.inputs_for_device", lambda *everything: ([], None))
    monkeypatch.setattr("edgeopt.android_harness.device_measure._parity", lambda *everything: None)


def used_by_command(monkeypatch: pytest.MonkeyPatch, *phones: Phone) -> None:
    bases = {phone.serial: str(phone.device.base) for phone in phones}
    monkeypatch.setattr("edgeopt.android_harness.adb.AdbTarget.base_folder", lambda self: bases[self.serial])


@pytest.mark.usefixtures("by_command")
def test_when_every_device_fails_each_one_is_said(
    phones: Phones, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full, gone = phones("FULL"), phones("GONE")
    used_by_command(monkeypatch, full, gone)
    full.daemon.faults.push_failure = "couldn't write: No space left on device"
    gone.daemon.faults.match = "./fake_runner"
    gone.daemon.faults.drop_shell, gone.daemon.faults.stay_away_s = 1, 1e9
    code = main(["bench", str(model), "--on", "adb:all", "--no-store", "--wait", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1 and not found["ok"] and found["command"] == "bench"
    assert len(found["errors"]) == 2
    assert any(f"adb:{full.serial} has no space left" in error for error in found["errors"])
    assert any(f"adb:{gone.serial} was lost" in error for error in found["errors"])
    # What had to stay on the device is said although there is no result to say it with.
    (warning,) = found["warnings"]
    assert f"could not be removed from adb:{gone.serial}: the next run on this device removes it" in warning
    assert_clean(full)


def test_a_device_that_was_waited_for_is_not_waited_for_again(
    phones: Phones,
) -> None:
    """Ctrl-C while the cable is out, or the end of the wait: the tidying up only looks once more."""
    phone = phones()
    said: list[str] = []
    target = phone.target()
    started = 0.0
    wait_back = target.wait_back

    def pressed(timeout_s: float) -> bool:
        nonlocal started
        if not started:
            started = time.monotonic()
            raise KeyboardInterrupt
        return wait_back(timeout_s)

    target.wait_back = pressed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), DeviceSession(target, recover_s=60.0, say=said.append) as session:
        phone.leave()
        session.recover()
    assert time.monotonic() - started < 10
    assert said[-1] == "lost: waiting up to 60 s for it to come back"
    assert "the next run on this device removes it" in session.warnings[0]


@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_reaches_the_threads_of_several_devices(
    phones: Phones, model: Path, tmp_path: Path, lost: bool
) -> None:
    """It is raised in the main thread only; each device's own waited on for its runner, or for the device."""
    running, other = phones("RUNNING"), phones("OTHER")
    for phone in (running, other):
        phone.daemon.faults.match, phone.daemon.faults.hang_shell = "./fake_runner", 1
    if lost:
        other.daemon.faults.drop_shell, other.daemon.faults.stay_away_s = 1, 1e9
    pressed: list[float] = []

    def press() -> None:
        while not all(
            any("./fake_runner" in line for line in p.daemon.faults.seen) for p in (running, other)
        ):
            time.sleep(0.02)
        time.sleep(1.0)
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        bench(
            [running, other],
            [Artifact(model, model.name, "tflite")],
            tmp_path,
            timeout_s=50.0,
            recover_s=50.0,
        )
    assert time.monotonic() - pressed[0] < 10
    assert_clean(running)
    if not lost:
        assert_clean(other)


def test_what_waits_for_a_board_can_be_ended_by_another_thread(ssh_server: OpenSshServer) -> None:
    target = board(ssh_server)
    threading.Timer(0.5, target.interrupt).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        target.execute(["sleep", "30"], timeout_s=40)
    with pytest.raises(KeyboardInterrupt):  # until what is to be tidied up can be
        target.execute(["echo"], timeout_s=40)
    target.resume()
    assert target.execute(["echo", "5"], timeout_s=20).stdout == "5\n"
    assert time.monotonic() - started < 10
    target.close()


def test_one_failure_of_a_device_is_said_once(phones: Phones, tmp_path: Path) -> None:
    phone = phones()
    files = []
    for name in ("a.tflite", "b.tflite"):
        (tmp_path / name).write_bytes(name.encode())
        files.append(Artifact(tmp_path / name, name, "tflite"))
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.instead = ["echo boom >&2; exit 3"] * 9
    with pytest.raises(EdgeoptError, match="exit code 3: boom") as caught:
        bench([phone], files, tmp_path, measure=QUICKEST)
    assert caught.value.others == ()


def test_nothing_attached_is_no_wrong_usage(
    model: Path, adb_server: AdbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that isn't there ends with 1 however it was named; only a command that can't be meant with 2."""
    if adb_server.devices():
        pytest.skip("another test's phone is still attached")
    assert main(["bench", str(model), "--on", "adb", "--no-store"]) == 1
    assert "no device is attached: plug one in" in capsys.readouterr().err
    assert main(["bench", str(model), "--on", "adb:NOPE", "--no-store", "--wait", "0"]) == 1
    assert "adb:NOPE is not attached (attached: none)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--processes", "0", "--processes must be at least 1, not 0."),
        ("--num-runs", "0", "--num-runs must be at least 1, not 0."),
        ("--warmup-runs", "-1", "--warmup-runs must be at least 0, not -1."),
        ("--num-threads", "1,0", "--num-threads must be at least 1, not 0."),
        ("--max-time", "nan", "--max-time must be positive, not nan."),
        ("--wait", "nan", "--wait must be 0 or more seconds, not nan."),
        ("--wait", "-5", "--wait must be 0 or more seconds, not -5."),
    ],
)
@pytest.mark.usefixtures("by_command")
def test_numbers_that_cannot_be_meant_are_refused_before_anything_is_pushed(
    phones: Phones, model: Path, option: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    phone = phones()
    used_by_command(monkeypatch, phone)
    assert main(["bench", str(model), "--on", f"adb:{phone.serial}", "--no-store", option, value]) == 2
    assert words in capsys.readouterr().err
    assert not any("mkdir" in line for line in phone.daemon.faults.seen)


def test_profiles_new_names_its_own_option(phones: Phones, capsys: pytest.CaptureFixture[str]) -> None:
    phones("ONE"), phones("TWO")
    for source, words in (
        ("adb", "say --from adb:SERIAL."),
        (
            "adb:all",
            "--from adb:all means 2 devices: name one, e.g. --from adb:127.0.0.1:",
        ),
        ("usb", "--from usb is not known: say adb, adb:SERIAL or ssh:user@host."),
    ):
        assert main(["profiles", "new", "mine", "--from", source]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["profiles", "show", "nothing_such"], "profiles show"),
        (["profiles", "new", "mine", "--from", "usb"], "profiles new"),
        (["profiles", "validate"], "profiles validate"),
        (["bench"], "bench"),
    ],
)
def test_a_failed_command_has_the_name_it_has_otherwise(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["command"] == command


@pytest.mark.usefixtures("by_command")
def test_a_meter_asked_for_by_name_is_not_done_without(
    phones: Phones, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the host: a name that is wrong ends the command at once, a meter that can't be read ends it with 2."""
    phone = phones()
    used_by_command(monkeypatch, phone)
    arguments = [
        "bench",
        str(model),
        "--on",
        f"adb:{phone.serial}",
        "--no-store",
        "--json",
        "--num-runs",
        "8",
    ]
    arguments += ["--processes", "1", "--max-time", "0.1"]
    assert main([*arguments, "--power-meter", "rapl"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (
        "no device has a power meter 'rapl': known are odpm" in found["errors"][0]
        and not found["measurements"]
    )
    assert main([*arguments, "--power-meter", "odpm"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert "has no power meter that can be used (odpm: " in found["errors"][0] and not found["ok"]
    assert any(m["metric"] == "latency_ms" for m in found["measurements"])
    assert main([*arguments, "--power"]) == 0
    assert "no energy figure" in " ".join(json.loads(capsys.readouterr().out)["warnings"])


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("file/x.toml", 1, "x.toml can't be written"),
        ("folder", 2, "folder is a folder: name the file to write"),
    ],
)
def test_a_profile_that_cannot_be_written_is_refused_before_it_is_measured(
    tmp_path: Path, output: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def measured(*everything: object, **options: object) -> None:
        raise AssertionError("it was measured first")

    monkeypatch.setattr("edgeopt.calibration.run.calibrate", measured)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    place = tmp_path / output
    assert main(["profiles", "calibrate", "host", "--output", str(place), "--force"]) == code
    assert words in capsys.readouterr().err
    with pytest.raises(EdgeoptError, match=words):
        write_profile("", place, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@contextmanager
def mute_server() -> Iterator[int]:
    """Something that takes connections and never answers, as an adb server that hangs does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        links: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    links.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        for link in links:
            link.close()


def test_an_adb_server_that_hangs_is_not_called_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt.android_harness.adb_server.REPLY_S", 0.3)
    with (
        mute_server() as port,
        pytest.raises(EdgeoptError, match=r"did not answer within 0\.3 s: end its process"),
    ):
        AdbServer(port).devices()


def test_a_profile_of_another_architecture_is_told_apart_without_a_rule() -> None:
    phone = DeviceFacts("aarch64", model="Pixel 7", abis=("arm64-v8a",))
    generic = load_profile("generic_arm64")
    assert mismatch(generic, phone) is None  # it has no rule, and may well be meant
    other = generic.model_copy(update={"arch": "x86_64"})
    assert re.search(
        "the device is Pixel 7, not what profile generic_arm64 describes", mismatch(other, phone) or ""
    )


def test_a_shell_that_prints_before_every_command_is_named(ssh_server: OpenSshServer, tmp_path: Path) -> None:
    """`echo` in .bashrc spoils every output that is read, as it does for scp."""
    force = tmp_path / "force"
    write_script(force, '#!/bin/sh\necho "Welcome to my board"\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
    config = ssh_server.folder / "sshd_config"
    config.write_text(f"{config.read_text()}ForceCommand {force}\n")
    ssh_server.stop()
    ssh_server.start()
    target = board(ssh_server)
    with pytest.raises(
        DeviceError, match=r"prints 'Welcome to my board' before every command's output: let its"
    ):
        target.facts()
    target.close()


def test_the_hint_for_an_unknown_host_key_can_be_typed(ssh_server: OpenSshServer) -> None:
    ssh_server.known_hosts.write_text("")
    target = board(ssh_server)
    with pytest.raises(
        DeviceError, match=rf"connect once with `ssh -p {ssh_server.port} {target.user}@127\.0\.0\.1`"
    ):
        target.execute(["echo"], timeout_s=20)
    target.close()
