"""The device's side of adb for tests: an adbd in asyncio that the real adb server connects to over TCP.

It speaks the transport protocol (CNXN without authentication, OPEN, OKAY, WRTE, CLSE), the shell protocol
(v1 and v2) and sync (STAT, SEND, RECV, QUIT). What a shell line does is up to ``shell``, which gives the
command to start. :class:`Faults` breaks it in every way a device breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 0x01000001  # with it, checksums are no longer looked at
MAX_DATA = 256 << 10
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"


@dataclass
class Faults:
    """What goes wrong next. Counters count down; 0 and None mean nothing."""

    drop_shell: int = 0  # the wire is cut in the middle of so many matching shell lines
    drop_push: int = 0
    stay_away_s: float = 0.0  # after a cut, connections are refused so long
    push_failure: str | None = None  # FAIL with this text
    corrupt_push: int = 0  # so many pushed files lose their last byte
    match: str = "runner"  # the shell lines that are meant
    skip: int = 0  # so many matching shell lines are left alone first
    hang_shell: int = 0  # so many matching shell lines never end
    instead: list[str] = field(default_factory=list)  # scripts that replace the next matching shell lines
    features: str = FEATURES
    seen: list[str] = field(default_factory=list)


class Daemon:
    """An adbd listening on ``port``; start it with ``with``."""

    def __init__(
        self,
        shell: Callable[[str], tuple[list[str], dict[str, str]]],
        root: Callable[[str], Path],
        banner: str = "ro.product.name=panther;ro.product.model=Pixel 7;ro.product.device=panther;",
    ) -> None:
        self.shell = shell
        self.root = root
        self.banner = banner
        self.faults = Faults()
        self.port = 0
        self.processes: set[asyncio.subprocess.Process] = set()
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._away_until = 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Daemon:
        self._thread.start()
        self.port = self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def cut(self) -> None:
        """Pull the cable."""
        self._call(self._cut())

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        for process in list(self.processes):
            _kill(process)
        await asyncio.sleep(0.05)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _cut(self) -> None:
        self._away_until = self._loop.time() + self.faults.stay_away_s
        for link in list(self._links):
            link.writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._loop.time() < self._away_until:
            writer.transport.abort()
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.serve()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._links.discard(link)
            writer.transport.abort()
            tasks = list(link.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Closed(Exception):
    """The other side closed a stream."""


class _Stream:
    """One OPENed service: bytes in, bytes out, one OKAY for each WRTE."""

    def __init__(self, link: _Link, local: int, remote: int) -> None:
        self.link, self.local, self.remote = link, local, remote
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.okay = asyncio.Event()
        self.buffer = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            if self.closed:
                raise _Closed
            self.okay.clear()
            await self.link.send(b"WRTE", self.local, self.remote, data[start : start + MAX_DATA])
            await self.okay.wait()

    async def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.inbox.get()
            if data is None:
                raise _Closed
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.link.send(b"CLSE", self.local, self.remote, b"")


class _Link:
    """One connection of an adb server."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.daemon, self.reader, self.writer = daemon, reader, writer
        self.streams: dict[int, _Stream] = {}
        self._next = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: bytes, first: int, second: int, data: bytes) -> None:
        word = int.from_bytes(command, "little")
        head = struct.pack("<6I", word, first, second, len(data), sum(data) & 0xFFFFFFFF, word ^ 0xFFFFFFFF)
        self.writer.write(head + data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def serve(self) -> None:
        while True:
            head = await self.reader.readexactly(24)
            command, first, second, length, _, _ = struct.unpack("<4s5I", head)
            data = await self.reader.readexactly(length) if length else b""
            if command == b"CNXN":
                text = f"device::{self.daemon.banner}features={self.daemon.faults.features}"
                await self.send(b"CNXN", VERSION, MAX_DATA, text.encode())
            elif command == b"OPEN":
                await self._open(first, data.rstrip(b"\0").decode(errors="surrogateescape"))
            elif (stream := self.streams.get(second)) is None:
                continue
            elif command == b"OKAY":
                stream.okay.set()
            elif command == b"WRTE":
                stream.inbox.put_nowait(data)
                await self.send(b"OKAY", stream.local, stream.remote, b"")
            elif command == b"CLSE":
                stream.closed = True
                stream.okay.set()
                stream.inbox.put_nowait(None)
                self.streams.pop(second, None)

    async def _open(self, remote: int, service: str) -> None:
        self._next += 1
        stream = self.streams[self._next] = _Stream(self, self._next, remote)
        await self.send(b"OKAY", stream.local, remote, b"")
        task = asyncio.ensure_future(self._serve(stream, service))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, stream: _Stream, service: str) -> None:
        try:
            if service.startswith("shell,v2"):
                await self._shell(stream, service.partition(":")[2])
            elif service.startswith("sync:"):
                await self._sync(stream)
        except (_Closed, ConnectionError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                await stream.close()

    async def _shell(self, stream: _Stream, line: str) -> None:
        faults = self.daemon.faults
        faults.seen.append(line)
        meant = faults.match in line
        if meant and faults.skip:
            faults.skip -= 1
            meant = False
        script = faults.instead.pop(0) if meant and faults.instead else ""
        if meant and faults.hang_shell:
            faults.hang_shell -= 1
            script = "sleep 60"
        if script:
            folder = re.match(r"cd ('[^']*'|\S+) && ", line)
            line = f"{folder[0] if folder else ''} {{ {script}\n}}"
        command, environment = self.daemon.shell(line)
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.daemon.processes.add(process)
        if meant and faults.drop_shell:
            faults.drop_shell -= 1
            await asyncio.sleep(0.02)
            await self.daemon._cut()
        pumps = [asyncio.ensure_future(_pump(stream, 1, process.stdout))]
        pumps.append(asyncio.ensure_future(_pump(stream, 2, process.stderr)))
        feeder = asyncio.ensure_future(_feed(stream, process))
        try:
            await asyncio.gather(*pumps)
            code = await process.wait()
            self.daemon.processes.discard(process)
            await stream.write(struct.pack("<BIB", 3, 1, code if code >= 0 else 128 - code))
        finally:
            feeder.cancel()
            for pump in pumps:
                pump.cancel()

    async def _sync(self, stream: _Stream) -> None:
        while True:
            word, length = struct.unpack("<4sI", await stream.read(8))
            if word == b"QUIT":
                return
            name = (await stream.read(length)).decode(errors="surrogateescape")
            if word == b"SEND":
                await self._receive(stream, name)
            elif word == b"RECV":
                await self._deliver(stream, name)
            elif word == b"STAT":
                path = self.daemon.root(name)
                about = path.stat() if path.exists() else None
                values = (about.st_mode, about.st_size, int(about.st_mtime)) if about else (0, 0, 0)
                await stream.write(b"STAT" + struct.pack("<III", *values))
            else:
                await stream.write(_fail(f"unknown request {word!r}"))
                return

    async def _receive(self, stream: _Stream, name: str) -> None:
        path, _, mode = name.rpartition(",")
        faults = self.daemon.faults
        target = self.daemon.root(path)
        data = bytearray()
        while True:
            word, length = struct.unpack("<4sI", await stream.read(8))
            if word == b"DONE":
                break
            data += await stream.read(length)
            if faults.drop_push:
                faults.drop_push -= 1
                await self.daemon._cut()
                raise ConnectionError
        if faults.push_failure:
            await stream.write(_fail(faults.push_failure))
            return
        if faults.corrupt_push:
            faults.corrupt_push -= 1
            del data[-1:]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bytes(data))
            target.chmod(int(mode) & 0o777)
        except OSError as error:
            await stream.write(_fail(f"couldn't create file: {error.strerror}"))
            return
        await stream.write(b"OKAY" + struct.pack("<I", 0))

    async def _deliver(self, stream: _Stream, name: str) -> None:
        try:
            data = self.daemon.root(name).read_bytes()
        except OSError as error:
            await stream.write(_fail(f"open failed: {error.strerror}"))
            return
        for start in range(0, len(data), 64 << 10):
            part = data[start : start + (64 << 10)]
            await stream.write(b"DATA" + struct.pack("<I", len(part)) + part)
        await stream.write(b"DONE" + struct.pack("<I", 0))


async def _pump(stream: _Stream, kind: int, reader: asyncio.StreamReader | None) -> None:
    assert reader is not None
    while data := await reader.read(MAX_DATA // 2):
        await stream.write(struct.pack("<BI", kind, len(data)) + data)


async def _feed(stream: _Stream, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    with contextlib.suppress(_Closed, ConnectionError):
        while True:
            kind, length = struct.unpack("<BI", await stream.read(5))
            data = await stream.read(length) if length else b""
            if kind == 0:
                process.stdin.write(data)
                await process.stdin.drain()
            elif kind == 3:
                process.stdin.close()


def _fail(reason: str) -> bytes:
    return b"FAIL" + struct.pack("<I", len(reason.encode())) + reason.encode()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
