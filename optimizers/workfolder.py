"""Where passes keep what they have done, by content: ``<cache>/training/<key>``.

A key follows from the model, the data, the versions and every pass up to the one that writes there.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..disk import cache_folder

MAX_BYTES = 2 * 2**30


@dataclass(frozen=True)
class WorkFolder:
    """The place of one pass.

    Attributes:
        root: the folder of all passes.
        key: SHA-256 over everything the pass follows from.
    """

    root: Path
    key: str

    @property
    def result(self) -> Path:
        """The file that holds the finished pass."""
        return self.root / f"{self.key}.pt"

    def part(self, name: str) -> Path:
        """A file of the unfinished pass."""
        return self.root / f"{self.key}.parts" / f"{name}.pt"

    def after(self, what: str) -> WorkFolder:
        """The place of the pass that follows, described by ``what``."""
        return WorkFolder(self.root, hashlib.sha256(f"{self.key}\0{what}".encode()).hexdigest())

    def clear_parts(self) -> None:
        """Delete the unfinished pass's files."""
        shutil.rmtree(self.part("any").parent, ignore_errors=True)


def training_folder() -> Path:
    """The folder of everything that was trained, in the user's cache; what is beyond its bounds is deleted."""
    root = cache_folder() / "training"
    _evict(root)
    return root


def open_work_folder(start: str) -> WorkFolder:
    """The place that passes on the model ``start`` (see ``start_key``) begin from; old results are deleted first."""
    root = training_folder()
    loop = Path(__file__).parent / "training"
    start += "".join(hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(loop.glob("*.py")))
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchao", "torch-pruning"))
    return WorkFolder(root, hashlib.sha256(f"{start} {versions}".encode()).hexdigest())


def _evict(root: Path) -> None:
    """Delete the results that were used longest ago, beyond 2 GiB."""
    if not root.is_dir():
        return
    files = sorted((f for f in root.rglob("*") if f.is_file()), key=lambda f: f.stat().st_mtime)
    total = sum(f.stat().st_size for f in files)
    for file in files:
        if total <= MAX_BYTES:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)
