"""Who may use a device now, and what was left behind on one: files in the user's state folder.

A lease is a file lock, so it ends with the process that holds it, however that ends. The journal lists the
private folders that are on devices; whoever next holds the lease removes what a cut wire left there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EdgeoptError


def state_folder() -> Path:
    """``$EDGEOPT_STATE_DIR/devices``, else the platform's state folder for edgeopt."""
    override = os.environ.get("EDGEOPT_STATE_DIR")
    if override:
        return Path(override).expanduser() / "devices"
    from platformdirs import user_state_path

    return user_state_path("edgeopt") / "devices"


@contextmanager
def lease(identity: str, name: str, *, wait_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the only right to use a device.

    Args:
        identity: the device's own (serial number, machine id), the same over every wire to it.
        name: how the user names it.
        wait_s: how long to wait for another process that holds it.
        say: told that it waits, again and again: who listens knows for which device, and may end it by raising.

    Raises:
        EdgeoptError: another process held it for longer, or the state folder can't be written.
    """
    path = _file(identity, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise EdgeoptError(
            f"the folder {path.parent} can't be written ({error.strerror}): set EDGEOPT_STATE_DIR to one that can."
        ) from error
    with handle:
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                handle.seek(0)
                holder = handle.read(200).strip() or "another process"
                if time.monotonic() >= end:
                    raise EdgeoptError(
                        f"{name} is in use by {holder}; waited {wait_s:g} s: "
                        "run again later, or wait longer with --wait."
                    ) from None
                say(f"in use by {holder}: waiting up to {wait_s:g} s")
                time.sleep(0.1)
        handle.truncate(0)
        handle.write(f"process {os.getpid()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def leftovers(identity: str) -> list[str]:
    """Private folders that may still be on the device. Read it while holding the lease."""
    try:
        found = json.loads(_file(identity, "json").read_text())
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []


def write_leftovers(identity: str, folders: list[str]) -> None:
    """Replace the list; an empty one leaves no file."""
    path = _file(identity, "json")
    if not folders:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(folders))
    temporary.replace(path)


def _file(identity: str, suffix: str) -> Path:
    return state_folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.{suffix}"
