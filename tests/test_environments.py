"""Environments of their own: made whole or not at all, by one process at a time, and found again offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from edgeopt.errors import EdgeoptError
from edgeopt.runtimes.environments import environment_home, environment_python

_MAKE = """
import sys
from edgeopt.runtimes.environments import environment_python
environment_python("tried-1", *[step.split() for step in sys.argv[1:]], what="tried 1.0 (tiny)",
                   progress=lambda doing: print(doing, flush=True))
"""


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel with one module, made by hand so that no registry is needed."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a pip that knows no registry."""
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    return tmp_path / "cache"


def module_in(python: Path, name: str) -> str:
    """The version of a module as the environment imports it."""
    command = [str(python), "-c", f"import {name}; print({name}.version)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def start(*steps: str) -> subprocess.Popen[str]:
    """Another process that wants the same environment."""
    return subprocess.Popen([sys.executable, "-c", _MAKE, *steps], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_an_environment_is_made_once_and_found_again_without_a_registry(cache: Path, tmp_path: Path) -> None:
    said: list[str] = []
    file = wheel(tmp_path, "tried")
    python = environment_python("tried-1", ("--no-deps", str(file)), what="tried 1.0", progress=said.append)
    assert module_in(python, "tried") == "1.0"
    assert any("once" in line for line in said) and any("unpacking 1 package" in line for line in said)
    file.unlink()
    said.clear()
    again = environment_python("tried-1", ("--no-deps", str(file)), what="tried 1.0", progress=said.append)
    assert again == python and not said
    assert sorted(p.name for p in cache.iterdir()) == [
        environment_home("tried-1").name,
        environment_home("tried-1").name + ".lock",
    ]


@pytest.mark.slow
def test_two_processes_at_once_make_it_once(cache: Path, tmp_path: Path) -> None:
    step = f"--no-deps {wheel(tmp_path, 'tried')}"
    both = [start(step), start(step)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("into an environment of its own" in text for text in said) == 1, said
    assert module_in(environment_home("tried-1") / "bin" / "python", "tried") == "1.0"


@pytest.mark.slow
def test_a_killed_installation_is_taken_up_where_it_stopped(cache: Path, tmp_path: Path) -> None:
    first, second = wheel(tmp_path, "tried"), wheel(tmp_path, "other")
    partial = environment_home("tried-1").with_name(environment_home("tried-1").name + ".part")
    # A package whose installation hangs, as one that is being downloaded does.
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    (hanging / "setup.py").write_text("import time; time.sleep(600)\n")
    steps = [f"--no-deps {first}", f"--no-deps --no-build-isolation {hanging}"]
    process = start(*steps)
    state = partial / "edgeopt-steps.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not state.is_file() or json.loads(state.read_text())["done"] < 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not environment_home("tried-1").exists(), "half an environment stands where whole ones do"
    made = (partial / "pyvenv.cfg").stat().st_mtime_ns
    # pip outlives the process that was killed and still holds the lock: end it, as the user's shell would.
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(hanging).encode() in (entry / "cmdline").read_bytes():
            os.kill(int(entry.name), signal.SIGKILL)
    # A package that was cut off: its metadata are there, the record of its files isn't.
    site = next(partial.glob("lib/python*/site-packages"))
    (site / "other-1.0.dist-info").mkdir()
    (site / "other-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"
    )
    hanging.joinpath("setup.py").unlink()
    hanging.rmdir()
    state.write_text(
        json.dumps({"steps": [["--no-deps", str(first)], ["--no-deps", str(second)]], "done": 1})
    )
    first.unlink()  # it is installed already: nobody may ask for it again
    python = environment_python(
        "tried-1", ("--no-deps", str(first)), ("--no-deps", str(second)), what="tried 1.0"
    )
    assert (python.parent.parent / "pyvenv.cfg").stat().st_mtime_ns == made
    assert module_in(python, "tried") == module_in(python, "other") == "1.0"


@pytest.mark.slow
def test_without_a_network_one_sentence_says_so(cache: Path) -> None:
    with pytest.raises(EdgeoptError, match=r"tried 1\.0 .*no package registry could be reached") as caught:
        environment_python("tried-1", ("tried==1.0",), what="tried 1.0")
    assert "\n" not in str(caught.value)
    assert [p.name for p in cache.iterdir()] == [environment_home("tried-1").name + ".lock"]


@pytest.mark.slow
def test_a_package_that_does_not_exist_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EdgeoptError, match=r"can't be installed.*No matching distribution found for tried"):
        environment_python("tried-1", ("tried==1.0",), what="tried 1.0")


def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EdgeoptError, match="EDGEOPT_CACHE_DIR"):
        environment_python("tried-1", ("tried==1.0",), what="tried 1.0")
