"""Calibration samples and the evaluation of a model, as the user gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..errors import InputError
from ..wording import counted
from .inputs import read_npz, to_tensors
from .resolve import brief, resolve
from .source import SourceModel
from .tensors import tensors_by_name

MAX_CALIBRATION_SAMPLES = 128

Sample = tuple[torch.Tensor, ...]
Predict = Callable[..., Any]


def find_calibration(source: SourceModel, given: Any) -> list[Sample] | None:
    """Samples of what was given, else of the function ``calibration`` beside the model; None where there is neither.

    Raises:
        InputError: as :func:`load_calibration`; or the function failed.
    """
    if given is None:
        companion = source.companion("calibration")
        given = None if companion is None else _call(companion, "calibration() beside the model")
    return None if given is None else load_calibration(source, given)


def load_calibration(
    source: SourceModel, given: Any, *, limit: int = MAX_CALIBRATION_SAMPLES
) -> list[Sample]:
    """Calibration samples that fit the model's inputs, at most ``limit``.

    Args:
        given: an .npz path (arrays named as the inputs, one more leading axis or more rows on the
            first), ``module:function``, or an iterable of samples (a tensor, a tuple, or a dict).

    Raises:
        InputError: no samples, or one whose shape or dtype doesn't fit, naming the input.
    """
    if isinstance(given, str | Path):
        text = str(given)
        if ":" in text and not Path(text).exists():
            function, _ = resolve(text, "--calibration")
            samples = _iterate(_call(function, f"--calibration {text}"), source, text, limit)
        else:
            samples = _from_npz(Path(text), source, limit)
    else:
        samples = _iterate(given, source, "calibration data", limit)
    if not samples:
        raise InputError(f"the calibration data {given} gave no sample.")
    return samples


def _call(function: Any, where: str) -> Any:
    if not callable(function):
        return function
    try:
        return function()
    except Exception as error:
        raise InputError(f"{where} failed: {brief(error)}.") from error


def _iterate(values: Any, source: SourceModel, where: str, limit: int) -> list[Sample]:
    if isinstance(values, torch.Tensor | np.ndarray | dict) or not isinstance(values, Iterable):
        raise InputError(f"{where} must give an iterable of samples, not a {type(values).__name__}.")
    samples: list[Sample] = []
    try:
        for index, value in enumerate(islice(values, limit)):
            samples.append(_as_sample(to_tensors(value), source, f"{where}, sample {index}"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where} failed at sample {len(samples)}: {brief(error)}.") from error
    return samples


def _as_sample(value: Any, source: SourceModel, where: str) -> Sample:
    names = [info.name for info in source.inputs]
    if isinstance(value, dict):
        value = tensors_by_name(value)
        missing = [name for name in names if name not in value]
        if missing:
            raise InputError(
                f"{where}: input {missing[0]!r} is missing (the model takes {', '.join(names)})."
            )
        value = tuple(value[name] for name in names)
    elif isinstance(value, torch.Tensor):
        value = (value,)
    sample = _flat(tuple(value), source)
    if len(sample) != len(names):
        raise InputError(
            f"{where} has {counted(len(sample), 'tensor')}; the model takes {len(names)} ({', '.join(names)})."
        )
    return tuple(fit_sample(tensor, source, index, where) for index, tensor in enumerate(sample))


def _flat(value: tuple[Any, ...], source: SourceModel) -> tuple[Any, ...]:
    """The tensors of a sample that is nested as the model's arguments are; any other as it is."""
    leaves, spec = pytree.tree_flatten((value, {}))
    if spec != source.module._signature.spec:
        return value
    return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def fit_sample(tensor: torch.Tensor, source: SourceModel, index: int, where: str) -> torch.Tensor:
    """``tensor`` if it fits input ``index`` of the model.

    Raises:
        InputError: a shape or dtype that doesn't fit.
    """
    info, example = source.inputs[index], source.example[index]
    fixed = all(
        isinstance(expected, str) or expected == found
        for expected, found in zip(info.shape, tensor.shape, strict=False)
    )
    if tensor.ndim != example.ndim or not fixed:
        raise InputError(
            f"{where}: input {info.name!r} must have shape {list(info.shape)}, found {list(tensor.shape)}."
        )
    if tensor.is_floating_point() != example.is_floating_point():
        raise InputError(f"{where}: input {info.name!r} must be {info.dtype}, found {tensor.dtype}.")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise InputError(f"{where}: input {info.name!r} has NaN or infinite values.")
    return tensor.to(example.dtype)


