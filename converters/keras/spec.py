"""Tells a Keras model from a PyTorch one without importing either framework."""

from __future__ import annotations

import ast
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any

_SUFFIXES = (".keras", ".h5", ".hdf5")
_KERAS = {"tensorflow", "keras", "tf_keras"}


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


def plain_spec(model: Any) -> str:
    """The model as the worker takes it: files and folders by their absolute path."""
    text = str(model).removeprefix("keras:")
    return str(Path(text).resolve()) if Path(text).exists() else text


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
    for candidate in (relative.with_suffix(".py"), relative / "__init__.py"):
        if candidate.is_file():
            return candidate
    with suppress(ImportError, ValueError, AttributeError):
        if "." not in module and (found := importlib.util.find_spec(module)) is not None and found.origin:
            return Path(found.origin)
    return None
