"""One run on a device: lease, private folder, files checked by hash, processes ended, everything removed.

Use :class:`DeviceSession` as a context manager. Whatever happens inside it, the private folder is removed at
the end; when the device can't be reached then, the folder stands in the journal and goes at the next contact.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import EdgeoptError
from . import lease as leases
from .device_facts import DeviceFacts
from .remote import DeviceError, RemoteTarget, last_line, new_folder, private_path, quoted, shown
from .target import Execution

_RECOVER_S = 60.0
_CLEAN_UP_S = 20.0
_CONTACT_WAIT_S = 5.0
_LAST_LOOK_S = 1.0  # for a device that was waited for already


def no_word(message: str) -> None:
    """For callers who don't want to be told."""


class DeviceSession:
    """A device that is ours for now.

    ``facts`` is what it is; ``folder`` its private folder; ``warnings`` what could not be put right.

    Args:
        wait_s: how long to wait for another process that uses the device.
        recover_s: how long to wait for a device that was lost.
        say: told about waiting and retrying.

    Raises (on entering):
        DeviceError: the device can't be reached or can't run the payload.
        EdgeoptError: another process holds it.
    """

    def __init__(
        self,
        target: RemoteTarget,
        *,
        wait_s: float = 60.0,
        recover_s: float = _RECOVER_S,
        say: Callable[[str], None] = no_word,
    ) -> None:
        self.target = target
        self.warnings: list[str] = []
        self.facts = DeviceFacts("")
        self.folder = ""
        self._wait_s, self._recover_s, self._say = wait_s, recover_s, say
        self._stack = ExitStack()
        self._pushed: dict[str, tuple[Path, str]] = {}
        self._identity = target.address
        self._away = False  # lost, and not back yet

    def __enter__(self) -> Self:
        try:
            self._say("connecting")
            self.facts = self._first_contact()
            self._identity = self.facts.identity or self.target.address
            problem = self.facts.problem()
            if problem:
                raise DeviceError(f"{self.target.name} can't be used: {problem}.", "unusable")
            held = leases.lease(self._identity, self.target.name, wait_s=self._wait_s, say=self._say)
            self._stack.enter_context(held)
            self._stack.callback(self._clean_up)
            self._sweep()
            self._make_folder()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def push(self, local: Path, name: str) -> None:
        """Copy a file into the private folder and check its hash there; once again when it differs.

        Raises:
            DeviceError: it could not be copied whole; ``kind`` "space" when the device is full.
        """
        with local.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if self._pushed.get(name, (None, ""))[1] == digest:
            return
        for last in (False, True):
            try:
                self.target.push(local, f"{self.folder}/{name}")
                seen = self._digest(name)
                if seen == digest:
                    self._pushed[name] = (local, digest)
                    return
                if last:
                    raise DeviceError(
                        f"{shown(local)} arrived damaged on {self.target.name}, twice: change the cable or the port.",
                        "failed",
                    )
            except DeviceError as error:
                if error.kind == "space":
                    raise DeviceError(
                        f"{self.target.name} has no space left for {shown(local)} "
                        f"({local.stat().st_size / 1e6:.1f} MB): free some and run again.",
                        "space",
                    ) from error
                if not error.worth_a_retry or last:
                    raise
                if error.kind == "lost":
                    self.recover()

    def pull(self, name: str, local: Path) -> None:
        """Copy a file out of the private folder."""
        self.target.pull(f"{self.folder}/{name}", local)

    def run(
        self, command: list[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> Execution:
        """Run a command in the private folder; when it doesn't end in time, it is ended.

        Raises:
            DeviceError: lost, or not ended in time.
        """
        try:
            return self.target.execute(
                command, timeout_s=timeout_s, environment=environment, folder=self.folder
            )
        except DeviceError as error:
            if error.kind == "timeout":
                self._end_processes()
                raise DeviceError(
                    f"the runner on {self.target.name} did not end within {timeout_s:g} s and was stopped.",
                    "timeout",
                ) from error
            if error.kind == "garbage":
                self._end_processes()
            raise
        except BaseException:
            self._end_processes()
            raise

    def recover(self) -> None:
        """After a lost connection: wait for the device, end what still runs, push again what is missing.

        Raises:
            DeviceError: it didn't come back in time.
        """
        self._say(f"lost: waiting up to {self._recover_s:g} s for it to come back")
        self._away = True
        if not self.target.wait_back(self._recover_s):
            raise DeviceError(
                f"{self.target.name} was lost and did not come back within {self._recover_s:g} s: "
                "check the cable and the device, then run again.",
                "lost",
            )
        self._away = False
        self._end_processes()
        done = self.target.script(f"mkdir -p -m 700 -- {quoted(self.folder)}")
        if done.returncode != 0:
            raise DeviceError(f"{self.folder} can't be made on {self.target.name}: {last_line(done.stderr)}.")
        for name, (local, digest) in list(self._pushed.items()):
            if self._digest(name) != digest:
                self.target.push(local, f"{self.folder}/{name}")

    def _first_contact(self) -> DeviceFacts:
        wait_s = min(_CONTACT_WAIT_S, self._recover_s)
        for last in (False, True):
            begun = time.monotonic()
            try:
                facts = self.target.facts()
                if facts.machine:
                    return facts
                raise DeviceError(
                    f"{self.target.name} doesn't answer as a Linux or Android shell does.",
                    "unusable" if last else "garbage",
                )
            except DeviceError as error:
                if last or not error.worth_a_retry:
                    raise
                # A device that was silent for longer than the wait has been waited for.
                silent = time.monotonic() - begun >= _CONTACT_WAIT_S
                if error.kind == "lost" and (silent or not self.target.wait_back(wait_s)):
                    raise
        raise AssertionError("unreachable")

    def _make_folder(self) -> None:
        base = self.target.base_folder()
        self.folder = private_path(new_folder(base))
        leases.write_leftovers(self._identity, [*leases.leftovers(self._identity), self.folder])
        done = self.target.script(f"mkdir -m 700 -- {quoted(self.folder)}")
        if done.returncode != 0:
            raise DeviceError(
                f"no folder can be made in {base} on {self.target.name}: {last_line(done.stderr)}.", "refused"
            )

    def _digest(self, name: str) -> str | None:
        """The SHA-256 of a file in the private folder; None when it isn't there."""
        path = quoted(f"{self.folder}/{name}")
        done = self.target.script(f"[ -f {path} ] && sha256sum < {path}", timeout_s=120.0)
        found = re.match(r"([0-9a-f]{64}) ", done.stdout)
        if found is None and done.returncode not in (0, 1):
            raise DeviceError(
                f"{self.target.name} could not check a file (sha256sum: {last_line(done.stderr)}).", "garbage"
            )
        return found[1] if found else None

    def _end_processes(self, folder: str | None = None) -> None:
        """Kill whatever works in the private folder; best effort, for the next step tells what is wrong."""
        try:
            self.target.script(kill_line(folder or self.folder), timeout_s=_CLEAN_UP_S)
        except EdgeoptError:
            return

    def _sweep(self) -> None:
        """Remove what an earlier run had to leave behind."""
        for folder in leases.leftovers(self._identity):
            self._remove(folder)

    def _clean_up(self) -> None:
        if not self.folder:
            return
        self.target.resume()
        try:
            self._remove(self.folder)
        except KeyboardInterrupt:
            # Ctrl-C ends the run, not the tidying up behind it; a second one does.
            self.target.resume()
            self._remove(self.folder)
            raise

    def _remove(self, folder: str) -> None:
        """Remove a private folder and strike it off the journal; a warning when it can't be done."""
        for attempt in (1, 2):
            if self._away and not self.target.wait_back(_LAST_LOOK_S):
                break  # it was waited for long enough, or Ctrl-C ended the wait
            try:
                self._end_processes(folder)
                self.target.remove(folder)
                left = [entry for entry in leases.leftovers(self._identity) if entry != folder]
                leases.write_leftovers(self._identity, left)
                return
            except EdgeoptError as error:
                lost = isinstance(error, DeviceError) and error.kind in ("lost", "timeout")
                if attempt == 2 or (lost and not self.target.wait_back(min(_CLEAN_UP_S, self._recover_s))):
                    break
        self.warnings.append(
            f"{folder} could not be removed from {self.target.name}: the next run on this device removes it."
        )


def kill_line(folder: str) -> str:
    """A shell line that kills every process whose working folder is ``folder``.

    ``ls`` shows a process's folder as ``... /proc/PID/cwd -> FOLDER``; one call of it for all processes,
    because a phone forks slowly.
    """
    private_path(folder)
    return (
        f"f={quoted(folder)}; ls -ld /proc/[0-9]*/cwd 2>/dev/null | while IFS= read -r l; do "
        'case "$l" in *" -> $f"|*" -> $f (deleted)") p="${l##* /proc/}"; p="${p%%/*}"; '
        'kill -9 "$p" 2>/dev/null;; esac; done; true'
    )
