"""``edgeopt app --update``: what it writes anew, what it leaves to the user, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from app_bundles import DEPLOYMENT, PICTURE, make_bundle

from edgeopt.android_harness.app import generate, update
from edgeopt.bundle import Bundle
from edgeopt.errors import InputError


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "picture", *PICTURE, deployment=DEPLOYMENT)


def test_an_update_keeps_the_users_edits(picture: Bundle, tmp_path: Path) -> None:
    app = tmp_path / "app"
    generate(picture, package="com.acme.vision", output=app)
    (app / "README.md").write_text("my own words\n")
    (app / "gradle/libs.versions.toml").unlink()
    (app / "mine.txt").write_text("mine\n")
    better = make_bundle(tmp_path / "better", *PICTURE, deployment=DEPLOYMENT, seed=1)
    made = update(better, output=app)
    assert (app / "README.md").read_text() == "my own words\n"
    assert not (app / "gradle/libs.versions.toml").exists() and (app / "mine.txt").exists()
    model = "model/src/main/assets/edgeopt/tiny_net/model.pte"
    assert (app / model).read_bytes() == (better.path / "model.pte").read_bytes()
    assert model in made.changes.written
    package = "model/src/main/kotlin/com/acme/vision"
    assert f"{package}/ModelSpec.kt" in made.changes.written  # it holds the hash
    assert f"{package}/TinyNet.kt" in made.changes.unchanged
    again = update(better, output=app)
    assert again.changes.written == [] and not list(app.rglob("*.part"))


BROKEN = {
    "class TinyNet becomes Other": {"name": "Other"},
    "input image is gone; input photo is new": {"inputs": [("photo", "float32", [1, 3, 8, 8])]},
    "input image was float32[1, 3, 8, 8] and is float32[1, 3, 9, 9]": {
        "inputs": [("image", "float32", [1, 3, 9, 9])]
    },
    "input mask is new": {
        "inputs": [("image", "float32", [1, 3, 8, 8]), ("mask", "float32", [1])],
    },
    "output mask is gone": {"outputs": [("logits", "float32", [1, 3])]},
    "output mask was int64[1, 2] and is float32[1, 2]": {
        "outputs": [("logits", "float32", [1, 3]), ("mask", "float32", [1, 2])]
    },
    "the image input's preprocessing is gone; the list of labels is gone": {"deployment": None},
}


@pytest.mark.parametrize("words", BROKEN)
def test_an_update_that_breaks_callers_is_refused(picture: Bundle, tmp_path: Path, words: str) -> None:
    app = tmp_path / "app"
    generate(picture, package="com.acme.vision", output=app)
    before = {path: path.read_bytes() for path in app.rglob("*") if path.is_file()}
    arguments: dict[str, Any] = {"inputs": PICTURE[0], "outputs": PICTURE[1], "deployment": DEPLOYMENT}
    other = make_bundle(tmp_path / "other", **{**arguments, **BROKEN[words]})
    with pytest.raises(InputError) as caught:
        update(other, output=app)
    assert f"would break: {words} (--force" in str(caught.value)
    assert before == {path: path.read_bytes() for path in app.rglob("*") if path.is_file()}
    update(other, output=app, force=True)
    assert not (app / "model/src/main/kotlin/com/acme/vision/TinyNet.kt").exists() or "class" not in words


def test_inputs_in_another_order_break_callers(tmp_path: Path) -> None:
    two = [("left", "float32", [4]), ("right", "float32", [4])]
    generate(
        make_bundle(tmp_path / "one", two, PICTURE[1]), package="com.acme.vision", output=tmp_path / "app"
    )
    swapped = make_bundle(tmp_path / "two", two[::-1], PICTURE[1])
    with pytest.raises(InputError, match=r"would break: the inputs come in another order \(right, left\)"):
        update(swapped, output=tmp_path / "app")


def test_another_output_breaks_nobody(picture: Bundle, tmp_path: Path) -> None:
    generate(picture, package="com.acme.vision", output=tmp_path / "app")
    more = make_bundle(
        tmp_path / "more", PICTURE[0], [*PICTURE[1], ("extra", "float32", [2])], deployment=DEPLOYMENT
    )
    update(more, output=tmp_path / "app")
    wrapper = tmp_path / "app/model/src/main/kotlin/com/acme/vision/TinyNet.kt"
    assert "val extra: FloatArray" in wrapper.read_text()


def test_edits_in_generated_files_are_not_lost(picture: Bundle, tmp_path: Path) -> None:
    app = tmp_path / "app"
    generate(picture, package="com.acme.vision", output=app)
    wrapper = app / "model/src/main/kotlin/com/acme/vision/TinyNet.kt"
    wrapper.write_text(wrapper.read_text() + "// mine\n")
    with pytest.raises(InputError, match=r"edited by hand: model/src/.*/TinyNet.kt; move the edits"):
        update(picture, output=app)
    update(picture, output=app, force=True)
    assert "// mine" not in wrapper.read_text()


def test_an_interrupted_update_goes_on(picture: Bundle, tmp_path: Path) -> None:
    """Some files are new and the state is old: what a killed update leaves behind."""
    app = tmp_path / "app"
    generate(picture, package="com.acme.vision", output=app)
    state = (app / "edgeopt-app.json").read_bytes()
    better = make_bundle(tmp_path / "better", *PICTURE, deployment=DEPLOYMENT, seed=1)
    update(better, output=app)
    (app / "edgeopt-app.json").write_bytes(state)
    assert update(better, output=app).changes.written == []


def test_a_newer_runtime_is_told(picture: Bundle, tmp_path: Path) -> None:
    generate(picture, package="com.acme.vision", output=tmp_path / "app")
    newer = make_bundle(tmp_path / "newer", *PICTURE, deployment=DEPLOYMENT, versions={"executorch": "1.6.0"})
    made = update(newer, output=tmp_path / "app")
    assert made.warnings == (
        "the model now needs executorch 1.6.0 (before: 1.5.1): set it in your build files",
    )


def test_another_runtime_is_refused(picture: Bundle, tmp_path: Path) -> None:
    generate(picture, package="com.acme.vision", output=tmp_path / "app")
    with pytest.raises(InputError, match=r"is built on executorch and model.tflite needs litert"):
        update(picture, output=tmp_path / "app", file="model.tflite")
