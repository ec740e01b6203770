"""Tells a Keras model from a PyTorch one without importing either framework."""

from __future__ import annotations

import ast
import importlib.util
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError

_SUFFIXES = (".keras", ".h5", ".hdf5")
_KERAS = {"tensorflow", "keras", "tf_keras"}
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_keras(model: Any) -> bool:
    """Whether ``model`` goes the Keras road.

    A .keras or .h5 file, a folder with a ``saved_model.pb``, a Keras object, or ``module:attribute`` whose source
    file imports TensorFlow or Keras and not torch (``keras:module:attribute`` says so itself).
    """
    if isinstance(model, Path):
        model = str(model)
    if not isinstance(model, str):
        return any(base.__module__.partition(".")[0] in _KERAS for base in type(model).__mro__)
    if model.startswith("keras:"):
        return True
    path = Path(model)
    if path.suffix.lower() in _SUFFIXES or (path / "saved_model.pb").is_file():
        return True
    module, _, attribute = model.partition(":")
    return bool(attribute) and _imports_keras(module)


def refuse_keras(model: Any, command: str) -> None:
    """For commands that look into PyTorch programs.

    Raises:
        InputError: ``model`` is a Keras model.
    """
    if is_keras(model):
        raise InputError(
            f"edgeopt {command} takes PyTorch models; {origin_of(model)} is a Keras model: edgeopt export makes a bundle "
            "of it, to go on with (docs/keras.md)."
        )


def plain_spec(model: Any, folder: Path | None = None) -> str:
    """The model as the worker takes it: files and folders by their absolute path.

    Args:
        folder: where a Keras object of this process is saved, since it can't travel by itself.

    Raises:
        InputError: such an object can't be saved.
    """
    if not isinstance(model, str | Path) and folder is not None:
        path = folder / "given.keras"
        try:
            model.save(path)
        except Exception as error:
            raise InputError(f"the {type(model).__name__} can't be saved: {error}.") from error
        return str(path)
    text = str(model).removeprefix("keras:")
    return str(Path(text).resolve()) if Path(text).exists() else text


def check_files(model: Any) -> None:
    """Refuse what can't be a model before TensorFlow is started, or even installed, for it.

    Raises:
        InputError: no such file, or one of another kind.
    """
    if not isinstance(model, str | Path):
        return
    text = plain_spec(model)
    path = Path(text)
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise InputError(f"{model} is not a SavedModel: it has no saved_model.pb.")
    elif path.is_file():
        if not zipfile.is_zipfile(path) and _begins(path) != _HDF5:
            raise InputError(
                f"{model} is neither a .keras archive nor an HDF5 file: it is corrupt, truncated or something else."
            )
    elif ":" not in text:
        raise InputError(f"{model} does not exist: give a .keras or .h5 file, or a SavedModel folder.")


def origin_of(model: Any) -> str:
    """What messages and the manifest call the model."""
    if isinstance(model, str | Path):
        return str(model).removeprefix("keras:")
    return str(getattr(model, "name", "") or type(model).__name__)


def _begins(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(len(_HDF5))


def _imports_keras(module: str) -> bool:
    source = _source_of(module)
    if source is None:
        return False
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return bool(found & _KERAS) and "torch" not in found


def _source_of(module: str) -> Path | None:
    if module.endswith(".py"):
        return Path(module)
    # The folder the command runs in comes first, as it does when the model is imported.
    relative = Path(*module.split("."))
    if not relative.name:
        return None  # nothing, or only dots, before the colon
    for candidate in (relative.with_suffix(".py"), relative / "__init__.py"):
        if candidate.is_file():
            return candidate
    with suppress(ImportError, ValueError, AttributeError):
        if "." not in module and (found := importlib.util.find_spec(module)) is not None and found.origin:
            return Path(found.origin)
    return None
