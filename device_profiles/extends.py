"""Reads a profile's TOML and merges it over the one it ``extends``.

Tables merge key by key; lists, and so the clusters, replace. A source stays with the figure it was
written for: what the child overrides needs the child's own source, even under a parent's prefix.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checks import covering_source, numeric_leaves

MAX_FILE_BYTES = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content as it stands, with ``sources`` flattened to dotted keys.

    Raises:
        InputError: the file can't be read, is far too big, or is not TOML.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: too big for a device profile (at most {MAX_FILE_BYTES} bytes)")
        raw = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # Windows' editors begin with a mark
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `edgeopt profiles` lists the named ones") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); a profile is a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    sources = raw.get("sources")
    if isinstance(sources, dict):
        raw["sources"] = dict(_flatten(sources))
    return raw


def resolve(path: Path) -> dict[str, Any]:
    """The file merged over everything it extends, not yet validated.

    Raises:
        InputError: as :func:`read_toml`; also for a cycle, or an unknown name in ``extends``.
    """
    return _resolve(path, ())


def name_of(path: Path) -> str:
    """The profile name that a file's name gives: ``My-Phone.toml`` is ``my_phone``."""
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:56]
    return name if name[:1].isalpha() else f"profile_{name}"


def merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """``child`` over ``parent``: tables deep, lists and values replaced, sources kept per figure."""
    content = _deep({**parent, "sources": {}}, {**child, "sources": {}})
    inherited = parent.get("sources")
    own = child.get("sources", {})
    if not isinstance(inherited, dict) or not isinstance(own, dict):
        content["sources"] = own
        return content
    overridden = dict(numeric_leaves({key: value for key, value in child.items() if key != "sources"}))
    kept: dict[str, str] = {}
    for key, _ in numeric_leaves({key: value for key, value in content.items() if key != "sources"}):
        entry = covering_source(key, inherited)
        if entry is not None and key not in overridden:
            kept[key] = inherited[entry]
    content["sources"] = {**kept, **own}
    return content


def _resolve(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    own_path = path.resolve()
    raw = read_toml(path)
    if "extends" not in raw:
        return _with_machine(path, raw)
    parent = raw.pop("extends")
    if not isinstance(parent, str) or not parent.strip():
        raise InputError(f"{path}: extends is {parent!r}; allowed: a profile's name or a path, in quotes")
    parent_path = _parent_path(path, parent, (*chain, own_path))
    if parent_path.resolve() in (*chain, own_path):
        names = " -> ".join(each.name for each in (*chain, own_path, parent_path.resolve()))
        raise InputError(f"{path}: extends goes round in a circle: {names}; let one of them stand alone")
    base = _resolve(parent_path, (*chain, own_path))
    base.pop("aliases", None)
    raw.setdefault("name", name_of(path))
    return merge(base, raw)


def _parent_path(path: Path, parent: str, chain: tuple[Path, ...]) -> Path:
    if parent.endswith(".toml"):
        file = path.parent / Path(parent).expanduser()
        if not file.exists():
            raise InputError(
                f"{path}: extends: {file}: no such file (a path is relative to the file it stands in)"
            )
        return file
    from .catalog import find

    # A user's pixel7.toml may extend "pixel7": the file itself is passed over, the built-in one is meant.
    same_name = frozenset(each for each in chain if each.stem == path.stem)
    try:
        return find(parent, hidden=same_name)
    except InputError as error:
        own = [each for each in chain if each.stem == parent]
        if own:
            return own[0]
        raise InputError(f"{path}: extends: {error}") from error


def _with_machine(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    from .catalog import BUILTIN_FOLDER

    if path.resolve() != (BUILTIN_FOLDER / "host.toml").resolve():
        return raw
    from .clock import kept_mhz
    from .machine import describe_machine

    return merge(raw, describe_machine(clock=kept_mhz))


def _deep(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in child.items():
        below = merged.get(key)
        merged[key] = _deep(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _flatten(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        full = f"{prefix}.{key}" if prefix else key
        flat += _flatten(value, full) if isinstance(value, dict) else [(full, value)]
    return flat
