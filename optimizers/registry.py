"""What a recipe can name: each pass's config and handler, registered where the pass stands.

A new pass is one module of this folder::

    @recipe_pass("quantize_static", precision="int8-static")
    @dataclass(frozen=True)
    class QuantizeStatic:
        samples: int = 128

    @register(QuantizeStatic)
    def _static(config: QuantizeStatic, model: OptimizedModel, context: Context) -> OptimizedModel: ...

Options are read from a recipe file by the config's type hints: bool, int, float, str, ``Literal``, a tuple of
these, or one of them or None. A ``__post_init__`` that raises ValueError says what else they must fulfil.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")
Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class PassKind:
    """What is known of a pass besides its options.

    Attributes:
        name: as a recipe file writes it.
        config: the frozen dataclass that holds its options.
        precision: canonical name of the precision it ends in, or a function of the config that gives it; None
            for a pass that leaves the precision alone.
        trains: needs training data, or changes what the model computes by more than rounding.
        eager: works on the user's module, before it is captured.
        seals: leaves something in the weights that training would destroy: no pass that trains may follow.
    """

    name: str
    config: type[Any]
    precision: str | Callable[[Any], str] | None = None
    trains: bool = False
    eager: bool = False
    seals: bool = False


_KINDS: dict[type[Any], PassKind] = {}
_HANDLERS: dict[type[Any], Callable[..., Any]] = {}
_NAMED: dict[str, tuple[Any, ...]] = {}


def recipe_pass(
    name: str,
    *,
    precision: str | Callable[[Any], str] | None = None,
    trains: bool = False,
    eager: bool = False,
    seals: bool = False,
) -> Callable[[type[Config]], type[Config]]:
    """Make a frozen dataclass a pass that recipes can name; the arguments are those of :class:`PassKind`."""

    def keep(config: type[Config]) -> type[Config]:
        _KINDS[config] = PassKind(name, config, precision, trains, eager, seals)
        return config

    return keep


def register(config: type[Any]) -> Callable[[Handler], Handler]:
    """Register the function that applies passes of this config type.

    A handler of a graph pass takes and returns an ``OptimizedModel``, one of an eager pass a ``Workpiece``.
    """

    def keep(handler: Handler) -> Handler:
        _HANDLERS[config] = handler
        return handler

    return keep


def name_recipe(name: str, *passes: Any) -> None:
    """Give a list of passes a name that ``--recipe`` and ``--precision`` know (that of its precision)."""
    _NAMED[name] = passes


def kind_of(config: Any) -> PassKind:
    """The :class:`PassKind` of a pass."""
    return _KINDS[type(config)]


def precision_of(config: Any) -> str | None:
    """The precision that a pass ends in, or None when it leaves it alone."""
    precision = kind_of(config).precision
    return precision(config) if callable(precision) else precision


def handler_of(config: Any) -> Callable[..., Any]:
    """The function that applies a pass."""
    return _HANDLERS[type(config)]


def known_passes() -> dict[str, PassKind]:
    """Name -> kind of every pass, in the order of the names."""
    _import_all()
    return {kind.name: kind for kind in sorted(_KINDS.values(), key=lambda kind: kind.name)}


def named_recipes() -> dict[str, tuple[Any, ...]]:
    """Name -> passes of every named recipe."""
    _import_all()
    return dict(_NAMED)


@cache
def _import_all() -> None:
    """A pass is found by where it stands: every module of this folder."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f".{module.name}", __package__)


def build(kind: PassKind, options: dict[str, Any]) -> Any:
    """The config of a pass from the options of a recipe file.

    Raises:
        ValueError: an unknown option or a value that isn't allowed, in words.
    """
    names = [field.name for field in dataclasses.fields(kind.config)]
    hints = {name: hint for name, hint in get_type_hints(kind.config).items() if name in names}
    values = {}
    for key, value in options.items():
        if key not in hints:
            raise ValueError(f"unknown option {key!r} (it has {', '.join(hints) or 'no options'})")
        values[key] = _fit(key, value, hints[key])
    missing = [
        field.name
        for field in dataclasses.fields(kind.config)
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"option {missing[0]!r} is missing")
    return kind.config(**values)


def _fit(key: str, value: Any, hint: Any) -> Any:
    """``value`` as type ``hint`` wants it: TOML's 1 is a float where one is wanted, and its list a tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit(key, value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{key} must be one of {', '.join(map(str, arguments))}, found {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{key} must be a list, found {value!r}")
        return tuple(_fit(f"each of {key}", item, arguments[0]) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{key} must be {hint.__name__}, found {value!r}")
    return value
