"""A child process ends with the process that started it, however that one ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it (process number ``parent``) has ended, even by kill -9.

    Linux only (prctl); elsewhere a child goes on to its own end.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # It may have ended before the line above: then no signal comes any more.
        if os.getppid() != parent:
            os._exit(1)
