"""Example inputs: from an npz file, from a function, or from ``--input-shape name:dtype[dims]``."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError

# name : dtype [dims] = low..high; name and dtype may be left out.
_SHAPE = re.compile(
    r"^(?:(?P<name>\w+):)?(?P<dtype>[a-z]+\d*)?\[(?P<dims>[^\]]*)\](?:=(?P<low>-?\d+)\.\.(?P<high>-?\d+))?$"
)
_DIM = re.compile(r"^(?P<name>[A-Za-z_]\w*)(?:=(?P<low>\d+)\.\.(?P<high>\d+))?$")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
DEFAULT_MAX_BATCH = 16


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that may vary at run time, from ``low`` to ``high`` (both included)."""

    name: str
    low: int = 1
    high: int = DEFAULT_MAX_BATCH


@dataclass(frozen=True)
class ExampleInputs:
    """Arguments for one call of the model, and which of their dimensions may vary.

    ``dynamic`` maps (index of the flat tensor, axis) to its :class:`DynamicDim`.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic: dict[tuple[int, int], DynamicDim] = field(default_factory=dict)


def inputs_from_shapes(shapes: Sequence[str], parameters: Sequence[str]) -> ExampleInputs:
    """Seeded random inputs for ``name:float32[1,3,224,224]`` descriptions, one an input.

    A dimension that is a word (``batch`` or ``batch=1..8``) is dynamic. Integers are drawn from
    ``=low..high`` when given; else a mask is all ones, token types are zeros, the rest 0 to 15.

    Raises:
        InputError: a description that can't be read, or a name ``forward`` doesn't have.
    """
    generator = torch.Generator().manual_seed(0)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    dynamic: dict[tuple[int, int], DynamicDim] = {}
    for index, text in enumerate(shapes):
        name, tensor, dims = _parse_shape(text, generator)
        for axis, dim in dims.items():
            dynamic[index, axis] = dim
        if name is None:
            if kwargs:
                raise InputError(f"--input-shape {text}: unnamed inputs must come before named ones.")
            args.append(tensor)
        else:
            if parameters and name not in parameters:
                known = ", ".join(parameters)
                raise InputError(f"--input-shape {text}: forward has no parameter {name!r} (it has {known}).")
            kwargs[name] = tensor
    return ExampleInputs(tuple(args), kwargs, dynamic)


def _parse_shape(
    text: str, generator: torch.Generator
) -> tuple[str | None, torch.Tensor, dict[int, DynamicDim]]:
    match = _SHAPE.match(text.replace(" ", ""))
    if match is None:
        raise InputError(f"--input-shape {text!r} can't be read: write e.g. image:float32[1,3,224,224].")
    dtype = match["dtype"] or "float32"
    if dtype not in _DTYPES:
        raise InputError(f"--input-shape {text!r}: unknown dtype {dtype!r}; use one of {', '.join(_DTYPES)}.")
    shape: list[int] = []
    dims: dict[int, DynamicDim] = {}
    for axis, word in enumerate(match["dims"].split(",") if match["dims"] else []):
        if word.isdigit() and int(word) > 0:
            shape.append(int(word))
            continue
        dim = _DIM.match(word)
        if dim is None:
            raise InputError(
                f"--input-shape {text!r}: dimension {word!r} must be a positive number, "
                "or a name such as batch or batch=1..8."
            )
        dims[axis] = DynamicDim(dim["name"], int(dim["low"] or 1), int(dim["high"] or DEFAULT_MAX_BATCH))
        if dims[axis].low >= dims[axis].high or dims[axis].low < 1:
            raise InputError(f"--input-shape {text!r}: the range of {dim['name']} must rise from at least 1.")
        shape.append(min(2, dims[axis].high))
    bounds = (int(match["low"]), int(match["high"])) if match["low"] else None
    try:
        return match["name"], _random(match["name"] or "", dtype, shape, bounds, generator), dims
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"--input-shape {text!r}: a tensor of {math.prod(shape):,} elements can't be made here: "
            "give the size that one call takes."
        ) from error


def _random(
    name: str, dtype: str, shape: list[int], bounds: tuple[int, int] | None, generator: torch.Generator
) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    if kind is torch.bool:
        return torch.ones(shape, dtype=kind)
    if bounds is None:
        if "mask" in name:
            return torch.ones(shape, dtype=kind)
        if "type" in name or "segment" in name:
            return torch.zeros(shape, dtype=kind)
        bounds = (0, 15)
    return torch.randint(bounds[0], bounds[1] + 1, shape, generator=generator).to(kind)


def inputs_from_value(value: Any, where: str) -> ExampleInputs:
    """Example inputs as a function returned them: a tensor, a tuple, a dict, or (tuple, dict).

    Raises:
        InputError: it is none of these.
    """
    value = to_tensors(value)
    if isinstance(value, torch.Tensor):
        return ExampleInputs((value,))
    if isinstance(value, dict):
        return ExampleInputs((), value)
    if isinstance(value, tuple | list):
        if len(value) == 2 and isinstance(value[0], tuple) and isinstance(value[1], dict):
            return ExampleInputs(value[0], value[1])
        return ExampleInputs(tuple(value))
    raise InputError(
        f"{where} gave a {type(value).__name__}: example inputs are a tensor, a tuple of arguments, "
        "a dict of keyword arguments, or (tuple, dict)."
    )


def inputs_from_npz(path: Path, parameters: Sequence[str]) -> ExampleInputs:
    """Example inputs from an npz file: by the names of ``forward``'s parameters, else by order.

    Raises:
        InputError: the file is missing, no npz, or holds pickled objects.
    """
    arrays = {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
    if arrays and all(name in parameters for name in arrays):
        return ExampleInputs((), arrays)
    return ExampleInputs(tuple(arrays.values()))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; pickled objects in it are refused.

    Raises:
        InputError: the file is missing, empty, no npz, or holds pickled objects.
    """
    if not path.is_file():
        raise InputError(f"no file {path}: give an .npz file written by numpy.savez.")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is not an npz file: numpy.savez writes one; a function is named module:function."
        )
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception as error:
        raise InputError(
            f"{path} holds something else than plain arrays ({str(error).split(chr(10))[0].rstrip('.')}): save each input as an array."
        ) from error
    if not arrays:
        raise InputError(f"{path} holds no array.")
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise InputError(f"{path}: array {name!r} is {array.dtype}, not numbers; a model takes numbers.")
    return arrays


def to_tensors(value: Any) -> Any:
    """``value`` with every numpy array in it turned into a tensor."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufc":
            raise InputError(f"an array of {value.dtype} was given where a model takes numbers.")
        return torch.from_numpy(np.asarray(value))
    if isinstance(value, dict):
        return {key: to_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_tensors(item) for item in value]
    if isinstance(value, tuple):
        return tuple(to_tensors(item) for item in value)
    return value
