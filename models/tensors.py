"""Names and shapes of what goes into and comes out of a model, and the flat form of both.

A user's ``forward`` may take and return nested dicts, tuples and dataclasses; both file formats know
only a flat list of tensors. :class:`Signature` remembers the nesting, :class:`FlatModel` hides it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..errors import InputError
from .float32 import float32_arithmetic


@dataclass(frozen=True)
class TensorInfo:
    """One input or output: its name, shape (a str for a dynamic dimension) and torch dtype's name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}:{self.dtype}[{','.join(str(size) for size in self.shape)}]"


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Signature:
    """How flat tensors become the arguments of the user's ``forward``.

    ``leaves`` holds, for each leaf of (args, kwargs), the index of its tensor, or the constant that
    stands there.
    """

    names: tuple[str, ...]
    spec: pytree.TreeSpec
    leaves: tuple[tuple[bool, Any], ...]

    @classmethod
    def of(
        cls, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Signature, tuple[torch.Tensor, ...]]:
        """The signature of ``module(*args, **kwargs)`` and its tensors, in order."""
        parameters = parameter_names(module)
        paths, spec = pytree.tree_flatten_with_path((args, kwargs))
        names: list[str] = []
        tensors: list[torch.Tensor] = []
        leaves: list[tuple[bool, Any]] = []
        for path, value in paths:
            if isinstance(value, torch.Tensor):
                leaves.append((True, len(tensors)))
                names.append(_unique(_input_name(path, parameters), names))
                tensors.append(value.detach())
            else:
                leaves.append((False, value))
        if not tensors:
            raise InputError("the example inputs hold no tensor: give at least one.")
        return cls(tuple(names), spec, tuple(leaves)), tuple(tensors)

    def arguments(self, tensors: tuple[torch.Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of the user's ``forward`` for these tensors."""
        values = [tensors[item] if is_tensor else item for is_tensor, item in self.leaves]
        args, kwargs = pytree.tree_unflatten(values, self.spec)
        return args, kwargs


class FlatModel(torch.nn.Module):
    """The user's model with tensors in, in the order of the signature, and a flat dict of tensors out.

    Attributes:
        in_float32: compute in float32 what forward would cast to a narrower type.
    """

    in_float32 = False

    def __init__(self, model: torch.nn.Module, signature: Signature, *, in_float32: bool = False) -> None:
        super().__init__()
        self.model = model
        self._signature = signature
        self.in_float32 = in_float32

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors that forward takes."""
        return self._signature.names

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return named_tensors(self.raw(*tensors))

    def raw(self, *tensors: torch.Tensor) -> Any:
        """What the user's forward returns, nested as it is."""
        args, kwargs = self._signature.arguments(tensors)
        with float32_arithmetic() if self.in_float32 else nullcontext():
            return self.model(*args, **kwargs)


def named_tensors(output: Any) -> dict[str, torch.Tensor]:
    """The tensors of a (nested) output by name: a lone tensor is ``output``, others go by their path.

    What is neither a tensor nor a container of them is left out; see :func:`left_out`.

    Raises:
        InputError: there is no tensor in it.
    """
    found: dict[str, torch.Tensor] = {}
    for path, value in _walk(output, ""):
        if isinstance(value, torch.Tensor):
            found[_unique(path or "output", found)] = value
    if not found:
        raise InputError(
            f"the model's forward returned no tensor (but a {type(output).__name__}): return tensors, or dicts, "
            "tuples or dataclasses of tensors."
        )
    return found


def left_out(output: Any) -> dict[str, str]:
    """Path -> type of what an output holds beside tensors, plain numbers and None (a key-value cache, say)."""
    plain = torch.Tensor | bool | int | float | str | None
    return {path or "output": type(v).__name__ for path, v in _walk(output, "") if not isinstance(v, plain)}


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    def join(key: object) -> str:
        return re.sub(r"\W", "_", f"{path}_{key}" if path else str(key))

    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, join(key))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, item in zip(value._fields, value, strict=True):
            yield from _walk(item, join(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, join(index) if path else f"output_{index}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _walk(getattr(value, field.name), join(field.name))
    else:
        yield path, value


def parameter_names(module: torch.nn.Module) -> list[str]:
    """The names of the parameters of ``module.forward``; empty when it doesn't tell."""
    if isinstance(module, torch.jit.ScriptModule):
        return [argument.name for argument in module.forward.schema.arguments[1:]]
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _input_name(path: tuple[Any, ...], parameters: list[str]) -> str:
    """``(args|kwargs, position or key, ...)`` as the name a user would give it."""
    in_kwargs, rest = bool(path[0].idx), path[1:]
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in rest]
    if not in_kwargs:
        position = int(parts[0])
        parts[0] = parameters[position] if position < len(parameters) else f"input_{position}"
    return re.sub(r"\W", "_", "_".join(parts))


def tensors_by_name(keywords: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of (nested) keyword arguments, each by the name that :class:`Signature` gives it."""
    found: dict[str, torch.Tensor] = {}
    for path, value in pytree.tree_flatten_with_path(((), keywords))[0]:
        if isinstance(value, torch.Tensor):
            found[_unique(_input_name(path, []), found)] = value
    return found


def _unique(name: str, taken: list[str] | dict[str, Any]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
