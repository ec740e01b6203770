"""From what the user's code holds under a name to the module: itself, its class or a function that makes it."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ..errors import InputError
from .resolve import brief


def instantiate(value: Any, arguments: dict[str, Any], origin: str) -> torch.nn.Module:
    """The module that ``value`` is, or makes of ``arguments``.

    Args:
        origin: what the user called it.

    Raises:
        InputError: it is none and makes none.
    """
    if isinstance(value, torch.nn.Module):
        if arguments:
            raise InputError(f"{origin} is a module already: --model-args goes with a class or a factory.")
        return value
    if isinstance(value, torch.export.ExportedProgram):
        return value.module()
    if not callable(value):
        weights = isinstance(value, dict) and all(isinstance(each, torch.Tensor) for each in value.values())
        hint = " (weights go with the code of their model, as --weights FILE)" if weights else ""
        raise InputError(
            f"{origin} is {_indefinite(value)}, not a torch.nn.Module, a class of one, or a function that makes one{hint}."
        )
    _check_arguments(value, arguments, origin)
    try:
        made = value(**arguments)
    except Exception as error:
        raise InputError(f"calling {origin} to make the model failed: {brief(error)}.") from error
    if not isinstance(made, torch.nn.Module):
        hint = (
            ": return the model alone, its inputs belong in example_inputs()"
            if isinstance(made, tuple)
            else ""
        )
        raise InputError(f"{origin} made {_indefinite(made)}, not a torch.nn.Module{hint}.")
    return made


def _check_arguments(value: Any, arguments: dict[str, Any], origin: str) -> None:
    """Refuse what can't be called with ``arguments`` alone.

    Raises:
        InputError: naming the first argument that is missing.
    """
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return
    missing = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.name not in arguments
    ]
    if missing:
        name = missing[0]
        hint = (
            ""
            if isinstance(value, type)
            else f", or wrap it in a torch.nn.Module if {name!r} is an input of the model"
        )
        raise InputError(
            f"{origin} makes no model without its argument {name!r}: give --model-args '{{\"{name}\": ...}}'{hint}."
        )


def _indefinite(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
