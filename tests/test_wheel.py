"""The wheel, built from this tree, works outside it: profiles, templates and C++ sources travel in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy of the tracked files, as a clone would have them: no build leftovers.
    source = out / "source"
    source.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, files.decode().split("\0")):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(out.glob("edgeopt-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``edgeopt`` is the wheel's, with this interpreter's other packages."""
    home = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    return {**os.environ, "PYTHONPATH": str(home)}


def run(environment: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeopt", *arguments], env=environment, cwd=cwd, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_data_travels_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, patterns in {
        "device_profiles": ("*.toml",),
        "android_harness": ("**/*.cpp", "**/*.h", "**/*.c", "**/*.toml", "**/*.j2"),
    }.items():
        for pattern in patterns:
            for file in (ROOT / folder).glob(pattern):
                assert f"edgeopt/{file.relative_to(ROOT)}" in names
    assert "edgeopt/py.typed" in names
    assert not any(name.startswith(("edgeopt/tests", "edgeopt/docs")) for name in names)


def test_the_wheel_is_what_runs(installed: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import edgeopt; print(edgeopt.__file__)"],
        env=installed, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(installed["PYTHONPATH"])


def test_profiles_outside_the_checkout(installed: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, tmp_path, "profiles", "show", "pixel7")
    assert done.returncode == 0, done.stderr
    assert "cortex-x1" in done.stdout


def test_export_outside_the_checkout(installed: dict[str, str], tmp_path: Path) -> None:
    """A user's own package in the folder the command runs in, with its function for the inputs."""
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(
        "import torch\n"
        "def net():\n    return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())\n"
        "def example_inputs():\n    return torch.ones(1, 8)\n"
    )
    done = run(
        installed, tmp_path, "export", "my_pkg.models:net", "--profile", "pixel7", "--precision", "fp32"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "net_pixel7").iterdir()) == [
        "SUMMARY.md", "golden.npz", "manifest.json", "model.pte", "model.tflite",
    ]  # fmt: skip
    assert run(installed, tmp_path, "verify", "net_pixel7").returncode == 0