def _from_npz(path: Path, source: SourceModel, limit: int) -> list[Sample]:
    arrays = read_npz(path)
    names = [info.name for info in source.inputs]
    if len(names) == 1 and names[0] not in arrays and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"{path} has no array {missing[0]!r}: name the arrays as the model's inputs ({', '.join(names)})."
        )
    columns = [
        split_rows(torch.from_numpy(arrays[name]), source, index, str(path))
        for index, name in enumerate(names)
    ]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise InputError(f"{path}: the inputs have different numbers of samples ({sorted(lengths)}).")
    return [
        tuple(
            fit_sample(tensor, source, index, f"{path}, sample {row}") for index, tensor in enumerate(sample)
        )
        for row, sample in enumerate(islice(zip(*columns, strict=True), limit))
    ]


def split_rows(array: torch.Tensor, source: SourceModel, index: int, where: str) -> Sequence[torch.Tensor]:
    """A stack of samples of input ``index`` as single samples of the example's shape.

    Accepts one more leading axis, or more rows on the first axis than the example has (a remainder
    that fills no batch is dropped).
    """
    example = source.example[index]
    if array.ndim == example.ndim + 1:
        return list(array)
    rows = example.shape[0] if example.ndim else 1
    if array.ndim == example.ndim and array.ndim and array.shape[1:] == example.shape[1:]:
        return list(array[: len(array) // rows * rows].split(rows)) if len(array) >= rows else []
    info = source.inputs[index]
    raise InputError(
        f"{where}: input {info.name!r} must stack samples of shape {list(info.shape)}, "
        f"found an array of shape {list(array.shape)}."
    )


@dataclass(frozen=True)
class Evaluation:
    """A task metric on real data.

    Attributes:
        metric: its name, e.g. ``accuracy``.
        function: takes ``predict`` and returns (value, number of samples or None).
    """

    metric: str
    function: Callable[[Predict], tuple[float, int | None]]

    def __call__(self, predict: Predict, whose: str) -> tuple[float, int | None]:
        """The metric of the model behind ``predict`` (arrays in, arrays out; ``whose`` in words) and the sample count.

        Raises:
            InputError: the user's function failed, or gave no finite number.
        """
        try:
            value, samples = self.function(predict)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the evaluation failed on {whose}: {type(error).__name__}: {error}.") from error
        if not np.isfinite(value):
            raise InputError(f"the evaluation gave {value} on {whose}: it must give a finite number.")
        return value, samples


def load_evaluation(source: SourceModel, given: Any) -> Evaluation:
    """The evaluation the user names.

    Args:
        given: ``module:function`` or a function ``evaluate(predict)`` that returns a number, or a dict
            with one metric and optionally ``samples``; or an .npz with the inputs and ``labels``, which
            gives top-1 accuracy.

    Raises:
        InputError: none of these, or arrays that don't fit.
    """
    if isinstance(given, str | Path):
        text = str(given)
        if ":" in text and not Path(text).exists():
            given, _ = resolve(text, "--eval")
        else:
            return _top1_from_npz(Path(text), source)
    if not callable(given):
        raise InputError("--eval must name a function evaluate(predict) or an .npz with inputs and labels.")
    user_function = given

    def call(predict: Predict) -> tuple[float, int | None]:
        return _read_metric(user_function(predict))[1:]

    return Evaluation(getattr(user_function, "metric", "accuracy"), call)


def _read_metric(value: Any) -> tuple[str, float, int | None]:
    if isinstance(value, dict):
        metrics = {key: item for key, item in value.items() if key != "samples"}
        if len(metrics) != 1:
            raise InputError("evaluate() must return one number, or a dict with one metric and 'samples'.")
        name, number = next(iter(metrics.items()))
        samples = value.get("samples")
        return str(name), float(number), None if samples is None else int(samples)
    return "accuracy", float(value), None


def _top1_from_npz(path: Path, source: SourceModel) -> Evaluation:
    arrays = read_npz(path)
    labels = arrays.pop("labels", arrays.pop("label", None)) if arrays else None
    if labels is None:
        raise InputError(f"{path} has no array 'labels': --eval takes the inputs and their labels.")
    names = [info.name for info in source.inputs]
    if len(names) == 1 and names[0] not in arrays and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path} has no array {missing[0]!r}: name the arrays as the model's inputs.")
    for index, name in enumerate(names):
        split_rows(torch.from_numpy(arrays[name]), source, index, str(path))
    targets = labels.reshape(-1)

    def top1(predict: Predict) -> tuple[float, int | None]:
        logits = predict(*[arrays[name] for name in names])
        logits = np.asarray(next(iter(logits.values())) if isinstance(logits, dict) else logits)
        found = logits.reshape(-1, logits.shape[-1]).argmax(axis=1)
        count = min(len(found), len(targets))
        return float(np.mean(found[:count] == targets[:count])), count

    return Evaluation("accuracy", top1)
