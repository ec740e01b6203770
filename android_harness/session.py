"""A worker that stays up and measures slices on command, so that several files can take turns.

Two files measured one after the other differ by whatever the machine did in between. In a round each file
gets a fresh process, and then the processes alternate in slices of some tens of milliseconds.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import EdgeoptError, InputError
from ..runtimes import check_file, runtime_for
from ..runtimes.isolation import describe_death, interpreter_for, last_words, python_command
from ..runtimes.scratch import ScratchFolder
from .measure import MeasureOptions, check_options, job_of

_START_TIMEOUT_S = 300.0
_SLICE_TIMEOUT_S = 300.0


class Session:
    """One file in one fresh process, loaded and warm, waiting for commands. Use as a context manager.

    ``start`` holds what the worker reported when it was ready (load and first inference in ms, memory);
    ``interrupted`` how many of all ``runs`` other processes broke into (of one thread; see ``Bench.slice``).

    Raises:
        InputError: the file is wrong.
        EdgeoptError: the runtime crashed, failed or didn't answer.
    """

    def __init__(self, path: Path, options: MeasureOptions) -> None:
        check_file(path)
        check_options(options)
        self.path = path
        self.runtime = options.runtime or runtime_for(path)
        self._folder = ScratchFolder("session")
        folder = Path(self._folder.name)
        read_fd, write_fd = os.pipe()
        job = {**job_of(path, self.runtime, options, "serve"), "reply_fd": write_fd}
        (folder / "job.json").write_text(json.dumps(job))
        self._log = folder / "log.txt"
        command = [
            *python_command("android_harness.measure_worker", interpreter_for(self.runtime)),
            str(folder),
        ]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(write_fd,)
            )
        os.close(write_fd)
        self._replies = os.fdopen(read_fd, "rb", buffering=0)
        self._buffer = b""
        self._ready: dict[str, Any] | None = None
        self.runs = self.interrupted = 0

    @property
    def start(self) -> dict[str, Any]:
        """Wait until the worker is warm; what it reported then."""
        if self._ready is None:
            self._ready = self._answer(_START_TIMEOUT_S)
        return self._ready

    def run(self, seconds: float, *, least: int = 1) -> list[float]:
        """Run inferences for ``seconds`` (at least ``least``); each one's time in ms."""
        answer = self._command({"seconds": seconds, "least": least})
        times: list[float] = answer["times_ms"]
        self.runs += len(times)
        self.interrupted += answer["interrupted"]
        return times

    def count(self, seconds: float) -> int:
        """Run inferences for ``seconds`` and return how many they were (for energy windows)."""
        runs: int = self._command({"seconds": seconds, "least": 1, "times": False})["runs"]
        return runs

    def close(self) -> None:
        """End the worker."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._replies.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._child.kill()
        self.close()

    def _command(self, command: dict[str, Any]) -> dict[str, Any]:
        ready = self.start
        assert ready is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(command).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            self._died()
        return self._answer(_SLICE_TIMEOUT_S + command["seconds"])

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._replies], [], [], timeout_s)
            if not readable:
                raise EdgeoptError(f"{self.runtime} did not answer for {self.path.name} in {timeout_s:g} s.")
            data = self._replies.read(1 << 16)
            if not data:
                self._died()
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = InputError if answer["error"]["kind"] == "input" else EdgeoptError
            raise kind(answer["error"]["message"])
        return answer

    def _died(self) -> None:
        code = self._child.wait(timeout=30)
        if code == -2:
            raise KeyboardInterrupt
        raise EdgeoptError(f"{self.path.name} {describe_death(code, self.runtime)}{last_words(self._log)}.")


def interleave(
    sessions: Sequence[Session], *, slices: int, slice_s: float, first: int = 0
) -> list[list[list[float]]]:
    """One round: ``slices`` slices of each session, taking turns.

    The order turns around from slice to slice (ABC, CBA, ABC, ...), so that a slow drift falls on all alike;
    ``first`` rotates it, so that no file always begins.

    Returns:
        for each session its slices, each a list of run times in ms.
    """
    taken: list[list[list[float]]] = [[] for _ in sessions]
    order = [(i + first) % len(sessions) for i in range(len(sessions))]
    for number in range(slices):
        for i in order if number % 2 == 0 else order[::-1]:
            taken[i].append(sessions[i].run(slice_s))
    return taken
