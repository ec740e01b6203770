"""What killed processes leave: temporary folders and half-written cache entries, removed by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgeopt.converters import cache
from edgeopt.models.findings import Finding
from edgeopt.runtimes import scratch
from edgeopt.runtimes.scratch import ScratchFolder

_HOLDS = """
import sys, time
from edgeopt.runtimes.scratch import ScratchFolder
folder = ScratchFolder("test")
print(folder.name, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_swept", set())
    return tmp_path


def _age(*folders: Path, seconds: float = 3600.0) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - seconds,) * 2)


def _owner(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLDS],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_the_folder_of_a_killed_process_goes_with_the_next_one(temporary: Path) -> None:
    child, left = _owner(temporary)
    (left / "half").mkdir()
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    _age(left)
    with ScratchFolder("test") as mine:
        assert [str(p) for p in temporary.iterdir()] == [mine]
    assert not list(temporary.iterdir())


def test_what_may_still_be_used_is_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child, used = _owner(temporary)
    gone = subprocess.Popen(["true"])
    gone.wait()
    young = temporary / f"edgeopt-test-{gone.pid:07d}-abcd1234"
    users = [temporary / name for name in ("edgeopt-results", "edgeopt-my-own-folder", "edgeopt-a-1-b")]
    real = temporary / "elsewhere"
    link = temporary / f"edgeopt-test-{gone.pid:07d}-abcd1235"
    for folder in (young, *users, real):
        folder.mkdir()
    link.symlink_to(real)
    _age(used, *users, real)
    try:
        with ScratchFolder("test"):
            assert all(p.exists() for p in (used, young, *users, real, link))
        # In a container the owner's number means nothing here: the lock still holds.
        monkeypatch.setattr(scratch, "_alive", lambda process: False)
        assert not scratch._abandoned(used)
    finally:
        child.kill()
        child.communicate(timeout=30)
    assert scratch._abandoned(used)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conversion in the cache under the key ``k``."""
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "model.pte").write_bytes(b"model")
    cache.keep("k", tmp_path / "model.pte", [Finding("note", "slow")])
    return tmp_path / "cache" / "conversions"


def test_a_damaged_cache_entry_is_made_anew(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pte"
    assert cache.fetch("k", out) == [Finding("note", "slow")] and out.read_bytes() == b"model"
    out.unlink()
    record = (kept / "k.json").read_text()
    for damaged in ("", "[]", "{}", '[{"a": 1}]', record.replace("severity", "sev"), record[:-5]):
        (kept / "k.json").write_text(damaged)
        assert cache.fetch("k", out) is None and not out.exists()
    (kept / "k.json").write_text(record)
    (kept / "k").write_bytes(b"mod")
    assert cache.fetch("k", out) is None and not out.exists()


def test_half_written_cache_entries_do_not_stay(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, busy = kept / "a.123.partial", kept / "b.124.partial"
    killed.write_bytes(b"half")
    busy.write_bytes(b"half")
    _age(killed, seconds=7200.0)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[:1])
        raise OSError(28, "No space left on device")

    cache.keep("other", tmp_path / "model.pte", [])
    assert not killed.exists() and busy.exists()
    busy.unlink()
    monkeypatch.setattr(Path, "write_bytes", full)
    cache.keep("third", tmp_path / "model.pte", [])
    assert {p.name for p in kept.iterdir()} == {"k", "k.json", "other", "other.json"}
