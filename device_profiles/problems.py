"""Turns pydantic's findings into sentences that name file, key, found value and what is allowed."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import InputError
from .schema import DeviceProfile
from .units import unit_of

_UNION = (Union, types.UnionType)


def input_error(where: str, error: ValidationError) -> InputError:
    """One InputError for everything that is wrong in the profile ``where`` (a path or a name)."""
    details = error.errors()
    # A container that lost its bad items is also "too short": the items' own findings say enough.
    inner = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    kept = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]
    lines = list(dict.fromkeys(line for detail in kept for line in _lines(detail)))
    if len(lines) == 1:
        return InputError(f"{where}: {lines[0]}")
    return InputError(f"{where}: {len(lines)} problems:\n" + "\n".join(f"  {line}" for line in lines))


def _lines(detail: ErrorDetails) -> Iterator[str]:
    context = detail.get("ctx") or {}
    if detail["type"] == "profile":
        for key, what in context["problems"]:
            yield f"{key} {what}"
        return
    location = tuple(part for part in detail["loc"] if part != "[key]")
    key = ".".join(str(part) for part in location) or "the file"
    found = _shown(detail.get("input"))
    kind = detail["type"]
    if kind == "extra_forbidden":
        yield f"{key} is not a known key; {_known_keys(location)}"
    elif kind == "missing":
        yield f"{key} is missing; {_required(location)}"
    elif kind in ("literal_error", "enum"):
        yield f"{key} is {found}; allowed: {context.get('expected', '').replace(' or ', ', ')}"
    else:
        yield f"{key} is {found}; allowed: {_allowed(kind, context, location)}"


def _allowed(kind: str, context: dict[str, Any], location: tuple[Any, ...]) -> str:
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return "a whole number" + _unit(location) + _bounds(location)
    if kind in ("float_type", "float_parsing", "finite_number"):
        return "a finite number" + _unit(location) + _bounds(location)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return "a number" + _unit(location) + _bounds(location)
    if kind in ("tuple_type", "list_type") and _model_in(_annotation_at(location)) is not None:
        return f"a list of tables, so [[{'.'.join(map(str, location))}]] in two brackets"
    if kind == "string_pattern_mismatch":
        return f"text in lower case without spaces, of the form {context['pattern']}"
    if kind in ("string_too_short", "too_short"):
        return f"at least {context['min_length']} {'character' if kind.startswith('string') else 'entry'}"
    if kind in ("string_too_long", "too_long"):
        return f"at most {context['max_length']} {'characters' if kind.startswith('string') else 'entries'}"
    words = {
        "string_type": "text in quotes",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "list_type": "a list",
        "dict_type": "a table",
        "model_type": "a table",
        "model_attributes_type": "a table",
    }
    return words.get(kind, kind.replace("_", " "))


def _unit(location: tuple[Any, ...]) -> str:
    unit = unit_of(".".join(map(str, location)))
    return f" of {unit}" if unit else ""


def _bounds(location: tuple[Any, ...]) -> str:
    """ ", more than 0 and at most 10000" from the field's declared limits, or nothing."""
    words = {"gt": "more than", "ge": "at least", "le": "at most", "lt": "less than"}
    limits = [
        f"{phrase} {_plain(getattr(rule, name))}"
        for rule in _metadata(location)
        for name, phrase in words.items()
        if getattr(rule, name, None) is not None
    ]
    return (", " + " and ".join(limits)) if limits else ""


def _plain(limit: float) -> str:
    return f"{limit:.0f}" if float(limit).is_integer() else f"{limit:g}"


def _metadata(location: tuple[Any, ...]) -> Iterator[Any]:
    """The constraint objects declared anywhere in the annotation at ``location``."""
    annotation = _annotation_at(location)
    pending = [annotation]
    while pending:
        each = pending.pop()
        for rule in getattr(each, "__metadata__", ()):
            yield from getattr(rule, "metadata", None) or [rule]
        pending += [arg for arg in get_args(each) if arg is not Ellipsis]


def _annotation_at(location: tuple[Any, ...]) -> Any:
    annotation: Any = DeviceProfile
    for part in location:
        model = _model_in(annotation)
        if isinstance(part, str) and model is not None and part in model.model_fields:
            field = model.model_fields[part]
            annotation = field.annotation
            for rule in field.metadata:
                annotation = _Declared(annotation, rule)
        else:
            inner = [arg for arg in _flat(annotation) if arg is not type(None)]
            annotation = inner[-1] if inner else Any
    return annotation


class _Declared:
    """An annotation together with constraints that pydantic had moved to the field."""

    def __init__(self, annotation: Any, rule: Any) -> None:
        self.inner = annotation
        self.__metadata__ = (*getattr(annotation, "__metadata__", ()), rule)


def _flat(annotation: Any) -> Iterator[Any]:
    """Item types of a container annotation, looking through unions, ``Annotated`` and our own mark."""
    if isinstance(annotation, _Declared):
        yield from _flat(annotation.inner)
    elif get_origin(annotation) in _UNION or hasattr(annotation, "__metadata__"):
        for arg in get_args(annotation)[: 1 if hasattr(annotation, "__metadata__") else None]:
            yield from _flat(arg)
    elif get_origin(annotation) in (tuple, list, dict):
        yield from (arg for arg in get_args(annotation) if arg is not Ellipsis)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, _Declared):
        return _model_in(annotation.inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Literal, None):
        return None
    return next((model for arg in get_args(annotation) if (model := _model_in(arg)) is not None), None)


def _known_keys(location: tuple[Any, ...]) -> str:
    model = _model_in(_annotation_at(location[:-1]))
    names = list(model.model_fields) if model is not None else []
    nearest = difflib.get_close_matches(str(location[-1]), names, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{hint}allowed here: {', '.join(names)}"


def _required(location: tuple[Any, ...]) -> str:
    annotation = _annotation_at(location)
    model = _model_in(annotation)
    if get_origin(annotation) is Literal:
        return f"allowed: {', '.join(repr(value) for value in get_args(annotation))}"
    if model is not None:
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        table = "one or more tables, each" if any(True for _ in _flat(annotation)) else "a table"
        return f"{table} with at least {', '.join(needed)}" if needed else table
    return "it is required"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
