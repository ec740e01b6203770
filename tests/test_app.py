"""``edgeopt app``: names, files, formatting and errors. Nothing is compiled here."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from app_bundles import DEPLOYMENT, DYNAMIC, ODD_NAMES, PICTURE, make_bundle
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.android_harness.app import generate
from edgeopt.android_harness.app.naming import KEYWORDS, camel, class_name, snake, unique
from edgeopt.bundle import Bundle, load_bundle
from edgeopt.cli import main
from edgeopt.errors import InputError
from edgeopt.models.deployment import check_deployment
from edgeopt.models.tensors import TensorInfo

GOLDEN = Path(__file__).parent / "golden_apps"
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Two trees a platform: the second holds only the files that differ from the first.
VARIANTS = {
    "android": ("model.pte", "model.tflite"),
    "swift": ("model.pte",),
    "cpp": ("model.pte", "model.tflite"),
}


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "picture", *PICTURE, deployment=DEPLOYMENT)


@pytest.fixture(scope="session")
def apps(picture: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every variant of the picture bundle, and of one with odd names."""
    root = tmp_path_factory.mktemp("apps")
    odd = make_bundle(root / "bundle", *ODD_NAMES, name="4 größe/модель")
    made = {}
    for platform, files in VARIANTS.items():
        for file in files:
            for name, bundle in (("picture", picture), ("odd", odd)):
                output = root / f"{platform}-{name}-{file}"
                generate(bundle, package="com.acme.vision", output=output, platform=platform, file=file)
                made[platform, f"{name}-{file}"] = output
    return made


