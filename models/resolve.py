"""Finds ``package.module:attribute`` (or ``file.py:attribute``) in the user's code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError


def resolve(spec: str, what: str) -> tuple[Any, ModuleType]:
    """The object that ``spec`` names and the Python module it stands in.

    Args:
        spec: ``package.module:attribute.sub`` or ``path/to/file.py:attribute``.
        what: what the user meant it to be, for the error message, e.g. ``"model"``.

    Raises:
        InputError: no such module or attribute, or importing it failed.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{what} {spec!r} must be written package.module:attribute or file.py:attribute.")
    module = (
        _import_file(Path(module_name), what) if module_name.endswith(".py") else _import(module_name, what)
    )
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = difflib.get_close_matches(part, [n for n in dir(value) if not n.startswith("_")], n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise InputError(f"{what} {spec!r}: {module_name} has no attribute {part!r}{hint}")
        value = getattr(value, part)
    return value, module


def _import(name: str, what: str) -> ModuleType:
    # As python -m and uvicorn do: the folder the command runs in is the user's project.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise InputError(
                f"{what}: no Python module {error.name!r} in this folder ({here}) or among the installed packages."
            ) from error
        raise InputError(
            f"{what}: importing {name} failed: it needs {error.name!r}, which is not installed."
        ) from error
    except Exception as error:
        raise InputError(f"{what}: importing {name} failed: {brief(error)}.") from error


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{what}: no file {path}.")
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what}: {path} can't be imported as Python.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise InputError(f"{what}: running {path} failed: {brief(error)}.") from error
    return module


_OWN_FOLDER = str(Path(__file__).resolve().parent.parent)


def _is_users(filename: str) -> bool:
    own = filename.startswith(_OWN_FOLDER) and "/examples/" not in filename and "/tests/" not in filename
    return not (own or filename.startswith("<") or "/lib/python" in filename)


def brief(error: BaseException) -> str:
    """``TypeError: message (file.py:12)``: the first line of the message and the user's innermost frame."""
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    text = text.replace(' For more information, run with TORCH_LOGS="+dynamic"', "")
    place = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            place = f" ({Path(frame.filename).name}:{frame.lineno})"
            break
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
