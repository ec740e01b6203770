"""Recipes: ordered lists of passes as plain data, saved with the bundle and loaded from TOML.

Naming grammar: a recipe that only sets a precision has that precision's name (``fp32``, ``fp16``,
``int8-dynamic``, ``int8-static``); a recipe from a file has the ``name`` written in it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import InputError
from .precision import PRECISIONS, parse_precision


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold each batch normalisation that follows a convolution into its weights (eval mode, exact)."""


@dataclass(frozen=True)
class CastToHalf:
    """Weights and arithmetic in float16; inputs and outputs stay float32."""


@dataclass(frozen=True)
class QuantizeDynamic:
    """int8 weights per channel; activations quantised at run time."""


@dataclass(frozen=True)
class QuantizeStatic:
    """int8 weights and activations, activation ranges from calibration samples.

    Attributes:
        per_channel: one weight scale an output channel instead of one a tensor.
        samples: calibration samples to use at most.
    """

    per_channel: bool = True
    samples: int = 128


Pass = FoldBatchNorm | CastToHalf | QuantizeDynamic | QuantizeStatic

# The name of a pass in a recipe file -> its config.
PASSES: dict[str, type[Any]] = {
    "fold_batch_norm": FoldBatchNorm,
    "cast_to_half": CastToHalf,
    "quantize_dynamic": QuantizeDynamic,
    "quantize_static": QuantizeStatic,
}
_PRECISION_OF = {CastToHalf: "fp16", QuantizeDynamic: "int8-dynamic", QuantizeStatic: "int8-static"}
_NAMED: dict[str, tuple[Pass, ...]] = {
    "fp32": (FoldBatchNorm(),),
    "fp16": (FoldBatchNorm(), CastToHalf()),
    "int8-dynamic": (FoldBatchNorm(), QuantizeDynamic()),
    "int8-static": (FoldBatchNorm(), QuantizeStatic()),
}


@dataclass(frozen=True)
class Recipe:
    """A named, ordered list of passes."""

    name: str
    passes: tuple[Pass, ...]

    @property
    def precision(self) -> str:
        """The canonical name of the precision this recipe ends in."""
        for config in reversed(self.passes):
            if type(config) in _PRECISION_OF:
                return _PRECISION_OF[type(config)]
        return "fp32"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, as a recipe file holds it."""
        names = {config: name for name, config in PASSES.items()}
        return {
            "name": self.name,
            "passes": [{"pass": names[type(p)], **dataclasses.asdict(p)} for p in self.passes],
        }


def named_recipe(name: str) -> Recipe:
    """The recipe of a precision's name or alias.

    Raises:
        InputError: an unknown name.
    """
    precision = parse_precision(name).name
    return Recipe(precision, _NAMED[precision])


def load_recipe(name_or_path: str) -> Recipe:
    """A named recipe, or one from a TOML file.

    Raises:
        InputError: an unknown name, a missing or malformed file, an unknown pass or option.
    """
    if not name_or_path.endswith(".toml"):
        return named_recipe(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(f"no recipe file {path}.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    entries = data.get("passes")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} needs [[passes]] tables, each with pass = one of {', '.join(PASSES)}.")
    passes = tuple(_parse_pass(entry, f"{path}, pass {index}") for index, entry in enumerate(entries, 1))
    recipe = Recipe(str(data.get("name", path.stem)), passes)
    endings = [type(p) for p in passes if type(p) in _PRECISION_OF]
    if len(endings) > 1:
        raise InputError(f"{path} sets the precision {len(endings)} times; a recipe does so once.")
    return recipe


def _parse_pass(entry: dict[str, Any], where: str) -> Pass:
    options = dict(entry)
    name = options.pop("pass", None)
    if name not in PASSES:
        raise InputError(f"{where}: unknown pass {name!r}; use one of {', '.join(PASSES)}.")
    hints = get_type_hints(PASSES[name])
    for key, value in options.items():
        if key not in hints:
            known = ", ".join(hints) or "no options"
            raise InputError(f"{where} ({name}): unknown option {key!r} (it has {known}).")
        if type(value) is not hints[key]:
            raise InputError(f"{where} ({name}): {key} must be {hints[key].__name__}, found {value!r}.")
    if options.get("samples", 1) < 1:
        raise InputError(f"{where} ({name}): samples must be at least 1, found {options['samples']}.")
    made: Pass = PASSES[name](**options)
    return made


assert set(_NAMED) == set(PRECISIONS)
