"""Python environments of their own for packages that can't share this one, made on first use.

Each stands in the user's cache folder under a name that holds its versions. It is made beside that place, by one
process at a time, and renamed into place when it is whole: a broken installation is never found, a second process
waits for the first, and one that was killed is taken up by the next where it stopped.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..disk import cache_folder
from ..errors import EdgeoptError

Progress = Callable[[str], None]

_STATE = "edgeopt-steps.json"
_UNREACHABLE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|Max retries|name resolution|unreachable|ProxyError"
)


def environment_home(name: str) -> Path:
    """Where the environment ``name`` stands, or will."""
    return cache_folder() / f"{name}-py{sys.version_info.major}{sys.version_info.minor}"


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
        progress: told what is being installed (it isn't called when the environment is there).

    Raises:
        EdgeoptError: no package registry, no wheel for this Python, or no room.
    """
    home = environment_home(name)
    python = home / "bin" / "python"
    if python.exists():
        return python
    say = progress or (lambda doing: None)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_name(f"{home.name}.lock"), what, say) as lock:
            if not python.exists():
                say(f"installing {what} into an environment of its own (once)")
                partial = home.with_name(f"{home.name}.part")
                _fill(partial, steps, what, say, lock)
                # Scripts in the environment name its folder, the interpreter doesn't: it can be moved into place.
                partial.replace(home)
    except OSError as error:
        raise EdgeoptError(
            f"the environment for {what} can't be made in {home.parent}: {error.strerror or error}; set "
            "EDGEOPT_CACHE_DIR to a folder that can be written."
        ) from error
    return python


@contextmanager
def _locked(path: Path, what: str, say: Progress) -> Iterator[int]:
    """Hold the lock of an environment, and give its descriptor: who comes second waits."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that installs {what}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def _fill(folder: Path, steps: Sequence[Sequence[str]], what: str, say: Progress, lock: int) -> None:
    """Make the environment in ``folder``, or finish one that a killed process left there."""
    state, python = folder / _STATE, folder / "bin" / "python"
    wanted = [list(step) for step in steps]
    done = 0
    try:
        found = json.loads(state.read_text())
        done = found["done"] if found["steps"] == wanted else -1
    except (OSError, ValueError, KeyError, TypeError):
        done = -1
    try:
        if done < 0:
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], what, say, lock)
            done = 0
            state.write_text(json.dumps({"steps": wanted, "done": done}))
        _drop_unfinished(folder)
        for step in wanted[done:]:
            pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            _run([*pip, "--progress-bar", "off", *step], what, say, lock)
            done += 1
            state.write_text(json.dumps({"steps": wanted, "done": done}))
    except (EdgeoptError, OSError):
        # Nothing of a failed installation is worth its room; what was interrupted is (it stays).
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _drop_unfinished(folder: Path) -> None:
    """Forget packages whose installation was cut off: pip writes RECORD last, and takes any metadata for a whole."""
    for metadata in folder.glob("lib/python*/site-packages/*.dist-info"):
        if not (metadata / "RECORD").is_file():
            shutil.rmtree(metadata, ignore_errors=True)


def _run(command: list[str], what: str, say: Progress, lock: int) -> None:
    """Run one step and pass on what pip says it is at.

    Raises:
        EdgeoptError: it failed, with the reason.
    """
    said: list[str] = []
    # The child holds the lock too: if this process is killed, the next one waits until pip has ended.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.strip())
            doing = _doing(line)
            if doing:
                say(f"installing {what.partition(' (')[0]}: {doing}")
    if child.returncode:
        raise EdgeoptError(f"{what} can't be installed into its own environment: {_reason(said)}.")


def _doing(line: str) -> str | None:
    """What a line of pip's tells a user who waits."""
    line = line.strip()
    if match := re.match(r"(?:Downloading|Using cached) (\S+?)(?:-py\S+|-cp\S+)?\.whl\S* \((.+)\)", line):
        return f"{match[1].rpartition('/')[2]} ({match[2]})"
    if line.startswith("Installing collected packages:"):
        return f"unpacking {len(line.partition(':')[2].split(','))} packages"
    return None


def _reason(said: Sequence[str]) -> str:
    if any(_UNREACHABLE.search(line) for line in said):
        return "no package registry could be reached (it needs one once; afterwards it works offline)"
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return (errors or [line for line in said if line] or ["no message"])[-1].rstrip(".")[:200]
