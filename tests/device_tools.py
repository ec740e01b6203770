"""Debian's proot, arm64 busybox and OpenSSH server, unpacked without root into a folder outside git."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgeopt.android_harness.emulator import debian
from edgeopt.android_harness.emulator.cache import cache_dir, locked, replacing

_WANTED = {
    "proot": (("proot", "libtalloc2", "libarchive13"), None),
    "busybox": (("busybox-static",), "arm64"),
    "sshd": (("openssh-server", "libwrap0", "libnsl2", "libtirpc3", "libnss-wrapper"), None),
}


def fetch(name: str) -> Path:
    """The folder with one of the tools; downloaded once. Raises EdgeoptError when it can't be had."""
    home = cache_dir().parent / "test-tools"
    target = home / name
    with locked(home):
        if not target.is_dir():
            names, architecture = _WANTED[name]
            apt = debian.PrivateApt(
                home / f"apt-{name}", debian.mirror(), architecture or debian.host_architecture()
            )
            apt.update()
            packages = [package for package in apt.closure(names) if package.name in names]
            downloads = home / "downloads"
            downloads.mkdir(exist_ok=True)
            with replacing(target) as fresh:
                for archive in apt.download(packages, downloads):
                    debian.unpack(archive, fresh)
            shutil.rmtree(home / f"apt-{name}", ignore_errors=True)
    return target


def library_path(folder: Path) -> str:
    """``LD_LIBRARY_PATH`` for a tool of :func:`fetch`."""
    found = [*folder.glob("usr/lib/*-linux-gnu"), *folder.glob("lib/*-linux-gnu")]
    return ":".join([str(path) for path in found] + os.environ.get("LD_LIBRARY_PATH", "").split(":")).strip(
        ":"
    )
