"""Writing a bundle: whole or not at all, whoever else writes there and whatever the disk says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgeopt.bundle import staged
from edgeopt.errors import InputError


def test_two_that_make_one_bundle_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with (
        pytest.raises(InputError, match="made by another process meanwhile and is kept"),
        staged(path) as mine,
    ):
        (mine / "file").write_text("mine")
        with staged(path) as other:
            (other / "file").write_text("other")
    assert (path / "file").read_text() == "other"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_of_two_that_replace_a_bundle_the_last_stays(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.mkdir()
    (path / "file").write_text("old")
    with staged(path) as mine:
        (mine / "file").write_text("mine")
        with staged(path) as other:
            (other / "file").write_text("other")
    assert (path / "file").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_bundle(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.mkdir()
    (path / "file").write_text("old")
    with pytest.raises(InputError, match="free some space"), staged(path) as mine:
        (mine / "file").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (path / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
