"""Places on the disk: where the cache is, a file written whole, and a disk that is full told as what it is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage

from .errors import InputError

_FULL = "No space left on device"
_QUOTA = "Disk quota exceeded"
_LIMIT = "File too large"
_PLENTY = 256 * 2**20


def cache_folder() -> Path:
    """``$EDGEOPT_CACHE_DIR``, else the platform's cache folder for edgeopt; it need not be there."""
    chosen = os.environ.get("EDGEOPT_CACHE_DIR")
    if chosen:
        # A shell leaves ~ alone behind a colon or in quotes, and env files never expand it.
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("edgeopt", appauthor=False))


def check_writable(path: Path, option: str) -> None:
    """Refuse a place for a file that can't be written, before minutes are spent on what is to stand in it.

    Args:
        option: what gave the path, such as ``--plot``.

    Raises:
        InputError: no such folder, or one that takes no file.
    """
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise InputError(f"{option} {path}: that is a folder; name a file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {path}: the folder {path.parent} can't be written to; give another place."
        )


@contextmanager
def written_whole(path: Path, option: str) -> Iterator[Path]:
    """A file beside ``path`` to write, which then takes its place; when that fails nothing is left behind.

    Raises:
        InputError: it can't be written.
    """
    check_writable(path, option)
    # The suffix stays: some writers go by it.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        full = disk_trouble(str(error), path.parent)
        why = f"{full[0]}; free some space" if full else error.strerror or error
        raise InputError(f"{option} {path} can't be written: {why}, or give another place.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def disk_trouble(words: str, folder: Path | None = None) -> tuple[str, str] | None:
    """(what is wrong, what to do) when ``words`` tell of a disk that takes no more; None when they don't.

    Exporters and runtimes hand on the system's words without the place, often from C++: of the places that are
    written to, the one with the least space left is named.

    Args:
        folder: where results are written with ``-o``; temporary files go to the system's folder for them.
    """
    found = re.search(f"{_FULL}|{_QUOTA}|{_LIMIT}", words)
    if found is None:
        return None
    if found[0] == _LIMIT:
        where = f" in {_asked_for(folder)}" if folder else ""
        return f"a file{where} would grow larger than is allowed here", "raise the limit (see ulimit -f)"
    temporary = Path(tempfile.gettempdir())
    others = [folder] if folder else [Path.cwd(), Path.home()]
    place = min((*others, temporary), key=_free_bytes)
    if folder is None and _free_bytes(place) > _PLENTY:
        return "a disk is full", "free some space"
    helps = "set TMPDIR to another folder" if place == temporary else "give another -o" if folder else ""
    named = _asked_for(place)
    what = f"your quota for {named} is used up" if found[0] == _QUOTA else f"the disk of {named} is full"
    return what, f"free some space there{f', or {helps}' if helps else ''}"


def _asked_for(folder: Path) -> Path:
    """The folder a user knows: a bundle is made in a hidden one."""
    return next((p for p in (folder, *folder.parents) if p.suffix != ".partial"), folder)


def _free_bytes(folder: Path) -> int:
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return disk_usage(place).free
    return 0
