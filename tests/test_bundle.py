"""Writing a bundle: whole or not at all, whoever else writes there and whatever the disk says."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from app_bundles import PICTURE, make_bundle

from edgeopt.bundle import MANIFEST, check_output, load_bundle, staged
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


def test_a_manifest_that_names_other_files_is_refused(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "b", *PICTURE)
    manifest, model = made.path / MANIFEST, made.artifacts[0].file
    whole = manifest.read_text()
    (tmp_path / "secret").write_bytes((made.path / model).read_bytes())
    manifest.write_text(whole.replace(f'"{model}"', '"../secret"'))
    with pytest.raises(InputError, match=r"was changed: '\.\./secret' is no file in the bundle"):
        load_bundle(made.path)
    data = json.loads(whole)
    del data["files"][model]
    manifest.write_text(json.dumps(data))
    with pytest.raises(InputError, match="has no hash of"):
        load_bundle(made.path)


def test_an_output_below_a_file_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match=r"notes is a file, not a folder; give another -o"):
        check_output(tmp_path / "notes" / "net", force=False)
