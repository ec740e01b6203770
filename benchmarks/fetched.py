"""Models and data from package registries, fetched once with their ordinary clients into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from edgeopt.disk import cache_folder


def python_package(name: str, version: str, *, source: bool = False) -> Path:
    """The unpacked wheel (or sdist) of a package from PyPI; nothing is installed."""

    def fetch(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{name}=={version}"]
        _run([*command, *(["--no-binary", ":all:", "--no-build-isolation"] if source else [])], folder)
        (archive,) = folder.iterdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(folder, filter="data")
        archive.unlink()

    return _once(f"{name}-{version}", fetch)


def debian_package(name: str) -> Path:
    """The unpacked package of the machine's Debian release."""

    def fetch(folder: Path) -> None:
        _run(["apt-get", "download", "-qq", name], folder)
        (archive,) = folder.glob("*.deb")
        _run(["dpkg", "-x", archive.name, "."], folder)
        archive.unlink()

    return _once(f"debian-{name}", fetch)


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    """The folder ``name``, filled beside its place and renamed, so that half a package is never found."""
    folder = cache_folder() / "packages" / name
    if not folder.is_dir():
        part = folder.with_name(f"{name}.{os.getpid()}.part")
        part.mkdir(parents=True)
        try:
            fetch(part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _run(command: list[str], where: Path) -> None:
    subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
