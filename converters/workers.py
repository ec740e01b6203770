"""Runs conversions side by side, each in a process of its own.

The processes are forked from the one that holds the captured model, so nothing is loaded or captured
twice, and a crash deep in an exporter or runtime costs one artefact, not the export.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..runtimes.lifetime import end_with_parent
from ..runtimes.scratch import ScratchFolder

T = TypeVar("T")
Progress = Callable[[str], None]
# A conversion computes all the time: one that uses no processor for this long waits for a thread that the fork
# did not copy.
_STALL_S = 30.0
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_forks_stall = threading.Event()
_dead_pools: list[Any] = []


@dataclass(frozen=True)
class Task(Generic[T]):
    """Work for one process: ``run`` gets a function to report progress with."""

    name: str
    run: Callable[[Progress], T]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a task: its value, or what went wrong in one sentence with the log's tail."""

    name: str
    value: T | None
    error: str | None = None
    log: str = ""
    wall_s: float = 0.0
    peak_memory_mib: float = 0.0

    @property
    def last_words(self) -> str:
        """What was said at the end: libraries in C++ write why they give up, and end the process."""
        return "\n".join([*self.log.splitlines()[-5:], self.error or ""])


def run_tasks(
    tasks: Sequence[Task[T]], *, max_parallel: int, on_progress: Callable[[str, str], None]
) -> list[Outcome[T]]:
    """Run ``tasks``, at most ``max_parallel`` at once; the outcomes keep the order of the tasks.

    A library that the caller's Python process has loaded may hold a lock or own threads that a forked process
    lacks, which then waits for ever. Such a process is ended and its task done here instead, one after the
    other; so is every later one.

    Args:
        on_progress: called with (task name, what it is doing).

    Raises:
        KeyboardInterrupt: after every process has been stopped.
    """
    if not _can_fork() or _forks_stall.is_set():
        return [_run_here(task, on_progress) for task in tasks]
    with ScratchFolder("convert") as logs:
        outcomes = _run_forked(tasks, max_parallel, on_progress, Path(logs))
    return [outcomes.get(task.name) or _run_here(task, on_progress) for task in tasks]