def texts(folder: Path) -> dict[str, str]:
    """The text files below a folder, without golden data, models, and what holds their hashes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and path.suffix not in (".bin", ".pte", ".tflite")
            and path.name != "edgeopt-app.json"
        ):
            found[name] = path.read_text(encoding="utf-8")
    return found


# Names


@given(st.text(max_size=40))
def test_any_name_becomes_an_identifier(name: str) -> None:
    for made in (camel(name, "input0"), class_name(name), snake(name)):
        assert IDENTIFIER.fullmatch(made) and made.isascii()
        assert made not in KEYWORDS


@given(st.lists(st.text(max_size=6), max_size=8))
def test_names_stay_apart(names: list[str]) -> None:
    made = unique([camel(name, f"input{i}") for i, name in enumerate(names)])
    assert len({name.lower() for name in made}) == len(names)
    assert all(IDENTIFIER.fullmatch(name) and name not in KEYWORDS for name in made)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("class", "classValue"),
        ("my input", "myInput"),
        ("pixel_values", "pixelValues"),
        ("3d points", "input3dPoints"),
        ("größe", "grosse"),
        ("入力", "input0"),
        ("inputIds", "inputIds"),
        ("", "input0"),
    ],
)
def test_names_read_as_a_person_would_write_them(name: str, made: str) -> None:
    assert camel(name, "input0") == made


def test_class_names_keep_clear_of_the_generated_code() -> None:
    assert class_name("model") == "ModelNet"
    assert class_name("mobilenet_v2") == "MobilenetV2"
    assert class_name("4 größe") == "Model4Grosse"
    assert class_name("модель") == "EdgeModel"


# Files


@pytest.mark.parametrize("platform", VARIANTS)
def test_templates_give_what_stands_in_golden_apps(apps: dict[tuple[str, str], Path], platform: str) -> None:
    """A changed template shows as a diff here; EDGEOPT_WRITE_GOLDEN=1 writes the new files."""
    base: dict[str, str] = {}
    problems = []
    for file in VARIANTS[platform]:
        found = texts(apps[platform, f"picture-{file}"])
        folder = GOLDEN / f"{platform}-{Path(file).suffix[1:]}"
        mine = {
            name.replace(".gitignore", "gitignore"): text
            for name, text in found.items()
            if base.get(name) != text
        }
        base = base or found
        if os.environ.get("EDGEOPT_WRITE_GOLDEN"):
            _write(folder, mine)
        wanted = texts(folder)
        for name in sorted(mine.keys() | wanted.keys()):
            lines = difflib.unified_diff(
                wanted.get(name, "").splitlines(),
                mine.get(name, "").splitlines(),
                f"golden/{name}",
                f"generated/{name}",
                lineterm="",
            )
            problems += list(lines)
    assert not problems, "\n" + "\n".join(problems)


def _write(folder: Path, files: dict[str, str]) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_the_same_bundle_gives_the_same_bytes(picture: Bundle, tmp_path: Path) -> None:
    for platform in VARIANTS:
        one, two = (tmp_path / f"{platform}{i}" for i in (1, 2))
        for output in (one, two):
            generate(picture, package="com.acme.vision", output=output, platform=platform)
        names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
        assert names == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


CODE = (".kt", ".kts", ".swift", ".cpp", ".h", ".txt", ".toml", ".xml", ".pro", ".properties")


def test_generated_code_is_formatted(apps: dict[tuple[str, str], Path]) -> None:
    """What ktlint checks first, on every text file; long lines only in pages for people."""
    problems = []
    for folder in apps.values():
        for name, text in texts(folder).items():
            if not name.endswith(CODE) or name.endswith("labels.txt"):
                continue
            problems += [f"{folder.name}/{name}: {problem}" for problem in _format_problems(name, text)]
    assert not problems, "\n".join(problems)


def _format_problems(name: str, text: str) -> list[str]:
    problems = []
    if not text.endswith("\n") or text.endswith("\n\n"):
        problems.append("does not end with one newline")
    if "\n\n\n" in text:
        problems.append("has two blank lines in a row")
    step = 4 if name.endswith((".kt", ".kts", ".swift")) else 1
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip(" "))
        if "\t" in line or line != line.rstrip():
            problems.append(f"{number}: tab or trailing white space")
        if len(line) > 120:
            problems.append(f"{number}: {len(line)} characters")
        if line.startswith("import ") and line.endswith("*"):
            problems.append(f"{number}: wildcard import")
        if indent % step and not line.lstrip().startswith("*"):
            problems.append(f"{number}: indented by {indent}")
    if name.endswith(".kt"):
        imports = [line for line in text.splitlines() if line.startswith("import ")]
        if imports != sorted(set(imports)):
            problems.append("imports are not sorted")
        unused = [i for i in imports if len(re.findall(rf"\b{i.split('.')[-1]}\b", text)) < 2]
        problems += [f"unused: {line}" for line in unused]
        if re.search(r"\n\n *[})]", text) or re.search(r"[{(]\n\n", text):
            problems.append("a blank line beside a bracket")
    return problems


def test_build_files_can_be_read(apps: dict[tuple[str, str], Path]) -> None:
    for (platform, name), folder in apps.items():
        if platform != "android":
            continue
        catalog = tomllib.loads((folder / "gradle/libs.versions.toml").read_text())
        runtime, version = ("executorch", "1.5.1") if name.endswith("pte") else ("litert", "2.3.0")
        assert catalog["versions"][runtime] == version
        used = set(re.findall(r"libs\.([a-z.]+)\)", (folder / "model/build.gradle.kts").read_text()))
        assert {alias.replace(".", "-") for alias in used if "plugins" not in alias} == set(
            catalog["libraries"]
        )
        for manifest in folder.rglob("AndroidManifest.xml"):
            xml.etree.ElementTree.parse(manifest)
        assert "minSdk = 26" in (folder / "model/build.gradle.kts").read_text()


def test_the_model_and_its_labels_are_assets(apps: dict[tuple[str, str], Path], picture: Bundle) -> None:
    folder = apps["android", "picture-model.tflite"]
    assets = folder / "model/src/main/assets/edgeopt/tiny_net"
    assert (assets / "model.tflite").read_bytes() == (picture.path / "model.tflite").read_bytes()
    assert (assets / "labels.txt").read_text() == 'cat\ndog "x"\nbird\n'
    assert 'noCompress += "tflite"' in (folder / "model/build.gradle.kts").read_text()


def test_pixels_are_never_guessed(tmp_path: Path) -> None:
    """Without mean and std there is no function for pictures."""
    bundle = make_bundle(tmp_path / "bundle", *PICTURE)
    generate(bundle, package="com.acme.vision", output=tmp_path / "app")
    assert not list((tmp_path / "app").rglob("Pixels.kt"))
    assert "Bitmap" not in next((tmp_path / "app").rglob("TinyNet.kt")).read_text()


# What the export is told

OUTPUTS = (TensorInfo("scores", (1, 3), "float32"),)
SOURCE: Any = SimpleNamespace(inputs=(TensorInfo("image", (1, 3, 8, 8), "float32"),), outputs=OUTPUTS)


def test_labels_and_pixel_statistics_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\n")
    assert check_deployment(SOURCE, tmp_path / "labels.txt", "0.5, 0.4,0.3", [0.2, 0.2, 0.2]) == {
        "labels": ["cat", "dog", "bird"],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.2],
    }
    assert check_deployment(SOURCE, None, None, None) is None


@pytest.mark.parametrize(
    ("labels", "mean", "std", "words"),
    [
        (
            ["a", "b"],
            None,
            None,
            "--labels has 2 names, and no output has a last axis of 2: the outputs are scores",
        ),
        ("nowhere.txt", None, None, "--labels nowhere.txt can't be read"),
        (None, "0.5", None, "--mean and --std belong together"),
        (None, "0.5", "0.5", "--mean has 1 figures, and no input is an image with as many channels"),
        (None, "a,b,c", "1,1,1", "--mean a,b,c is not a list of figures"),
        (None, "0,0,nan", "1,1,1", "--mean 0,0,nan is not a list of figures"),
        (None, "0,0,0", "1,0,1", "--std must be above 0"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(labels: Any, mean: Any, std: Any, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        check_deployment(SOURCE, labels, mean, std)


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["app", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def test_the_command_writes_and_updates(picture: Bundle, tmp_path: Path, capsys) -> None:
    app = tmp_path / "android"
    code, out, _ = run(capsys, picture.path, "--package", "com.acme.vision", "-o", app)
    assert code == 0
    assert "TinyNet for android" in out and "image: float32[1, 3, 8, 8]" in out
    code, out, _ = run(capsys, picture.path, "--update", "-o", app, "--json")
    envelope = json.loads(out)
    assert code == 0 and envelope["ok"] and envelope["command"] == "app"
    assert envelope["class"] == "TinyNet" and envelope["files"]["written"] == []
    assert "README.md" in envelope["files"]["kept"]


ERRORS = {
    "is not a package name": ["--package", "Vision"],
    "has the reserved word 'class'": ["--package", "com.class.vision"],
    "begins with java, which belongs to the platform": ["--package", "java.lang"],
    "--package is missing": [],
    "--platform 'ios' is not known: choose from android, swift, cpp": [
        "--package",
        "a.b",
        "--platform",
        "ios",
    ],
    "has no file 'x.pte': choose from model.pte, model.tflite": ["--package", "a.b", "--file", "x.pte"],
    "there is no swift package": ["--package", "a.b", "--platform", "swift", "--file", "model.tflite"],
    "it has no edgeopt-app.json": ["--update"],
    "--force goes with --update": ["--package", "a.b", "--force"],
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors_are_one_sentence(picture: Bundle, tmp_path: Path, capsys, words: str) -> None:
    code, out, err = run(capsys, picture.path, "-o", tmp_path / "app", *ERRORS[words])
    assert code == 2 and out == "" and err.startswith("error: ") and words in err
    assert not (tmp_path / "app").exists()


def test_what_stands_there_is_never_replaced(picture: Bundle, tmp_path: Path, capsys) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/notes.txt").write_text("mine")
    code, _, err = run(capsys, picture.path, "-o", tmp_path / "app", "--package", "a.b")
    assert code == 2 and "exists already (it is not empty)" in err
    (tmp_path / "app/notes.txt").unlink()
    assert run(capsys, picture.path, "-o", tmp_path / "app", "--package", "a.b")[0] == 0
    code, _, err = run(capsys, picture.path, "-o", tmp_path / "app", "--package", "a.b")
    assert code == 2 and "--update renews the model in it" in err
    code, _, err = run(capsys, picture.path, "-o", tmp_path / "app", "--update", "--package", "a.c")
    assert code == 2 and "was made with --package a.b, not a.c" in err


def test_failed_and_corrupt_bundles_are_refused(tmp_path: Path, capsys) -> None:
    failed = make_bundle(tmp_path / "failed", *PICTURE, status="failed")
    code, _, err = run(capsys, failed.path, "-o", tmp_path / "app", "--package", "a.b")
    assert code == 2 and "failed its gates" in err
    code, _, err = run(capsys, failed.path, "-o", tmp_path / "app", "--package", "a.b", "--file", "model.pte")
    assert code == 2 and "model.pte" in err and "failed its checks" in err
    corrupt = make_bundle(tmp_path / "corrupt", *PICTURE)
    (corrupt.path / "model.pte").write_bytes(b"something else")
    code, _, err = run(capsys, corrupt.path, "-o", tmp_path / "app", "--package", "a.b")
    assert code == 2 and "model.pte is not the file that was exported" in err
    (corrupt.path / "manifest.json").write_text("{")
    code, _, err = run(capsys, corrupt.path, "-o", tmp_path / "app", "--package", "a.b")
    assert code == 2 and "not valid JSON" in err
    assert not (tmp_path / "app").exists()


def test_a_damaged_state_is_told(picture: Bundle, tmp_path: Path, capsys) -> None:
    generate(picture, package="com.acme.vision", output=tmp_path / "app")
    for text in ("{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "platform": "android"}'):
        (tmp_path / "app/edgeopt-app.json").write_text(text)
        code, _, err = run(capsys, picture.path, "-o", tmp_path / "app", "--update")
        assert code == 2 and "edgeopt-app.json is damaged" in err


def test_what_the_phone_classes_cannot_carry_is_refused(tmp_path: Path) -> None:
    dynamic = make_bundle(tmp_path / "dynamic", [("ids", "int64", ["n"])], [("y", "float32", [1])])
    with pytest.raises(InputError, match=r"has dynamic sizes, which LiteRT's Kotlin classes can't resize"):
        generate(dynamic, package="a.b", output=tmp_path / "app", file="model.tflite")
    halves = make_bundle(tmp_path / "halves", [("x", "float16", [2])], [("y", "float32", [1])])
    with pytest.raises(InputError, match=r"'x' is float16, which litert's android classes don't take"):
        generate(halves, package="a.b", output=tmp_path / "app", file="model.tflite")


def test_a_board_on_a_phone_platform_is_told(tmp_path: Path) -> None:
    board = make_bundle(tmp_path / "board", *PICTURE, profile="raspberry_pi_4")
    made = generate(board, package="a.b", output=tmp_path / "app")
    assert made.warnings == (
        "the bundle was made for Raspberry Pi 4 Model B (4 GB), which runs linux, not android",
    )
    assert generate(board, package="a.b", output=tmp_path / "cpp", platform="cpp").warnings == ()


def test_dynamic_sizes_are_parameters(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", *DYNAMIC, formats=("pte",))
    made = generate(load_bundle(bundle.path), package="a.b", output=tmp_path / "app")
    assert made.context.dims == ("batch", "seqLen")
    assert made.context.threads == 4  # the Pixel 7's two middle and two big cores
