"""What the user pointed at: one model file, or a bundle whose files are all meant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle import GOLDEN, MANIFEST, check_files, load_bundle
from ..errors import InputError
from ..runtimes import RUNTIME_OF_SUFFIX

_MEASURED_SUFFIXES = (".pte", ".tflite")


@dataclass(frozen=True)
class Artifact:
    """One file to measure. ``precision`` is None when its maker didn't tell; ``inputs`` are golden ones."""

    path: Path
    name: str
    format: str
    precision: str | None = None
    bundle: Path | None = None
    inputs: Path | None = None

    def sha256(self) -> str:
        """The file's digest: what a stored result is matched by."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def find_artifacts(paths: Sequence[Path], formats: Sequence[str] = ()) -> list[Artifact]:
    """The files behind ``paths``, in order.

    Args:
        formats: keep only these ("pte", "tflite"); empty keeps all.

    Raises:
        InputError: nothing there that can be measured, or a bundle's file is not the one that was exported.
    """
    found: list[Artifact] = []
    for path in paths:
        found += _of_bundle(path) if path.is_dir() else [_of_file(path)]
    kept = [artifact for artifact in found if not formats or artifact.format in formats]
    if not kept:
        raise InputError(f"no {' or '.join(formats)} file among {', '.join(a.name for a in found)}.")
    return kept


def _of_file(path: Path) -> Artifact:
    if not path.exists():
        raise InputError(f"{path} does not exist: give a model file or a bundle folder.")
    if path.suffix.lower() not in RUNTIME_OF_SUFFIX:
        raise InputError(f"{path} can't be measured: edgeopt runs {', '.join(RUNTIME_OF_SUFFIX)} files.")
    return Artifact(path, path.name, path.suffix.lower().lstrip("."))


def _of_bundle(folder: Path) -> list[Artifact]:
    if (folder / MANIFEST).is_file():
        bundle = load_bundle(folder)
        golden = folder / GOLDEN
        # A figure of another file would stand under this bundle's name.
        if problems := check_files(bundle, {*(entry.file for entry in bundle.artifacts), GOLDEN}):
            raise InputError(
                f"{folder}: {'; '.join(problems)}: export the bundle again, or give the file itself to measure it."
            )
        found = [
            Artifact(
                bundle.artifact_path(entry),
                entry.file,
                entry.format,
                entry.precision,
                folder,
                golden if golden.is_file() else None,
            )
            for entry in bundle.artifacts
        ]
    else:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _MEASURED_SUFFIXES)
        found = [Artifact(p, p.name, p.suffix.lower().lstrip("."), None, folder) for p in files]
    if not found:
        raise InputError(f"{folder} holds no .pte or .tflite file: give a bundle or a model file.")
    return found
