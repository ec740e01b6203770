"""Fixtures of the device tests: the real adb server, phones behind it, and a real sshd."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from device_daemon import Daemon
from device_standins import NativePhone, OpenSshServer, free_port

from edgeopt.android_harness.adb import AdbTarget
from edgeopt.android_harness.adb_server import AdbServer
from edgeopt.errors import EdgeoptError


@dataclass
class Phone:
    """A stand-in phone that the adb server knows."""

    device: NativePhone
    daemon: Daemon
    server: AdbServer

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.daemon.port}"

    def target(self) -> AdbTarget:
        return AdbTarget(self.serial, self.server, base=str(self.device.base))

    def leave(self) -> None:
        """Unplug it for good."""
        self.daemon.faults.stay_away_s = 1e9
        self.daemon.cut()


@pytest.fixture(scope="session")
def adb_server() -> Iterator[AdbServer]:
    """adbutils' own adb as a server on a port and with a home of its own."""
    from adbutils import adb_path

    patch = pytest.MonkeyPatch()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="adb-home-") as home:
        environment = {**os.environ, "HOME": home, "ANDROID_ADB_SERVER_PORT": str(port)}
        command = [adb_path(), "start-server"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            subprocess.run(command, env=environment, timeout=60, check=True, **quiet)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"adb's server can't run here: {error}")
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        yield AdbServer(port)
        subprocess.run([adb_path(), "kill-server"], env=environment, timeout=30, check=False, **quiet)
        patch.undo()


@pytest.fixture
def phones(
    adb_server: AdbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Phone]]:
    """Makes native stand-in phones, attached; they are detached at the end."""
    monkeypatch.setenv("EDGEOPT_STATE_DIR", str(tmp_path / "state"))
    with ExitStack() as stack:

        def make(serial: str = "28281FDH", machine: str = "aarch64") -> Phone:
            device = NativePhone(tmp_path / f"phone-{serial}", serial, machine)
            daemon = stack.enter_context(Daemon(device.shell, device.root))
            phone = Phone(device, daemon, adb_server)
            adb_server.reconnect(phone.serial)
            stack.callback(_detach, adb_server, phone.serial)
            return phone

        yield make


def _detach(server: AdbServer, serial: str) -> None:
    try:
        with server.connection() as link:
            link.send_command(f"host:disconnect:{serial}")
            link.check_okay()
    except EdgeoptError:
        return


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[OpenSshServer]:
    """Debian's sshd on loopback; skipped with the reason where it can't be had."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    try:
        server = OpenSshServer(folder)
    except (EdgeoptError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        pytest.skip(f"no OpenSSH server here: {error}")
    try:
        yield server
    finally:
        server.close()
