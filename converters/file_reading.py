"""A model file given to the reader of its format, and what is said when that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import InputError

T = TypeVar("T")


def read_model_file(path: Path, readers: Mapping[str, Callable[[Path], T]], only: str) -> T:
    """What the reader of the file's suffix makes of it; ``only`` is said of files with another one.

    Raises:
        InputError: the file is missing, of another kind, corrupt or truncated.
    """
    from ..runtimes import check_file

    check_file(path)
    if path.suffix not in readers:
        raise InputError(f"{path.name}: {only}.")
    try:
        return readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} can't be read as a {path.suffix} file ({type(error).__name__}: {error}): it is corrupt or "
            "was written by a newer version."
        ) from error
