"""Fixtures that several test files share."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from device_fixtures import adb_server, phones, ssh_server  # noqa: F401 - fixtures of the device tests
from hypothesis import HealthCheck, settings
from keras_models import keras_folder, keras_python, trainings  # noqa: F401 - fixtures of the Keras tests
from profile_files import user_folder  # noqa: F401 - a fixture of the profile tests

# How fast inputs are made says how busy the machine is, nothing of what is tested.
settings.register_profile("busy machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machines")


@pytest.fixture(scope="session")
def runnable(request: pytest.FixtureRequest) -> Path:
    """A folder with small .pte, .tflite and .pt2 files (tests/models/make_runnable.py), made once a version."""
    script = Path(__file__).parent / "models" / "make_runnable.py"
    versions = [metadata.version(package) for package in ("torch", "executorch", "litert-torch")]
    key = hashlib.sha256(script.read_bytes() + "".join(versions).encode()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("edgeopt-runnable")) / key
    if not (folder / "expected.npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def emulated_models(request: pytest.FixtureRequest) -> Path:
    """The folder that tests/models/make_emulated.py fills, and the emulator set up to run it."""
    from edgeopt.android_harness.emulator import setup

    if shutil.which("apt-get") is None:
        pytest.skip("the emulator's toolchain comes as Debian packages, and apt-get isn't here")
    setup()
    script = Path(__file__).parent / "models" / "make_emulated.py"
    versions = [metadata.version(package) for package in ("torch", "executorch", "litert-torch")]
    key = hashlib.sha256(script.read_bytes() + "".join(versions).encode()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("edgeopt-emulated")) / key
    if not (folder / "golden.npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder for this test alone, and PyTorch on one thread."""
    import torch

    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``make docs`` writes the command-line reference instead of only checking it."""
    parser.addoption("--write-docs", action="store_true", help="write docs/cli.md")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Started in the background by a script, a process ignores Ctrl-C, and so do its children; the tests send it."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)
