"""Where the emulator's toolchain lives, and how two processes share it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...disk import cache_folder
from ...errors import EdgeoptError


def cache_dir() -> Path:
    """``$EDGEOPT_CACHE_DIR/emulator``, else the platform's cache folder for edgeopt."""
    return cache_folder().resolve() / "emulator"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: a second process waits here, then finds the work done.

    Raises:
        EdgeoptError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("w")
    except OSError as error:
        raise EdgeoptError(
            f"cannot write to the emulator's cache folder {folder} ({error.strerror}); "
            "set EDGEOPT_CACHE_DIR to a folder that can be written"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON in one step, so that a killed process leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when it is missing or broken (the work is then done again)."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes ``folder``'s place when the block ends well, and vanishes when it doesn't."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        yield fresh
        if folder.exists():
            shutil.rmtree(folder)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
