"""The adb server of this machine: found or started, never stopped, and asked what is attached.

A server that already runs is used whatever its version (its protocol has not changed for years), so that
nobody's adb session is ended; one is started only when none runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EdgeoptError, InputError
from .remote import DeviceError

if TYPE_CHECKING:
    from adbutils import AdbConnection

OLDEST_SERVER = 39  # 1.0.39 (2017): the first whose host services are all that is used here
REPLY_S = 20.0
_STATES = {
    "unauthorized": "has not allowed this computer: unlock it and accept the USB debugging question",
    "authorizing": "is still deciding about this computer: unlock it and accept the USB debugging question",
    "offline": "is offline: plug the cable in again, or switch USB debugging off and on",
    "no permissions": "may not be opened by this user: add a udev rule for it (package android-sdk-platform-tools-common)",
    "recovery": "is in recovery: boot it normally",
    "rescue": "is in rescue mode: boot it normally",
    "sideload": "is in sideload mode: boot it normally",
    "bootloader": "is in its bootloader: boot it normally",
    "connecting": "is still connecting: try again in some seconds",
    "host": "is another adb server, not a device",
}


@dataclass(frozen=True)
class AttachedDevice:
    """A line of ``adb devices``: its serial, its state, and what is wrong with that state (None: nothing)."""

    serial: str
    state: str

    @property
    def problem(self) -> str | None:
        if self.state == "device":
            return None
        state = "no permissions" if self.state.startswith("no permissions") else self.state
        return _STATES.get(state, f"is in the state {self.state!r}: it must be 'device'")


class AdbServer:
    """The adb server on this machine: ``$ANDROID_ADB_SERVER_PORT`` (5037 when unset)."""

    def __init__(self, port: int | None = None) -> None:
        text = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
        if port is None and not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            raise InputError(f"ANDROID_ADB_SERVER_PORT is {text!r}: it must be a port number.")
        self.port = port or int(text)
        self._checked = False

    def devices(self) -> list[AttachedDevice]:
        """What is attached, in adb's order."""
        with self.connection() as link:
            link.send_command("host:devices")
            link.check_okay()
            text = link.read_string_block()
        pairs = (line.partition("\t") for line in text.splitlines())
        return [AttachedDevice(serial, state.strip()) for serial, tab, state in pairs if tab]

    def features(self, serial: str) -> set[str]:
        """What the device's adb daemon can do."""
        with self.connection() as link:
            link.send_command(f"host-serial:{serial}:features")
            link.check_okay()
            return set(link.read_string_block().split(","))

    def reconnect(self, address: str) -> None:
        """Ask the server to connect to a device over TCP again."""
        with self.connection() as link:
            link.send_command(f"host:connect:{address}")
            link.check_okay()
            link.read_string_block()

    @contextmanager
    def connection(self, timeout_s: float = REPLY_S) -> Iterator[AdbConnection]:
        """A connection to the server, which is started when it isn't running.

        Raises:
            DeviceError: the server ended the connection or didn't answer.
            EdgeoptError: it can't be started, or is too old.
        """
        from adbutils import AdbConnection
        from adbutils.errors import AdbError, AdbTimeout

        self._start()
        try:
            link = AdbConnection("127.0.0.1", self.port)
            link.conn.settimeout(timeout_s)
            try:
                yield link
            finally:
                link.conn.close()
        except DeviceError:
            raise
        except (TimeoutError, AdbTimeout) as error:
            raise DeviceError(_mute(self.port, timeout_s), "lost") from error
        except (AdbError, OSError, ValueError, EOFError) as error:
            raise DeviceError(_words(error), kind_of(str(error))) from error

    def _start(self) -> None:
        if self._checked and _listens(self.port):
            return
        if not _listens(self.port):
            self._launch()
        self._checked = True
        from adbutils import AdbConnection
        from adbutils.errors import AdbTimeout

        link = AdbConnection("127.0.0.1", self.port)
        try:
            link.conn.settimeout(REPLY_S)
            link.send_command("host:version")
            link.check_okay()
            version = int(link.read_string_block(), 16)
        except (TimeoutError, AdbTimeout) as error:
            self._checked = False
            raise EdgeoptError(_mute(self.port, REPLY_S)) from error
        except Exception as error:
            self._checked = False
            raise EdgeoptError(
                f"what listens on port {self.port} is not an adb server ({_words(error).rstrip('.')}): "
                "set ANDROID_ADB_SERVER_PORT to a free port."
            ) from error
        finally:
            link.conn.close()
        if version < OLDEST_SERVER:
            self._checked = False
            raise EdgeoptError(
                f"the adb server on port {self.port} is version 1.0.{version}, older than 1.0.{OLDEST_SERVER}: "
                "stop it with its own `adb kill-server`, and a current one is started."
            )

    def _launch(self) -> None:
        from adbutils import adb_path

        program = adb_path()
        environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(self.port)}
        try:
            done = subprocess.run(
                [program, "start-server"], env=environment, timeout=30, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeoptError(
                f"adb's server could not be started with {program} ({type(error).__name__}): "
                "set ADBUTILS_ADB_PATH to a working adb."
            ) from error
        if done.returncode != 0 or not _listens(self.port):
            raise EdgeoptError(
                f"adb's server did not start on port {self.port}: see `{program} start-server`, "
                "or set ANDROID_ADB_SERVER_PORT to a free port."
            )


def _mute(port: int, waited_s: float) -> str:
    return f"adb's server on port {port} did not answer within {waited_s:g} s: end its process, and a new one is started."


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def kind_of(reason: str) -> Any:
    text = reason.lower()
    if "no space left" in text or "disk quota" in text:
        return "space"
    if "permission denied" in text or "read-only" in text:
        return "refused"
    if "unauthorized" in text:
        return "unusable"
    if any(
        word in text
        for word in ("not found", "offline", "closed", "unknown data", "reset", "refused", "broken")
    ):
        return "lost"
    return "failed"


def _words(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"adb said: {first.rstrip('.')}."
