"""Which profiles there are and where: the user's folder, entry points, the built-in ones.

Reads TOML only (no pydantic), so that listing stays quick; only profiles that aren't ours are validated for it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from .cores import core_rank
from .extends import read_toml, resolve

BUILTIN_FOLDER = Path(__file__).parent
ENTRY_POINT_GROUP = "edgeopt.profiles"


@dataclass(frozen=True)
class ProfileEntry:
    """One profile that can be named, summarised from its TOML.

    ``problem`` is set, and the summary empty, when the profile can't be used.
    """

    name: str
    title: str
    origin: str
    path: Path
    kind: str = ""
    big_cores: str = ""
    isa: tuple[str, ...] = ()
    ram_mib: int | None = None
    problem: str | None = None


def user_folder() -> Path:
    """The user's own profiles: ``$EDGEOPT_CONFIG_DIR/profiles`` or the platform's config folder."""
    override = os.environ.get("EDGEOPT_CONFIG_DIR")
    if override:
        return Path(override).expanduser() / "profiles"
    from platformdirs import user_config_path

    return user_config_path("edgeopt") / "profiles"


def list_profiles() -> list[ProfileEntry]:
    """Every profile that can be named, by name; one that hides another of its name stands for both."""
    entries: dict[str, ProfileEntry] = {}
    for origin, path in profile_files():
        if normalise(path.stem) not in entries:
            entries[normalise(path.stem)] = _summarise(origin, path)
    return sorted(entries.values(), key=lambda entry: entry.name)


def profile_files() -> Iterator[tuple[str, Path]]:
    """(origin, path) of every profile file in the order in which a name is looked up.

    Raises:
        InputError: a folder of profiles can't be read.
    """
    for origin, folder in _folders():
        try:
            paths = sorted(folder.glob("*.toml")) if folder.is_dir() else []
        except OSError as error:
            raise InputError(
                f"{folder}: can't be read: {error.strerror or error}; allow it or move it"
            ) from error
        yield from ((origin, path) for path in paths)


def find(name: str, *, hidden: frozenset[Path] = frozenset()) -> Path:
    """The file of the profile called ``name`` (``pixel7``, ``pixel-7`` and ``Pixel 7`` are one name).

    Args:
        name: a profile's name, title or alias.
        hidden: files to pass over, so that a user's ``pixel7`` may extend the built-in ``pixel7``.

    Raises:
        InputError: no such profile; the message suggests the nearest names.
    """
    wanted = normalise(name)
    files = [path for _, path in profile_files() if path.resolve() not in hidden]
    for path in files:
        if normalise(path.stem) == wanted:
            return path
    known: dict[str, Path] = {}
    for path in files:
        for spelling in _spellings(path):
            known.setdefault(normalise(spelling), path)
    if wanted and wanted in known:
        return known[wanted]
    raise InputError(_unknown(name, wanted, files, known))


def normalise(name: str) -> str:
    """``Pixel 7``, ``pixel-7`` and ``pixel_7`` all become ``pixel7``."""
    return re.sub(r"[^a-z0-9+]", "", name.lower()).replace("+", "plus")


def _unknown(name: str, wanted: str, files: list[Path], known: dict[str, Path]) -> str:
    stems = {normalise(path.stem): path.stem for path in files}
    near = difflib.get_close_matches(wanted, [*stems, *known], n=5, cutoff=0.5)
    nearest = list(dict.fromkeys(stems.get(spelling) or known[spelling].stem for spelling in near))[:3]
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    return (
        f"unknown profile {name!r}; {hint}`edgeopt profiles` lists all {len(stems)}, "
        "and a path to a .toml file works too"
    )


def _spellings(path: Path) -> list[str]:
    try:
        raw = read_toml(path)
    except InputError:
        return []
    aliases = raw.get("aliases")
    names = [raw.get("name"), raw.get("title"), *(aliases if isinstance(aliases, list) else [])]
    return [name for name in names if isinstance(name, str)]


def _folders() -> Iterator[tuple[str, Path]]:
    yield "user", user_folder()
    yield from _entry_point_folders()
    yield "built-in", BUILTIN_FOLDER


def _entry_point_folders() -> Iterator[tuple[str, Path]]:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP):
        distribution = point.dist.name if point.dist is not None else "an installed package"
        try:
            target = point.load()
            folder = Path(target() if callable(target) else target)
        except Exception as error:
            raise EdgeoptError(
                f"the entry point {point.name!r} ({ENTRY_POINT_GROUP}) of {distribution} gave no folder of "
                f"profiles: {type(error).__name__}: {error}; update or uninstall {distribution}"
            ) from error
        yield distribution, folder


def _unsound(path: Path) -> str:
    return f"incomplete or malformed; `edgeopt profiles validate {path}` says where"


def _summarise(origin: str, path: Path) -> ProfileEntry:
    found = _read(origin, path)
    if origin == "built-in" or found.problem is not None:
        return found  # the tests validate ours
    from .loader import load_profile

    try:
        load_profile(path)
    except InputError as error:
        text = str(error)
        return ProfileEntry(path.stem, "", origin, path, problem=_unsound(path) if "\n" in text else text)
    return found


def _read(origin: str, path: Path) -> ProfileEntry:
    try:
        raw = resolve(path)
        clusters: list[dict[str, Any]] = raw["cpu"]["clusters"]
        big = max(clusters, key=lambda cluster: (core_rank(str(cluster["core"])), int(cluster["max_mhz"])))
        shared = set.intersection(*(set(cluster["isa"]) for cluster in clusters))
        return ProfileEntry(
            name=path.stem,
            title=str(raw["title"]),
            origin=origin,
            path=path,
            kind=str(raw["kind"]),
            big_cores=f"{big['count']}x {big['core']} {int(big['max_mhz']) / 1000:.2f} GHz",
            isa=tuple(feature for feature in big["isa"] if feature in shared),
            ram_mib=int(raw["memory"]["ram_mib"]),
        )
    except InputError as error:
        return ProfileEntry(path.stem, "", origin, path, problem=str(error))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ProfileEntry(path.stem, "", origin, path, problem=_unsound(path))
