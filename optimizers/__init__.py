"""Makes a captured model smaller and faster: recipes (ordered passes as data) and the passes themselves.

Front door: :func:`parse_precisions` and :func:`load_recipe` (names and files → :class:`Recipe`),
:func:`choose_recipe` (the profile's default, with its reasons), :func:`optimize` (capture + recipe →
:class:`OptimizedModel`). A pass is a frozen config dataclass and a function registered for it; this
folder never knows an output format beyond the capability table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .precision import PRECISIONS, Precision, parse_precision, parse_precisions

if TYPE_CHECKING:
    from .capabilities import unsupported_reason
    from .choose import Choice, choose_recipe
    from .passes import OptimizedModel, Optimizer
    from .recipe import Recipe, load_recipe, named_recipe

__all__ = [
    "PRECISIONS",
    "Choice",
    "OptimizedModel",
    "Optimizer",
    "Precision",
    "Recipe",
    "choose_recipe",
    "load_recipe",
    "named_recipe",
    "parse_precision",
    "parse_precisions",
    "unsupported_reason",
]

_HOME = {
    "Choice": ".choose",
    "choose_recipe": ".choose",
    "OptimizedModel": ".passes",
    "Optimizer": ".passes",
    "Recipe": ".recipe",
    "load_recipe": ".recipe",
    "named_recipe": ".recipe",
    "unsupported_reason": ".capabilities",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(_HOME[name], __name__), name)
