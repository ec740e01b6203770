"""A phone behind adb: the real adb server does the transport, adbutils brings it along and speaks to it.

The shell protocol (v2) keeps stdout, stderr and the exit code apart and tells an ended command from a cut
wire.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EdgeoptError, InputError
from .adb_server import REPLY_S, AdbServer, kind_of
from .remote import MAX_OUTPUT_BYTES, DeviceError, RemoteTarget, last_line, private_path, quoted, shown

if TYPE_CHECKING:
    from adbutils import AdbConnection

_CHUNK = 64 << 10
_POLL_S = 0.3


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
        self._links: set[AdbConnection] = set()  # those in use now

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
                    self._check()
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
            self._check()
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
        done = self.script(line)
        if done.returncode != 0:
            raise DeviceError(f"{failure} on {self.name}: {last_line(done.stderr)}.", kind_of(done.stderr))

    def _sync_answer(self, receive: Callable[[int], bytes], failure: str) -> None:
        word, length = struct.unpack("<4sI", receive(8))
        if word == b"OKAY":
            return
        reason = receive(min(length, 4096)).decode(errors="replace").strip().rstrip(".")
        raise DeviceError(f"{failure}: {reason}.", kind_of(reason))

    @contextmanager
    def _service(self, service: str, timeout_s: float) -> Iterator[AdbConnection]:
        """A connection to a service of the device."""
        try:
            with self.server.connection(min(timeout_s, REPLY_S)) as link, self._in_use(link):
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
            self._check()
            if error.kind == "lost":
                self._usable = False
                raise DeviceError(self._lost(), "lost") from error
            raise

    @contextmanager
    def _in_use(self, link: AdbConnection) -> Iterator[None]:
        self._links.add(link)
        try:
            self._check()
            yield
        finally:
            self._links.discard(link)

    def _cut_short(self) -> None:
        for link in list(self._links):
            with suppress(OSError):
                link.conn.shutdown(socket.SHUT_RDWR)

    def _lost(self) -> str:
        return f"the connection to {self.name} was lost: is the cable plugged in, is the device up?"


def adb_targets(which: str, *, option: str = "--on", several: bool = True) -> list[AdbTarget]:
    """The targets of ``adb``, ``adb:SERIAL`` and ``adb:all``.

    Args:
        option: what the user said it with.
        several: whether ``adb:all`` is offered where several are attached.

    Raises:
        InputError: several are attached and none was named.
        EdgeoptError: none is attached.
    """
    server = AdbServer()
    if which not in ("", "all"):
        return [AdbTarget(which, server)]
    attached = server.devices()
    if not attached:
        raise EdgeoptError(
            "no device is attached: plug one in with USB debugging on (docs/devices.md), then see `edgeopt devices`."
        )
    if which == "" and len(attached) > 1:
        names = ", ".join(device.serial for device in attached)
        ways = f"{option} adb:SERIAL" + (f" or {option} adb:all" if several else "")
        raise InputError(f"{len(attached)} devices are attached ({names}): say {ways}.")
    return [AdbTarget(device.serial, server) for device in attached]


def _packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data
