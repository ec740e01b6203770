"""A board behind ssh: asyncssh with the user's ssh configuration, agent and known hosts.

An unknown host key is refused unless it was accepted; a changed one is always refused. Files travel through
``cat``, so that a board without an sftp server is no worse. asyncssh lives in a thread with its own event
loop, because everything else here waits in plain calls.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import EdgeoptError, InputError
from .remote import MAX_OUTPUT_BYTES, DeviceError, RemoteTarget, last_line, private_path, quoted, shown

if TYPE_CHECKING:
    import asyncssh

_CONNECT_S = 12.0  # TCP, key exchange and login: a slow board needs some 5 s of it
_KEEPALIVE_S = 5
_POLL_S = 0.3
T = TypeVar("T")


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """``user@host:port`` as its parts; user and port may be missing, an IPv6 address stands in brackets.

    Raises:
        InputError: it isn't one.
    """
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = rest, ""
    host = host.removeprefix("[").removesuffix("]")
    wrong = not host or host.startswith("-") or any(c.isspace() or c == "\0" for c in text)
    if (
        wrong
        or (at and not user)
        or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536))
    ):
        raise InputError(f"ssh:{text} is not an address: write ssh:user@host or ssh:user@host:port.")
    return user or None, host, int(port) if port else None


class SshTarget(RemoteTarget):
    """One board, by ``user@host[:port]`` or the name of a Host in ~/.ssh/config.

    Args:
        accept_host_key: take a host key that isn't known, and add it to the known hosts.
        config: the ssh configuration (default: ~/.ssh/config); for tests.
        known_hosts: the known hosts (default: those of the configuration); for tests.
    """

    def __init__(
        self,
        address: str,
        *,
        accept_host_key: bool = False,
        config: Path | None = None,
        known_hosts: Path | None = None,
        client_keys: tuple[Path, ...] = (),
    ) -> None:
        self.user, self.host, self.port = parse_address(address)
        self.address = self.name = f"ssh:{address}"
        self._accept = accept_host_key
        self._config = config
        self._known_hosts = known_hosts
        self._keys = client_keys
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: asyncssh.SSHClientConnection | None = None
        self._waiting: Future[Any] | None = None
        self._base: str | None = None
        self._known_as = (self.host, self.port or 22)
        self._taken = False  # the last attempt to connect came as far as TCP

    def base_folder(self) -> str:
        """The user's home: /tmp may be small, kept in memory or closed to programs."""
        if self._base is None:
            done = self.script("cd && pwd -P", timeout_s=20.0)
            path = done.stdout.strip()
            if done.returncode != 0 or not path.startswith("/") or "\n" in path:
                raise DeviceError(
                    f"{self.name} has no home folder to work in: {last_line(done.stderr)}.", "refused"
                )
            self._base = path
        return self._base

    def transport(self, line: str, timeout_s: float, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        return self._await(self._run(line, timeout_s, stdin), timeout_s + _CONNECT_S + 10.0)

    def push(self, local: Path, remote: str) -> None:
        path = private_path(remote)
        parent = quoted(path.rpartition("/")[0])
        mode = "755" if os.access(local, os.X_OK) else "644"
        line = f"mkdir -p -- {parent} && cat > {quoted(path)} && chmod {mode} {quoted(path)}"
        data = local.read_bytes()
        code, _, err = self.transport(line, 30.0 + len(data) / 2e5, data)
        if code != 0:
            reason = last_line(err.decode(errors="replace"))
            raise DeviceError(f"{shown(local)} could not be copied to {self.name}: {reason}.", _kind(reason))

    def pull(self, remote: str, local: Path) -> None:
        code, out, err = self.transport(f"cat -- {quoted(remote)}", 600.0)
        if code != 0:
            reason = last_line(err.decode(errors="replace"))
            raise DeviceError(f"{remote} could not be copied from {self.name}: {reason}.", _kind(reason))
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_name(f"{local.name}.part")
        partial.write_bytes(out)
        partial.replace(local)

    def wait_back(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while True:
            self._check()
            try:
                if self.script("echo back", timeout_s=10.0).stdout.strip() == "back":
                    return True
            except DeviceError as error:
                if error.kind == "unusable":
                    return False
            if time.monotonic() >= end:
                return False
            time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        link, self._link = self._link, None
        if link is not None:
            loop.call_soon_threadsafe(link.abort)
        loop.call_soon_threadsafe(loop.stop)

    def _await(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(self._loop,), daemon=True, name=self.name).start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting = future
        try:
            self._check()
            return future.result(timeout_s)
        except CancelledError:
            self._check()
            raise DeviceError(self._lost(), "lost") from None
        except FutureTimeout:
            future.cancel()
            raise DeviceError(f"{self.name} did not answer within {timeout_s:g} s.", "timeout") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waiting = None

    def _cut_short(self) -> None:
        future = self._waiting
        if future is not None:
            future.cancel()

    async def _run(self, line: str, timeout_s: float, stdin: bytes) -> tuple[int, bytes, bytes]:
        import asyncssh

        link = await self._connection()
        try:
            async with asyncio.timeout(timeout_s):
                process = await link.create_process(line, encoding=None)
                return await self._communicate(process, stdin)
        except TimeoutError:
            raise DeviceError(f"{self.name} did not finish within {timeout_s:g} s.", "timeout") from None
        except (asyncssh.Error, OSError) as error:
            self._drop()
            raise DeviceError(self._lost(), "lost") from error

    async def _communicate(self, process: Any, stdin: bytes) -> tuple[int, bytes, bytes]:
        streams = (bytearray(), bytearray())

        async def collect(reader: Any, place: bytearray) -> None:
            while data := await reader.read(1 << 18):
                place += data
                if len(place) > max(MAX_OUTPUT_BYTES, 1 << 28 if not stdin else 0):
                    raise DeviceError(
                        f"a command on {self.name} printed without end and was stopped.", "garbage"
                    )

        async def feed() -> None:
            try:
                for start in range(0, len(stdin), 1 << 18):
                    process.stdin.write(stdin[start : start + (1 << 18)])
                    await process.stdin.drain()
                process.stdin.write_eof()
            except (BrokenPipeError, ConnectionError):
                pass  # the command ended without reading all; its exit code tells

        try:
            await asyncio.gather(
                feed(), collect(process.stdout, streams[0]), collect(process.stderr, streams[1])
            )
            await process.wait_closed()
        finally:
            process.close()
        if process.exit_signal:
            name = "SIG" + process.exit_signal[0]
            number = int(signal.Signals[name]) if name in signal.Signals.__members__ else 1
            return 128 + number, bytes(streams[0]), bytes(streams[1])
        if process.exit_status is None:
            self._drop()
            raise DeviceError(self._lost(), "lost")
        return process.exit_status, bytes(streams[0]), bytes(streams[1])

    async def _connection(self) -> asyncssh.SSHClientConnection:
        if self._link is not None and not self._link.is_closed():
            return self._link
        import asyncssh

        config = self._config or Path.home() / ".ssh" / "config"
        options: dict[str, Any] = {"keepalive_interval": _KEEPALIVE_S, "connect_timeout": _CONNECT_S}
        options |= {"keepalive_count_max": 3, "login_timeout": _CONNECT_S}
        if self.user:
            options["username"] = self.user
        if self.port:
            options["port"] = self.port
        if self._keys:
            options["client_keys"] = [str(key) for key in self._keys]
        if config.is_file():
            options["config"] = [str(config)]
        if self._known_hosts is not None:
            options["known_hosts"] = str(self._known_hosts)
        kept = {key: value for key, value in options.items() if key in ("port", "config")}
        self._taken = False
        options["client_factory"] = self._client
        try:
            resolved = await asyncssh.SSHClientConnectionOptions.construct(host=self.host, **kept)
            self._known_as = (resolved.host_key_alias or resolved.host, resolved.port)
            try:
                self._link = await asyncssh.connect(self.host, **options)
            except asyncssh.HostKeyNotVerifiable:
                if not self._accept or not await self._accept_key(kept):
                    raise
                self._link = await asyncssh.connect(self.host, **options)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self._explain(error) from error
        return self._link

    def _client(self) -> asyncssh.SSHClient:
        """A client that notes when TCP stands, so that a silent server isn't taken for a board that is off."""
        import asyncssh

        target = self

        class Client(asyncssh.SSHClient):
            def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
                target._taken = True

        return Client()

    async def _accept_key(self, options: dict[str, Any]) -> bool:
        """Add the host's key to the known hosts; False when the host is known by another key."""
        import asyncssh

        host, port = self._known_as
        key = await asyncssh.get_server_host_key(self.host, **options)
        if key is None or _knows(self._known_file(), host, port):
            return False
        name = host if port == 22 else f"[{host}]:{port}"
        words = key.export_public_key("openssh").decode().split()
        path = self._known_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a") as stream:
            stream.write(f"{name} {words[0]} {words[1]}\n")
        return True

    def _known_file(self) -> Path:
        return self._known_hosts or Path.home() / ".ssh" / "known_hosts"

    def _explain(self, error: BaseException) -> DeviceError:
        import asyncssh

        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            known, (host, port) = self._known_file(), self._known_as
            where = host if port == 22 else f"[{host}]:{port}"
            if _knows(known, host, port):
                return DeviceError(
                    f"{self.name} shows another host key than {known} has: it may be another machine; "
                    f"if it was installed anew, remove the old key with `ssh-keygen -R {shlex.quote(where)}`.",
                    "unusable",
                )
            return DeviceError(
                f"{self.name} has a host key that isn't known: connect once with `{self._by_hand()}` and compare "
                "its fingerprint, or accept it with --accept-host-key.",
                "unusable",
            )
        if isinstance(error, asyncssh.PermissionDenied):
            return DeviceError(
                f"{self.name} refused the login: check the user name and that your key is in its "
                "authorized_keys (`ssh-copy-id`); a key with a passphrase must be in ssh-agent.",
                "unusable",
            )
        if isinstance(error, asyncssh.KeyExchangeFailed):
            return DeviceError(
                f"{self.name} and this ssh have no algorithm in common: {error.reason}.", "unusable"
            )
        if isinstance(error, asyncssh.ConfigParseError):
            return DeviceError(f"the ssh configuration can't be read: {error}.", "unusable")
        if isinstance(error, TimeoutError) and self._taken:
            return DeviceError(
                f"{self.name} took the connection but logged nobody in within {_CONNECT_S:g} s: "
                "is that its ssh port, is the board too busy?",
                "lost",
            )
        if isinstance(error, TimeoutError):
            return DeviceError(
                f"{self.name} did not answer within {_CONNECT_S:g} s: is it switched on?", "lost"
            )
        if isinstance(error, ConnectionRefusedError):
            return DeviceError(
                f"{self.name} refuses connections: is its ssh server running, is the port right?", "lost"
            )
        if isinstance(error, OSError) and error.filename:
            return DeviceError(
                f"{error.filename}, which the ssh configuration names, can't be read ({error.strerror}).",
                "unusable",
            )
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        return DeviceError(
            f"{self.name} can't be reached ({reason.rstrip('.')}): is it up, is the address right?", "lost"
        )

    def _by_hand(self) -> str:
        """The command line that logs in at the same place."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{shlex.quote(f'{self.user}@{self.host}' if self.user else self.host)}"

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort()

    def _lost(self) -> str:
        return f"the connection to {self.name} was lost: is the board up, is the network?"


def ssh_target(address: str, *, accept_host_key: bool = False) -> SshTarget:
    """The target of ``ssh:ADDRESS``.

    Raises:
        EdgeoptError: asyncssh is not installed.
        InputError: not an address.
    """
    from importlib.util import find_spec

    if find_spec("asyncssh") is None:
        raise EdgeoptError("ssh targets need asyncssh: pip install 'edgeopt[ssh]'.")
    return SshTarget(address, accept_host_key=accept_host_key)


def configured_hosts(config: Path | None = None) -> list[str]:
    """The Host names of ~/.ssh/config that stand for one host (no patterns)."""
    path = config or Path.home() / ".ssh" / "config"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    names: dict[str, None] = {}
    for line in lines:
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() == "host":
            names |= dict.fromkeys(name for name in rest.split() if not set(name) & set('*?!"'))
    return list(names)


def _knows(path: Path, host: str, port: int) -> bool:
    import asyncssh

    try:
        found = asyncssh.match_known_hosts(str(path), host, "", None if port == 22 else port)
    except (OSError, ValueError):
        return False
    return bool(found[0] or found[1])


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _kind(reason: str) -> Any:
    text = reason.lower()
    if "no space left" in text or "quota" in text:
        return "space"
    return "refused" if "permission denied" in text or "read-only" in text else "failed"
