"""Where something runs: a few verbs, the same for this machine, an emulator, a phone or a board.

A target is one module with a class that fulfils :class:`Target`. Paths on a target are plain strings;
commands are argument lists, so that nobody has to quote for a shell.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import EdgeoptError
from .conditions import machine_facts


@dataclass(frozen=True)
class Execution:
    """A command that ran to its end: exit code (negative: ended by that signal) and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class TargetInfo:
    """What a target says of itself. ``facts`` go into the conditions of a measurement as they are."""

    name: str
    device: str
    arch: str
    facts: dict[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """The verbs every target has. All raise EdgeoptError when the target can't be reached."""

    name: str
    grade: str  # of what is timed there: "measured", or "emulated"

    def describe(self) -> TargetInfo:
        """What runs there: device, CPU, operating system."""
        ...

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the target, creating folders on the way."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the target."""
        ...

    def execute(
        self, command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> Execution:
        """Run a command to its end; a nonzero exit code is returned, not raised."""
        ...

    def remove(self, remote: str) -> None:
        """Delete a file or a folder with all it holds; absent is fine."""
        ...


class HostTarget:
    """This machine."""

    name = "host"
    grade = "measured"

    def describe(self) -> TargetInfo:
        facts = machine_facts()
        return TargetInfo(self.name, facts["device"], facts["machine"], facts)

    def push(self, local: Path, remote: str) -> None:
        Path(remote).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(local, remote)

    def pull(self, remote: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(remote, local)

    def execute(
        self, command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> Execution:
        try:
            done = subprocess.run(
                list(command),
                capture_output=True,
                timeout=timeout_s,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EdgeoptError(f"{command[0]} did not end within {timeout_s:g} s on host.") from None
        except OSError as error:
            raise EdgeoptError(f"{command[0]} can't be run on host: {error.strerror}.") from error
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        return Execution(done.returncode, out, err)

    def remove(self, remote: str) -> None:
        path = Path(remote)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