def _run_forked(
    tasks: Sequence[Task[T]], max_parallel: int, on_progress: Callable[[str, str], None], logs: Path
) -> dict[str, Outcome[T]]:
    """The outcomes by name; tasks whose process waited for itself, and those after them, have none."""
    context = multiprocessing.get_context("fork")
    waiting = list(tasks)
    running: dict[Connection, _Running[T]] = {}
    outcomes: dict[str, Outcome[T]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                with _interrupts_held():
                    log = logs / f"{len(tasks) - len(waiting)}.txt"
                    started = _Running.start(waiting.pop(0), context, log)
                    running[started.receiver] = started
            for ready in wait(list(running), timeout=1.0):
                worker = running[ready]  # type: ignore[index]
                finished = worker.receive(on_progress)
                if finished is not None:
                    outcomes[worker.task.name] = finished
                    del running[ready]  # type: ignore[arg-type]
            for receiver, worker in list(running.items()):
                if worker.stalled():
                    worker.stop()
                    del running[receiver]
                    _forks_stall.set()
            if _forks_stall.is_set():
                waiting.clear()
    finally:
        for worker in running.values():
            worker.stop()
    return outcomes


def parallel_processes(weight_bytes: int, task_count: int) -> int:
    """How many conversions fit at once into this machine's cores and free memory.

    One conversion takes about 600 MiB for the exporter and, measured on ResNet-50 and BERT-base, up to ten
    times the bytes of the weights.
    """
    need_mib = 600 + 10 * weight_bytes / 2**20
    available = _available_memory_mib()
    by_memory = max(1, int(available // need_mib)) if available else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(task_count, cores, by_memory))


def _available_memory_mib() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C, and what is handled like it, takes effect after the fork.

    At once, its KeyboardInterrupt could be raised in one of the hooks that libraries have around a fork, and
    Python ignores what is raised there.
    """
    here = threading.current_thread() is threading.main_thread()
    handled = [number for number in _INTERRUPTS if callable(signal.getsignal(number))] if here else []
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _can_fork() -> bool:
    # macOS lists fork, but its system libraries don't survive it. A task that is itself a process of ours does its own
    # tasks one after the other.
    return sys.platform.startswith("linux") and not multiprocessing.current_process().daemon


def _run_here(task: Task[T], on_progress: Callable[[str, str], None]) -> Outcome[T]:
    started = time.monotonic()
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            value = task.run(lambda what: on_progress(task.name, what))
    except Exception as error:
        log.write(traceback.format_exc())
        return Outcome(task.name, None, f"{type(error).__name__}: {error}", log.getvalue()[-4000:])
    return Outcome(task.name, value, log=log.getvalue()[-4000:], wall_s=time.monotonic() - started)


class _Running(Generic[T]):
    """One forked process and the pipe it reports through."""

    def __init__(self, task: Task[T], process: Any, receiver: Connection, log: Path) -> None:
        self.task, self.process, self.receiver, self.log = task, process, receiver, log
        self.started = self._busy_at = self._looked_at = time.monotonic()
        self._ticks = -1

    @classmethod
    def start(cls, task: Task[T], context: Any, log: Path) -> _Running[T]:
        receiver, sender = context.Pipe(duplex=False)
        log.touch()
        process = context.Process(target=_child, args=(task, sender, str(log), os.getpid()), daemon=True)
        process.start()
        sender.close()
        return cls(task, process, receiver, log)

    def receive(self, on_progress: Callable[[str, str], None]) -> Outcome[T] | None:
        """Take one message; an :class:`Outcome` when the process is through."""
        try:
            kind, content = self.receiver.recv()
        except EOFError:
            self.process.join()
            return self._finish(None, self._death())
        if kind == "progress":
            on_progress(self.task.name, content)
            return None
        self.process.join()
        if kind == "failed":
            return self._finish(None, content)
        value, peak_memory_mib = content
        return self._finish(value, None, peak_memory_mib)

    def stalled(self) -> bool:
        """Whether the process has used no CPU time for so long that it must be waiting for itself."""
        try:
            fields = (
                Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            )
            ticks = int(fields[11]) + int(fields[12])
        except (OSError, IndexError, ValueError):
            return False
        now = time.monotonic()
        # A long gap between two looks: it was this process that stood still (Ctrl-Z, a laptop asleep).
        if ticks != self._ticks or now - self._looked_at > 10.0:
            self._ticks, self._busy_at = ticks, now
        self._looked_at = now
        return now - self._busy_at > _STALL_S

    def stop(self) -> None:
        """End the process and everything it left."""
        self.process.kill()
        self.process.join()
        self.log.unlink(missing_ok=True)

    def _finish(self, value: T | None, error: str | None, peak_memory_mib: float = 0.0) -> Outcome[T]:
        log = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
        self.log.unlink(missing_ok=True)
        self.receiver.close()
        wall_s = time.monotonic() - self.started
        return Outcome(self.task.name, value, error, log, wall_s, peak_memory_mib)

    def _death(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"the process died of {name}{hint}"
        return f"the process ended with exit code {code} and no result"


def _child(task: Task[Any], sender: Connection, log: str, parent: int) -> None:
    end_with_parent(parent)
    # What interrupts reaches the whole process group; the parent decides what it means.
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    with Path(log).open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    _one_thread()
    _renew_thread_pools()
    # What the parent holds is no garbage here, and millions of objects to look through for some.
    gc.freeze()
    try:
        value = task.run(lambda what: sender.send(("progress", what)))
        import resource

        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        message: tuple[str, Any] = ("done", (value, peak_mib))
        pickle.dumps(message)
    except Exception as error:
        traceback.print_exc()
        message = ("failed", f"{type(error).__name__}: {error}")
    sys.stderr.flush()
    sys.stdout.flush()
    sender.send(message)
    sender.close()
    # Exit handlers belong to the parent (progress bars, thread pools that don't exist here).
    os._exit(0)


def _renew_thread_pools() -> None:
    """JAX, on which litert-torch leans, makes a thread pool when it is imported; its threads don't survive a fork.

    A process that converts never imports it before it forks, but a user's may have.
    """
    mlir: Any = sys.modules.get("jax._src.interpreters.mlir")
    if mlir is not None:
        # Kept, because its destructor would wait for those threads.
        _dead_pools.append(mlir.global_thread_pool)
        mlir.global_thread_pool = mlir.ir.ThreadPool()


def _one_thread() -> None:
    """The parent's OpenMP threads don't exist in a forked child: using more than one would hang."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
