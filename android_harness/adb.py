"""A phone behind adb: the real adb server does the transport, adbutils brings it along and speaks to it.

The server that already runs is used whatever its version (its protocol has not changed for years), so that
nobody's adb session is ended; one is started only when none runs. The shell protocol (v2) keeps stdout,
stderr and the exit code apart and tells an ended command from a cut wire.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EdgeoptError, InputError
from .remote import MAX_OUTPUT_BYTES, DeviceError, RemoteTarget, private_path, quoted, shown

if TYPE_CHECKING:
    from adbutils import AdbConnection

OLDEST_SERVER = 39  # 1.0.39 (2017): the first whose host services are all that is used here
_CHUNK = 64 << 10
_REPLY_S = 20.0
_POLL_S = 0.3
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
    def connection(self, timeout_s: float = _REPLY_S) -> Iterator[AdbConnection]:
        """A connection to the server, which is started when it isn't running.

        Raises:
            DeviceError: the server ended the connection or didn't answer.
            EdgeoptError: it can't be started, or is too old.
        """
        from adbutils import AdbConnection
        from adbutils.errors import AdbError

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
        except (TimeoutError, socket.timeout) as error:  # noqa: UP041 - adbutils' own timeout derives from both
            raise DeviceError(
                f"adb's server on port {self.port} did not answer within {timeout_s:g} s: run `adb kill-server`.",
                "lost",
            ) from error
        except (AdbError, OSError, ValueError, EOFError) as error:
            raise DeviceError(_words(error), _kind(str(error))) from error

    def _start(self) -> None:
        if self._checked and _listens(self.port):
            return
        if not _listens(self.port):
            self._launch()
        self._checked = True
        from adbutils import AdbConnection

        link = AdbConnection("127.0.0.1", self.port)
        try:
            link.conn.settimeout(_REPLY_S)
            link.send_command("host:version")
            link.check_okay()
            version = int(link.read_string_block(), 16)
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


class AdbTarget(RemoteTarget):
    """One phone, by its serial."""

    def __init__(
        self, serial: str, server: AdbServer | None = None, *, base: str = "/data/local/tmp"
    ) -> None:
        self.serial = serial
        self.server = server or AdbServer()
        self._base = base
        self.address = self.name = f"adb:{serial}"
        self._usable = False

    def base_folder(self) -> str:
        return self._base

    def check(self) -> None:
        """Whether the device is there and lets itself be used.

        Raises:
            DeviceError: what is wrong with it and what to do.
        """
        attached = {device.serial: device for device in self.server.devices()}
        found = attached.get(self.serial)
        if found is None:
            known = ", ".join(attached) or "none"
            raise DeviceError(
                f"{self.name} is not attached (attached: {known}): see `edgeopt devices`.", "lost"
            )
        if found.problem:
            kind: Any = "lost" if found.state in ("offline", "connecting") else "unusable"
            raise DeviceError(f"{self.name} {found.problem}.", kind)
        if "shell_v2" not in self.server.features(self.serial):
            raise DeviceError(
                f"{self.name} is too old: its adb daemon has no shell protocol (Android 7 brought it; "
                "Android 8.0 is the oldest that works).",
                "unusable",
            )
        self._usable = True

    def transport(self, line: str, timeout_s: float, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        if not self._usable:
            self.check()
        deadline = time.monotonic() + timeout_s
        with self._service(f"shell,v2,raw:{line}", timeout_s) as link:
            if stdin:
                link.conn.sendall(_packet(0, stdin))
            link.conn.sendall(_packet(3, b""))
            return self._collect(link, deadline, timeout_s)

    def _collect(self, link: AdbConnection, deadline: float, timeout_s: float) -> tuple[int, bytes, bytes]:
        streams = {1: bytearray(), 2: bytearray()}
        receive = self._receiver(link, deadline, timeout_s)
        while True:
            kind, length = struct.unpack("<BI", receive(5))
            data = receive(length)
            if kind == 3:
                return data[0] if data else 0, bytes(streams[1]), bytes(streams[2])
            if kind in streams:
                streams[kind] += data
            if sum(map(len, streams.values())) > MAX_OUTPUT_BYTES:
                raise DeviceError(
                    f"a command on {self.name} printed more than {MAX_OUTPUT_BYTES >> 20} MiB and was stopped.",
                    "garbage",
                )

    def _receiver(self, link: AdbConnection, deadline: float, timeout_s: float) -> Callable[[int], bytes]:
        def receive(count: int) -> bytes:
            data = bytearray()
            while len(data) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeviceError(f"{self.name} did not finish within {timeout_s:g} s.", "timeout")
                link.conn.settimeout(left)
                try:
                    part = link.conn.recv(min(count - len(data), 1 << 20))
                except TimeoutError:
                    continue
                except OSError:
                    part = b""
                if not part:
                    self._usable = False
                    raise DeviceError(self._lost(), "lost")
                data += part
            return bytes(data)

        return receive

    def push(self, local: Path, remote: str) -> None:
        path = private_path(remote)
        parent = path.rpartition("/")[0]
        self._ok(f"mkdir -p -- {quoted(parent)}", f"the folder {parent} could not be made")
        size = local.stat().st_size
        limit_s = 30.0 + size / 1e6
        mode = 0o100755 if os.access(local, os.X_OK) else 0o100644
        with self._service("sync:", limit_s) as link:
            receive = self._receiver(link, time.monotonic() + limit_s, limit_s)
            head = f"{path},{mode}".encode(errors="surrogateescape")
            try:
                link.conn.sendall(b"SEND" + struct.pack("<I", len(head)) + head)
                with local.open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        link.conn.sendall(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
                link.conn.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the device gave up early; it may have said why
            self._sync_answer(receive, f"{shown(local)} could not be copied to {self.name}")

    def pull(self, remote: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_name(f"{local.name}.part")
        limit_s = 600.0
        try:
            with self._service("sync:", limit_s) as link, partial.open("wb") as stream:
                receive = self._receiver(link, time.monotonic() + limit_s, limit_s)
                name = remote.encode(errors="surrogateescape")
                link.conn.sendall(b"RECV" + struct.pack("<I", len(name)) + name)
                while True:
                    word, length = struct.unpack("<4sI", receive(8))
                    if word == b"DONE":
                        break
                    data = receive(min(length, 1 << 20) if word == b"DATA" else min(length, 4096))
                    if word != b"DATA":
                        raise DeviceError(
                            f"{remote} could not be copied from {self.name}: "
                            f"{data.decode(errors='replace').strip().rstrip('.')}."
                        )
                    stream.write(data)
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def wait_back(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while True:
            try:
                if ":" in self.serial:
                    self.server.reconnect(self.serial)
                self.check()
                if self.script("echo back", timeout_s=10.0).stdout.strip() == "back":
                    return True
            except DeviceError as error:
                if error.kind == "unusable":
                    return False
            if time.monotonic() >= end:
                return False
            time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))

    def _ok(self, line: str, failure: str) -> None:
        from .remote import last_line

        done = self.script(line)
        if done.returncode != 0:
            raise DeviceError(f"{failure} on {self.name}: {last_line(done.stderr)}.", _kind(done.stderr))

    def _sync_answer(self, receive: Callable[[int], bytes], failure: str) -> None:
        word, length = struct.unpack("<4sI", receive(8))
        if word == b"OKAY":
            return
        reason = receive(min(length, 4096)).decode(errors="replace").strip().rstrip(".")
        raise DeviceError(f"{failure}: {reason}.", _kind(reason))

    @contextmanager
    def _service(self, service: str, timeout_s: float) -> Iterator[AdbConnection]:
        """A connection to a service of the device."""
        try:
            with self.server.connection(min(timeout_s, _REPLY_S)) as link:
                for command in (f"host:transport:{self.serial}", service):
                    data = command.encode(errors="surrogateescape")
                    if len(data) > 0xFFFF:
                        raise InputError(
                            f"a command of {len(data)} bytes is too long for adb (65535 at most)."
                        )
                    link.conn.sendall(f"{len(data):04x}".encode() + data)
                    link.check_okay()
                yield link
        except DeviceError as error:
            if error.kind == "lost":
                self._usable = False
                raise DeviceError(self._lost(), "lost") from error
            raise

    def _lost(self) -> str:
        return f"the connection to {self.name} was lost: is the cable plugged in, is the device up?"


def adb_targets(which: str) -> list[AdbTarget]:
    """The targets of ``adb``, ``adb:SERIAL`` and ``adb:all``.

    Raises:
        InputError: none or several are attached and none was named.
    """
    server = AdbServer()
    if which not in ("", "all"):
        return [AdbTarget(which, server)]
    attached = server.devices()
    if not attached:
        raise InputError(
            "no device is attached: plug one in with USB debugging on (docs/devices.md), then see `edgeopt devices`."
        )
    if which == "" and len(attached) > 1:
        names = ", ".join(device.serial for device in attached)
        raise InputError(f"{len(attached)} devices are attached ({names}): say --on adb:SERIAL or --on adb:all.")
    return [AdbTarget(device.serial, server) for device in attached]


def _packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _kind(reason: str) -> Any:
    text = reason.lower()
    if "no space left" in text or "disk quota" in text:
        return "space"
    if "permission denied" in text or "read-only" in text:
        return "refused"
    if "unauthorized" in text:
        return "unusable"
    if any(word in text for word in ("not found", "offline", "closed", "unknown data", "reset", "refused", "broken")):
        return "lost"
    return "failed"


def _words(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"adb said: {first.rstrip('.')}."
