"""Python environments of their own for packages that can't share this one, made on first use.

Each stands in the user's cache folder under a name that holds its versions, and is renamed into place when it is
whole, so that a broken installation is never found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import EdgeoptError

Progress = Callable[[str], None]


def environment_home(name: str) -> Path:
    """Where the environment ``name`` stands, or will."""
    from platformdirs import user_cache_dir

    override = os.environ.get("EDGEOPT_CACHE_DIR")
    cache = Path(override) if override else Path(user_cache_dir("edgeopt", appauthor=False))
    return cache / f"{name}-py{sys.version_info.major}{sys.version_info.minor}"


def environment_python(
    name: str,
    *steps: Sequence[str],
    what: str,
    progress: Progress | None = None,
) -> Path:
    """The interpreter of an environment, which is made when it isn't there yet.

    Args:
        name: names package and version, for the folder.
        steps: the arguments of one ``pip install`` after another.
        what: the package as a sentence calls it.
        progress: told when the environment is made (it isn't called when it is there).

    Raises:
        EdgeoptError: no package registry, no wheel for this Python, or no room.
    """
    home = environment_home(name)
    python = home / "bin" / "python"
    if python.exists():
        return python
    if progress is not None:
        progress(f"installing {what} into an environment of its own (once)")
    partial = home.with_name(f"{home.name}.{os.getpid()}")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(partial)], what)
        for step in steps:
            _run([str(partial / "bin" / "python"), "-m", "pip", "install", "-q", *step], what)
        # Scripts in the environment name its folder, the interpreter doesn't: it can be moved into place.
        partial.replace(home)
    except OSError as error:
        if python.exists():  # another process was faster
            return python
        raise EdgeoptError(f"the environment for {what} can't be made in {home.parent}: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return python


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise EdgeoptError(
            f"{what} can't be installed into its own environment: {last} (it needs a package registry once)."
        )
