"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it began is tidied up, what was measured is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_received: list[int] = []
_shown: list[int] = []


@contextlib.contextmanager
def taken_as_ctrl_c() -> Iterator[None]:
    """Within, the first SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread.

    CI runners, `timeout` and service managers end a job with SIGTERM, a closed terminal with SIGHUP; by
    themselves both end Python at once: a device's folder stays there and a benchmark's process runs on. What is
    ignored (nohup) or handled by the program around stays so.
    """
    _received.clear()
    _shown.clear()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code() -> int:
    """Exit code of an interrupted command: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def shown() -> int:
    """The same, for a command that has shown what it had when it was interrupted, and said so."""
    _shown.append(exit_code())
    return _shown[0]


def unsaid(result: object) -> bool:
    """Whether what a command returned is Typer's code for an interruption that nobody was told of."""
    # Typer makes an exit code of KeyboardInterrupt before anybody around it can see one.
    return result == 128 + signal.SIGINT and not _shown


def reason() -> str:
    """What ended the command, for its last line."""
    return f"ended by {signal.Signals(_received[0]).name}" if _received else "interrupted"


def sentence(what_is_left: str) -> str:
    """The error of a command that shows what it had when it was interrupted."""
    return f"{reason()}: {what_is_left}"


def _raise(number: int, frame: FrameType | None) -> None:
    again = bool(_received)
    _received.append(number)
    # `timeout` and runners send it to a process and to its group: the second one must not cut the tidying up short.
    if not again:
        raise KeyboardInterrupt
