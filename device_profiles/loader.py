"""Finds, merges and validates one profile."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from .catalog import find
from .extends import name_of, resolve
from .problems import input_error
from .schema import DeviceProfile


def load_profile(name_or_path: str | os.PathLike[str]) -> DeviceProfile:
    """The profile of that name (user folder, entry points, built-in: in this order) or in that file.

    Anything that ends in ``.toml`` or holds a path separator is a path. ``host`` is filled from this
    machine.

    Raises:
        InputError: unknown name, unreadable or malformed file, or a profile that breaks the schema.
    """
    path = path_of(name_or_path)
    raw = resolve(path)
    raw.setdefault("name", name_of(path))
    try:
        return DeviceProfile.model_validate(raw)
    except ValidationError as error:
        raise input_error(str(path), error) from error


def path_of(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that ``name_or_path`` means; a path need not exist.

    Raises:
        InputError: unknown name.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml") or os.sep in text or (os.altsep and os.altsep in text):
        return Path(text).expanduser()
    return find(text)
