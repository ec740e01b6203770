"""Full disks: the place that is full is named, whoever noticed it and in whatever words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeopt import disk
from edgeopt.cli.app import main
from edgeopt.converters import jobs
from edgeopt.converters.workers import Task, run_tasks
from edgeopt.disk import disk_trouble, written_whole
from edgeopt.errors import InputError
from edgeopt.models.findings import Finding, said_once


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, dict[Path, int]]:
    """A folder for results, one for temporary files, and how many bytes are free in each."""
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    free = {out: 10**9, temporary: 10**9}

    class Usage(NamedTuple):
        free: int

    def usage(place: Path) -> Usage:
        return Usage(next((free[p] for p in (place, *place.parents) if p in free), 10**12))

    monkeypatch.setattr(disk, "disk_usage", usage)
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(temporary))
    return out, temporary, free


def _os_error(number: int) -> str:
    return str(OSError(number, os.strerror(number)))


def test_the_place_that_is_full_is_named(places: tuple[Path, Path, dict[Path, int]]) -> None:
    out, temporary, free = places
    hidden = out / ".bundle.123-abc.partial"
    free[out] = 4096
    assert disk_trouble(_os_error(errno.ENOSPC), hidden) == (
        f"the disk of {out} is full",
        "free some space there, or give another -o",
    )
    free[out], free[temporary] = 10**9, 0
    what, helps = disk_trouble(_os_error(errno.EDQUOT), hidden) or ("", "")
    assert what == f"your quota for {temporary} is used up" and "TMPDIR" in helps
    what, helps = disk_trouble(_os_error(errno.EFBIG), hidden) or ("", "")
    assert str(out) in what and "ulimit -f" in helps
    free[temporary] = 10**9
    assert disk_trouble(_os_error(errno.ENOSPC)) == ("a disk is full", "free some space")
    assert disk_trouble(_os_error(errno.EACCES), out) is None


def test_an_exporter_that_ends_itself_over_a_full_disk(tmp_path: Path) -> None:
    """LiteRT's converter, written in C++, says it on stderr and ends the process."""

    def convert(progress: object) -> None:
        os.write(2, b"LLVM ERROR: IO failure on output stream: No space left on device\n")
        os._exit(1)

    (outcome,) = run_tasks([Task("t", convert)], max_parallel=1, on_progress=lambda *_: None)
    wanted = jobs.Wanted("tflite", None, "model.tflite")  # type: ignore[arg-type]
    (made,) = jobs._collect(outcome, [(0, wanted)], tmp_path).values()
    assert made.findings[0].message.startswith("the disk of ") and "space" in str(made.findings[0].suggestion)


def test_what_several_formats_share_is_said_once() -> None:
    full = [Finding("error", "the disk is full", format=f, suggestion="free some") for f in ("pte", "tflite")]
    assert said_once(full) == "pte and tflite: the disk is full; free some"
    assert said_once([*full, Finding("error", "odd")]).endswith("; odd")


def test_a_full_disk_is_no_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edgeopt.device_profiles.list_profiles", full)
    assert main(["profiles"]) == 2
    said = capsys.readouterr().err
    assert "full; free some space" in " ".join(said.split()) and "internal" not in said


def test_a_file_is_written_whole_or_refused_in_a_sentence(tmp_path: Path) -> None:
    """``--roofline`` into a read-only folder was an internal error."""
    place = tmp_path / "roof.svg"
    place.write_text("old")
    sentence = r"--roofline .*roof\.svg can't be written: No space left.*another place"
    with pytest.raises(InputError, match=sentence), written_whole(place, "--roofline") as partial:
        partial.write_text("half")
        raise OSError(errno.EIO, "No space left for names")
    assert place.read_text() == "old" and list(tmp_path.iterdir()) == [place]
    with written_whole(place, "--roofline") as partial:
        partial.write_text("new")
    assert place.read_text() == "new" and list(tmp_path.iterdir()) == [place]
    for wrong, words in (
        (tmp_path / "no" / "r.svg", "there is no folder"),
        (tmp_path, "that is a folder; name a file"),
        (Path("/proc/r.svg"), "the folder /proc can't be written to|No such file"),
    ):
        with pytest.raises(InputError, match=words), written_whole(wrong, "--plot") as partial:
            partial.write_text("x")


def test_one_cache_folder_for_all_and_home_is_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgeopt.android_harness.emulator.cache import cache_dir
    from edgeopt.doctor import _emulator
    from edgeopt.runtimes.environments import environment_home

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", "~/kept")
    (tmp_path / "kept" / "emulator" / "sysroot").mkdir(parents=True)
    assert cache_dir() == tmp_path / "kept" / "emulator"
    assert environment_home("x").parent == tmp_path / "kept"
    assert _emulator().found == str(cache_dir())
