"""The adb target against the real adb server and a device-side daemon."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from device_fixtures import Phone
from device_standins import free_port

from edgeopt.android_harness.adb import AdbTarget, adb_targets
from edgeopt.android_harness.adb_server import AdbServer
from edgeopt.android_harness.remote import DeviceError, new_folder
from edgeopt.errors import EdgeoptError, InputError

Phones = Callable[..., Phone]
AWKWARD = "a b'c\"d$(touch hacked)`touch hacked`\\ \n;é&|>*"


def test_exit_code_and_both_streams_come_back(phones: Phones) -> None:
    target = phones().target()
    done = target.execute(
        ["sh", "-c", 'echo "$A"; echo err >&2; exit 7'], timeout_s=20, environment={"A": AWKWARD}
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, AWKWARD + "\n", "err\n")
    assert target.execute(["sh", "-c", "kill -SEGV $$"], timeout_s=20).returncode == 139


def test_files_travel_whole_under_any_name(phones: Phones, tmp_path: Path) -> None:
    phone = phones()
    target, folder = phone.target(), new_folder(str(phone.device.base))
    (tmp_path / "data").write_bytes(os.urandom(700_001))
    remote = f"{folder}/deep er/{AWKWARD}"
    target.push(tmp_path / "data", remote)
    target.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()
    assert not list(tmp_path.rglob("hacked")) and not Path("hacked").exists()
    target.remove(folder)
    target.remove(folder)  # absent is fine
    assert phone.device.leftovers() == []


def test_pulling_what_is_not_there_says_so_and_leaves_no_file(phones: Phones, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"could not be copied from adb:.*No such file"):
        phones().target().pull("/nowhere/x", tmp_path / "x")
    assert list(tmp_path.glob("x*")) == []


def test_nothing_outside_a_private_folder_is_written_or_removed(phones: Phones, tmp_path: Path) -> None:
    target = phones().target()
    (tmp_path / "f").write_text("")
    for remote in ("/", "/data/local/tmp", "/data/local/tmp/edgeopt-run-0123456789ab/../x", "relative"):
        with pytest.raises(InputError, match="not in a folder that edgeopt made"):
            target.remove(remote)
        with pytest.raises(InputError, match="not in a folder that edgeopt made"):
            target.push(tmp_path / "f", remote)


def test_a_command_that_hangs_is_left_in_time(phones: Phones) -> None:
    target = phones().target()
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not finish within 0\.5 s") as caught:
        target.execute(["sleep", "30"], timeout_s=0.5)
    assert caught.value.kind == "timeout" and time.monotonic() - started < 5


def test_output_without_end_is_stopped(phones: Phones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt.android_harness.adb.MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(DeviceError, match="printed more than 1 MiB"):
        phones().target().execute(["cat", "/dev/zero"], timeout_s=30)


def test_a_cut_wire_is_told_from_an_ended_command_and_comes_back(phones: Phones) -> None:
    phone = phones()
    target = phone.target()
    phone.daemon.faults.match = "sleep"
    phone.daemon.faults.drop_shell = 1
    with pytest.raises(DeviceError, match=r"connection to adb:\S+ was lost") as caught:
        target.execute(["sleep", "1"], timeout_s=20)
    assert caught.value.kind == "lost"
    assert target.wait_back(20)
    assert target.execute(["echo", "again"], timeout_s=20).stdout == "again\n"


def test_commands_run_side_by_side(phones: Phones) -> None:
    target = phones().target()
    seen: list[str] = []
    threads = [
        threading.Thread(
            target=lambda i=i: seen.append(target.execute(["echo", str(i)], timeout_s=20).stdout)
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [f"{i}\n" for i in range(8)]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("unauthorized", "has not allowed this computer: unlock it"),
        ("offline", "is offline: plug the cable in again"),
        ("no permissions (missing udev rules? user is in the plugdev group)", "add a udev rule"),
        ("recovery", "is in recovery"),
        ("bootloader", "is in its bootloader"),
        ("weird", "is in the state 'weird'"),
    ],
)
def test_each_state_of_a_device_has_its_sentence(state: str, words: str) -> None:
    with _ServerStandIn(version=41, devices=f"R58M\t{state}\n") as port:
        with pytest.raises(DeviceError, match=words.replace("(", r"\(")):
            AdbTarget("R58M", AdbServer(port)).check()
        with pytest.raises(DeviceError, match=r"other is not attached \(attached: R58M\)"):
            AdbTarget("other", AdbServer(port)).check()


def test_an_old_server_is_named_and_left_alone() -> None:
    with (
        _ServerStandIn(version=32) as port,
        pytest.raises(EdgeoptError, match=r"version 1\.0\.32, older than 1\.0\.39"),
    ):
        AdbServer(port).devices()


def test_something_else_on_the_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def greet() -> None:
            link, _ = other.accept()  # the probe
            link.close()
            link, _ = other.accept()
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.close()

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(EdgeoptError, match="not an adb server"):
            AdbServer(port).devices()


def test_an_old_android_is_named(phones: Phones) -> None:
    phone = phones()
    phone.daemon.faults.features = "cmd"
    phone.daemon.cut()
    assert not phone.target().wait_back(20)  # it comes back, and can't be used
    with pytest.raises(DeviceError, match="is too old: its adb daemon has no shell protocol"):
        phone.target().check()


def test_none_and_several_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    with _ServerStandIn(version=41, devices="") as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        with pytest.raises(EdgeoptError, match="no device is attached"):
            adb_targets("all")
    with _ServerStandIn(version=41, devices="A\tdevice\nB\tdevice\n") as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        with pytest.raises(InputError, match=r"2 devices are attached \(A, B\)"):
            adb_targets("")
        assert [target.name for target in adb_targets("all")] == ["adb:A", "adb:B"]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(InputError, match="must be a port number"):
        AdbServer()


class _ServerStandIn:
    """An adb server that answers host:version, host:devices and features, for what the real one can't show."""

    def __init__(self, version: int, devices: str = "") -> None:
        self.version, self.devices = version, devices

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", free_port()))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # closing alone leaves a thread that accepts waiting for ever
        self._socket.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            with link:
                link.settimeout(5)
                head = link.recv(4)
                if len(head) < 4:
                    continue
                request = link.recv(int(head, 16)).decode()
                answer = {"host:version": f"{self.version:04x}", "host:devices": self.devices}.get(
                    request, ""
                )
                link.sendall(b"OKAY" + f"{len(answer):04x}{answer}".encode())
