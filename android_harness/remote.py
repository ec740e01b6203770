"""What phones and boards behind a wire have in common: quoting, time limits, one private folder, clear words.

A remote target runs shell lines through its transport (:meth:`RemoteTarget.transport`); everything else is
built here, so that an argument is quoted in exactly one place and nothing outside a run's private folder can
be written or deleted.
"""

from __future__ import annotations

import re
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..errors import EdgeoptError, InputError
from .device_facts import FACTS_SCRIPT, MARK, DeviceFacts, parse_facts, printable
from .target import Execution, TargetInfo

FOLDER_PREFIX = "edgeopt-run-"
MAX_OUTPUT_BYTES = 32 << 20  # of one command: a runner that prints without end is stopped there
_FOLDER = re.compile(rf"(?P<root>/(?:[^/\0]+/)*?{FOLDER_PREFIX}[0-9a-f]{{12}})(?:/.*)?", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# How long the device lets a command live beyond our own limit: it ends by itself when the wire is cut.
_GRACE_S = 5
_GONE = "edgeopt: gone"

Kind = Literal["lost", "timeout", "space", "killed", "crashed", "garbage", "refused", "unusable", "failed"]


class DeviceError(EdgeoptError):
    """A device misbehaved; ``kind`` says how, so that the caller knows whether trying again makes sense."""

    def __init__(self, message: str, kind: Kind = "failed") -> None:
        super().__init__(message)
        self.kind: Kind = kind

    @property
    def worth_a_retry(self) -> bool:
        """A lost connection, a runner that was killed and garbled output can be a passing thing."""
        return self.kind in ("lost", "killed", "garbage")


def new_folder(base: str) -> str:
    """The name of a fresh private folder below ``base``."""
    return f"{base.rstrip('/')}/{FOLDER_PREFIX}{secrets.token_hex(6)}"


def private_path(remote: str) -> str:
    """``remote``, checked to lie in a private folder of a run.

    Raises:
        InputError: it does not: edgeopt writes and deletes nowhere else on a device.
    """
    if "\0" in remote or ".." in remote.split("/") or not _FOLDER.fullmatch(remote):
        raise InputError(
            f"{remote!r} is not in a folder that edgeopt made on the device ({FOLDER_PREFIX}...): "
            "nothing else there is written or deleted."
        )
    return remote


def quoted(word: str) -> str:
    """A word as a POSIX shell takes it literally.

    Raises:
        InputError: it holds a NUL, which no shell argument can.
    """
    if "\0" in word:
        raise InputError(f"{word!r} holds a NUL character, which no command line can carry: rename it.")
    return shlex.quote(word)


def shell_line(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    limit_s: float | None = None,
) -> str:
    """A shell line that runs ``command`` with every word literal, inside ``folder``.

    Args:
        limit_s: where the device has ``timeout``, it ends the command after so many seconds by itself.

    Raises:
        InputError: an empty command, a NUL, or a variable name that isn't one.
    """
    if not command:
        raise InputError("there is no command to run.")
    words = " ".join(quoted(word) for word in command)
    for name in environment or {}:
        if not _VARIABLE.fullmatch(name):
            raise InputError(f"{name!r} is not the name of an environment variable.")
    settings = " ".join(f"{name}={quoted(value)}" for name, value in (environment or {}).items())
    if settings:
        words = f"env {settings} {words}"
    if limit_s is not None:
        seconds = max(1, round(limit_s))
        words = f"if command -v timeout >/dev/null 2>&1; then exec timeout -s KILL {seconds} {words}; else exec {words}; fi"
    return f"cd {quoted(folder)} && {{ {words}; }}" if folder else words


class RemoteTarget(ABC):
    """A target behind a transport; fulfils :class:`.target.Target`. ``address`` is how the user names it."""

    name = "remote"
    grade = "measured"
    address = ""
    _interrupted = False

    def interrupt(self) -> None:
        """From another thread: what waits for the device, now or later, ends with KeyboardInterrupt.

        Ctrl-C reaches the main thread only; a thread that measures would wait for its device on, for minutes.
        """
        self._interrupted = True
        self._cut_short()

    def resume(self) -> None:
        """Commands work again after :meth:`interrupt`: for tidying up."""
        self._interrupted = False

    def _cut_short(self) -> None:  # noqa: B027 - a transport that doesn't wait has nothing to end
        """End what waits now; it then asks :meth:`_check`."""

    def _check(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    @abstractmethod
    def transport(self, line: str, timeout_s: float, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Run a shell line: exit code (128 + signal when killed), stdout, stderr.

        Raises:
            DeviceError: the device can't be reached, or the line did not end in time.
        """

    @abstractmethod
    def wait_back(self, timeout_s: float) -> bool:
        """Wait until the device answers again after it was lost."""

    def close(self) -> None:  # noqa: B027 - not every transport holds one
        """Let go of the connection."""

    @abstractmethod
    def push(self, local: Path, remote: str) -> None: ...

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None: ...

    @abstractmethod
    def base_folder(self) -> str:
        """Where private folders are made."""

    def execute(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> Execution:
        """Run a command to its end, in ``folder``; a nonzero exit code is returned, not raised."""
        line = shell_line(command, environment=environment, folder=folder, limit_s=timeout_s + _GRACE_S)
        return self.script(line, timeout_s=timeout_s)

    def script(self, line: str, *, timeout_s: float = 30.0) -> Execution:
        """Run a shell line of our own making."""
        code, out, err = self.transport(line, timeout_s)
        return Execution(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def remove(self, remote: str) -> None:
        path = quoted(private_path(remote))
        # The device must say that it is gone: an exit code alone can come from a shell that did something else.
        done = self.script(f"rm -rf -- {path}; [ ! -e {path} ] && echo {quoted(_GONE)}", timeout_s=60.0)
        if done.returncode != 0 or done.stdout.strip() != _GONE:
            raise DeviceError(f"{remote} could not be removed from {self.name}: {last_line(done.stderr)}.")

    def facts(self) -> DeviceFacts:
        """What the device says of itself, in one round trip.

        Raises:
            DeviceError: its shell prints something of its own before a command's output, which nothing survives
                that reads outputs: neither scp nor this.
        """
        text = self.script(FACTS_SCRIPT, timeout_s=60.0).stdout
        noise, mark, _ = text.partition(MARK)
        if mark and noise.strip():
            raise DeviceError(
                f"the shell of {self.name} prints {last_line(noise)!r} before every command's output: let its start "
                "files (.bashrc, .profile) print in interactive shells only.",
                "unusable",
            )
        return parse_facts(text)

    def describe(self) -> TargetInfo:
        facts = self.facts()
        return TargetInfo(self.name, facts.title, facts.machine, facts.as_json())


def shown(path: Path) -> str:
    """A file's name as it may stand in a sentence: on one line."""
    return printable(path.name)


def last_line(text: str) -> str:
    """The last line with something on it, without a full stop; what a failed command had to say."""
    found = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
    return found[:300].rstrip(".")
