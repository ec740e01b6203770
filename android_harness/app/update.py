"""What was generated, kept beside it, and what an update may change without breaking anyone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from .context import AppContext
from .render import File

STATE = "edgeopt-app.json"
_SCHEMA = 1


@dataclass(frozen=True)
class State:
    """``edgeopt-app.json``: what the folder was made from, and the hash of each file an update may replace."""

    platform: str
    package: str
    file: str
    runtime: str
    runtime_version: str
    signature: dict[str, Any]
    files: dict[str, str]

    @classmethod
    def of(cls, context: AppContext, file: str, files: Sequence[File]) -> State:
        """The state that belongs to freshly rendered files."""
        hashes = {f.path: _hash(f.content) for f in files if f.regenerated}
        return cls(
            context.platform, context.package, file, context.runtime, context.runtime_version,
            context.signature(), hashes,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> State:
        """Read it.

        Raises:
            InputError: the folder wasn't made by ``edgeopt app``, or the file is damaged.
        """
        path = folder / STATE
        if not path.is_file():
            raise InputError(
                f"{folder} can't be updated: it has no {STATE}; generate it first, without --update."
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema_version") != _SCHEMA:
                raise ValueError("another schema version")
            return cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged ({error}): restore it, or generate into another folder."
            ) from error

    def to_bytes(self) -> bytes:
        """As it is written: sorted, so that a diff of it can be read."""
        return (
            json.dumps({"schema_version": _SCHEMA, **vars(self)}, indent=2, sort_keys=True) + "\n"
        ).encode()


@dataclass
class Changes:
    """What an update did. ``kept`` are the user's files, left alone."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What code that calls the old wrapper would trip over in the new one; empty when nothing."""
    found = []
    if old["class"] != new["class"]:
        found.append(f"class {old['class']} becomes {new['class']}")
    for side in ("inputs", "outputs"):
        before = {name: (dtype, shape) for name, dtype, shape in old[side]}
        after = {name: (dtype, shape) for name, dtype, shape in new[side]}
        word = side[:-1]
        found += [f"{word} {name} is gone" for name in before if name not in after]
        found += [
            f"{word} {name} was {_typed(before[name])} and is {_typed(after[name])}"
            for name in before
            if name in after and before[name] != after[name]
        ]
        if side == "inputs":
            found += [f"{word} {name} is new" for name in after if name not in before]
            if before.keys() == after.keys() and list(before) != list(after):
                found.append(f"the inputs come in another order ({', '.join(after)})")
    if list(old["sizes"]) != list(new["sizes"]):
        found.append(
            f"the dynamic sizes were ({', '.join(old['sizes'])}) and are ({', '.join(new['sizes'])})"
        )
    found += [
        f"{what} is gone"
        for key, what in (("image", "the image input's preprocessing"), ("labels", "the list of labels"))
        if old[key] and not new[key]
    ]
    return found


def _typed(entry: tuple[str, Sequence[int | str]]) -> str:
    dtype, shape = entry
    return f"{dtype}[{', '.join(str(size) for size in shape)}]"


def edited_files(folder: Path, state: State, files: Sequence[File]) -> list[str]:
    """Generated files that are neither what was written nor what is going to be."""
    coming = {file.path: _hash(file.content) for file in files}
    edited = []
    for path, digest in state.files.items():
        target = folder / path
        if target.is_file() and _hash(target.read_bytes()) not in (digest, coming.get(path)):
            edited.append(path)
    return edited


def apply(folder: Path, state: State, fresh: State, files: Sequence[File]) -> Changes:
    """Replace the generated files, each in one step, and write the state last.

    Raises:
        InputError: the folder can't be written.
    """
    changes = Changes()
    try:
        for file in files:
            target = folder / file.path
            if not file.regenerated:
                changes.kept.append(file.path)
            elif target.is_file() and target.read_bytes() == file.content:
                changes.unchanged.append(file.path)
            else:
                _replace(target, file.content)
                changes.written.append(file.path)
        for path in sorted(state.files.keys() - fresh.files.keys()):
            (folder / path).unlink(missing_ok=True)
            changes.removed.append(path)
        _replace(folder / STATE, fresh.to_bytes())
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror}): free it and run the update again."
        ) from error
    return changes


def _replace(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
