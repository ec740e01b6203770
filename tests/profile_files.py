"""Profiles that the tests write: the Pixel 7's text, changed in one place or another."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.device_profiles import catalog, load_profile
from edgeopt.errors import InputError

PIXEL7 = (catalog.BUILTIN_FOLDER / "pixel7.toml").read_text()


@pytest.fixture
def user_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty config folder, so that the developer's own profiles stay out of the tests."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("EDGEOPT_CONFIG_DIR", str(folder))
    (folder / "profiles").mkdir()
    return folder / "profiles"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def changed(*replacements: tuple[str, str]) -> str:
    text = PIXEL7
    for old, new in replacements:
        assert old in text, f"pixel7.toml no longer holds {old!r}"
        text = text.replace(old, new)
    return text


def error_of(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_profile(path)
    return str(caught.value)
