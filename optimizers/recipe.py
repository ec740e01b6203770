"""Recipes: ordered lists of passes as plain data, saved with the bundle and loaded from TOML.

Naming grammar: a recipe that only sets a precision has that precision's name (``fp32``, ``fp16``,
``int8-dynamic``, ``int8-static``); a recipe from a file has the ``name`` written in it. The passes
themselves stand in the modules beside this one; see ``registry``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .precision import parse_precision
from .registry import build, kind_of, known_passes, named_recipes, precision_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Recipe:
    """A named, ordered list of passes (configs registered with ``recipe_pass``).

    Attributes:
        seed: of everything random in it: shuffling, dropout, random importance.
    """

    name: str
    passes: tuple[Any, ...]
    seed: int = 0

    @property
    def precision(self) -> str:
        """The canonical name of the precision this recipe ends in."""
        return next((p for p in map(precision_of, reversed(self.passes)) if p is not None), "fp32")

    @property
    def eager_passes(self) -> tuple[Any, ...]:
        """The passes that work on the user's module, before it is captured."""
        return tuple(config for config in self.passes if kind_of(config).eager)

    @property
    def graph_passes(self) -> tuple[Any, ...]:
        """The passes that work on the captured program."""
        return tuple(config for config in self.passes if not kind_of(config).eager)

    @property
    def trains(self) -> bool:
        """Whether what comes out is another model than the source: a file must agree with what was trained."""
        return any(kind_of(config).trains for config in self.passes)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, as a recipe file holds it."""
        return {
            "name": self.name,
            **({"seed": self.seed} if self.trains else {}),
            "passes": [{"pass": kind_of(p).name, **dataclasses.asdict(p)} for p in self.passes],
        }


def named_recipe(name: str) -> Recipe:
    """The recipe of a precision's name or alias.

    Raises:
        InputError: an unknown name.
    """
    precision = parse_precision(name).name
    return Recipe(precision, named_recipes()[precision])


def load_recipe(name_or_path: str) -> Recipe:
    """A named recipe, or one from a TOML file.

    Raises:
        InputError: an unknown name, a missing or malformed file, an unknown pass or option.
    """
    if not name_or_path.endswith(".toml"):
        try:
            return named_recipe(name_or_path)
        except InputError:
            known = list(named_recipes())
            near = difflib.get_close_matches(name_or_path.lower(), known, n=1)
            hint = (
                f"did you mean {near[0]}?" if near else f"use a TOML file, auto or one of {', '.join(known)}."
            )
            raise InputError(f"unknown recipe {name_or_path!r}; {hint}") from None
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(f"no recipe file {path}.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    unknown = sorted(set(data) - {"name", "seed", "passes", "description"})
    if unknown:
        raise InputError(
            f"{path}: unknown key {unknown[0]!r} (it has name, description, seed and [[passes]])."
        )
    entries = data.get("passes")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise InputError(
            f"{path} needs [[passes]] tables, each with pass = one of {', '.join(known_passes())}."
        )
    name, seed = data.get("name", path.stem), data.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise InputError(f"{path}: seed must be a whole number from 0 to 2147483647, found {seed!r}.")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: name {name!r} becomes part of file names: use letters, digits, dots, dashes and underscores."
        )
    passes = tuple(_parse_pass(entry, f"{path}, pass {index}") for index, entry in enumerate(entries, 1))
    recipe = Recipe(name, passes, seed)
    check_order(recipe, str(path))
    return recipe


def check_order(recipe: Recipe, where: str) -> None:
    """Refuse a recipe whose passes can't follow each other.

    Raises:
        InputError: two precisions, a pass on the module after one on the captured program, or training after a pass
            whose work it would undo.
    """
    endings = [p for p in recipe.passes if precision_of(p) is not None]
    if len(endings) > 1:
        raise InputError(f"{where} sets the precision {len(endings)} times; a recipe does so once.")
    captured = sealed = ""
    for index, config in enumerate(recipe.passes, 1):
        kind = kind_of(config)
        if kind.eager and captured:
            raise InputError(
                f"{where}, pass {index}: {kind.name} works on the model before it is captured, so it must stand "
                f"before {captured}."
            )
        if kind.trains and sealed:
            raise InputError(
                f"{where}, pass {index}: {kind.name} trains, which would undo what {sealed} did: put it before {sealed}."
            )
        captured = captured or ("" if kind.eager else kind.name)
        sealed = sealed or (kind.name if kind.seals else "")


def _parse_pass(entry: dict[str, Any], where: str) -> Any:
    options = dict(entry)
    name = options.pop("pass", None)
    kinds = known_passes()
    if name not in kinds:
        raise InputError(f"{where}: unknown pass {name!r}; use one of {', '.join(kinds)}.")
    try:
        return build(kinds[name], options)
    except ValueError as error:
        raise InputError(f"{where} ({name}): {error}.") from error
