"""Where TensorFlow is: in this environment when it is installed here, else in one of its own, made on first use."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from ...errors import EdgeoptError
from ...runtimes.environments import environment_home, environment_python

TENSORFLOW = "2.21.0"
_SUPPORT = ("tf-keras==2.21.0", "tensorflow-model-optimization==0.8.1")
_PACKAGES = ("tf-keras", "tensorflow-model-optimization")
_NAME = f"keras-tensorflow-{TENSORFLOW}"
# What the two above need beside TensorFlow; they are installed without their requirements, because tf-keras
# asks for the TensorFlow that carries CUDA's kernels (600 MB more).
_REQUIREMENTS = ("absl-py>=1.4,<2", "dm-tree>=0.1.8,<0.2", "six>=1.17,<2")
# A whole environment, measured: 1.6 GB, a minute or two of downloading and unpacking.
WHAT = f"TensorFlow {TENSORFLOW} (1.6 GB, some minutes)"


def keras_python(progress: Callable[[str], None]) -> Path:
    """The interpreter that has TensorFlow, tf-keras and tensorflow-model-optimization.

    Raises:
        EdgeoptError: it can't be installed (no registry, no room, no wheel for this platform).
    """
    if installed_here():
        return Path(sys.executable)
    light = sys.platform == "linux" and platform.machine() == "x86_64"
    tensorflow = f"{'tensorflow-cpu' if light else 'tensorflow'}=={TENSORFLOW}"
    try:
        return environment_python(
            _NAME, (tensorflow, *_REQUIREMENTS), ("--no-deps", *_SUPPORT), what=WHAT, progress=progress
        )
    except EdgeoptError as error:
        raise EdgeoptError(
            f'{str(error).rstrip(".")}; without it no Keras model can be read (pip install "edgeopt[keras]" '
            "into this environment also does)."
        ) from error


def installed_here() -> bool:
    """Whether this environment itself has all three packages."""
    return all(_has(name) for name in _PACKAGES) and (_has("tensorflow") or _has("tensorflow-cpu"))


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def own_environment() -> Path | None:
    """The folder of TensorFlow's own environment, when it was made already."""
    home = environment_home(_NAME)
    return home if home.is_dir() else None
