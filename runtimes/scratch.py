"""Folders for temporary files that are swept up when whoever made them was killed.

A folder is removed by its owner. One that was ended by ``kill -9`` or a power cut can't: the next process that
makes a folder here removes what such owners left, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

_NAME = re.compile(r"edgeopt-[a-z]+-(\d+)-[a-z0-9_]{8}")
_SETTLED_S = 60.0  # between making and locking a folder lies less
_swept: set[str] = set()


class ScratchFolder(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
    """A :class:`tempfile.TemporaryDirectory` whose owner can be told from its name and its lock.

    Args:
        purpose: a word in lower-case letters, for whoever finds the folder.
    """

    def __init__(self, purpose: str) -> None:
        _sweep(Path(tempfile.gettempdir()))
        # As long for every process: under emulation a path's length moves the stack, and with it the cache misses.
        super().__init__(prefix=f"edgeopt-{purpose}-{os.getpid():07d}-", ignore_cleanup_errors=True)
        self._lock = _lock(Path(self.name))

    def cleanup(self) -> None:
        """Remove the folder; a second call does nothing."""
        super().cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __exit__(self, *exception: Any) -> None:
        self.cleanup()


def _sweep(parent: Path) -> None:
    """Remove the folders of owners that are no more; once in a process."""
    if str(parent) in _swept:
        return
    _swept.add(str(parent))
    with contextlib.suppress(OSError):
        for folder in parent.glob("edgeopt-*-*-*"):
            with contextlib.suppress(OSError):
                if _abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    named = _NAME.fullmatch(folder.name)
    if named is None or folder.is_symlink() or not folder.is_dir():
        return False
    found = folder.stat()
    if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SETTLED_S or _alive(int(named[1])):
        return False
    # In a container that shares this folder its owner has another number here: its lock tells that it lives.
    lock = _lock(folder)
    if lock is None:
        return False
    os.close(lock)
    return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed or its process ends; None where there is none."""
    try:
        import fcntl
    except ImportError:  # no sweeping there either
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor
