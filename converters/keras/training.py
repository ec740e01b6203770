"""Trains a tf_keras model a little: the data as the user gives them, the loss, the loop (the worker's side)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ...errors import InputError
from ...models.resolve import brief, resolve
from ...wording import counted
from .checkpoints import Keeper, Place

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """Inputs in the order of the model's, and one array of targets an output."""

    inputs: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.inputs[0])


def load_training_data(given: str, names: Sequence[str]) -> TrainingData:
    """Training data from an .npz (arrays named as the inputs, and ``labels`` or ``targets``) or a function.

    Args:
        given: FILE.npz, or ``module:function`` that gives (inputs, targets) as arrays or a ``tf.data.Dataset``
            of such pairs (batched or not).
        names: the model's inputs.

    Raises:
        InputError: missing or malformed data, in one sentence.
    """
    path = Path(given)
    if ":" in given and not path.exists():
        function, _ = resolve(given, "--train")
        return _from_value(_call(function, given), f"--train {given}")
    if not path.is_file():
        raise InputError(f"--train {given}: no such file; give FILE.npz or module:function.")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception as error:
        raise InputError(f"{path} is not an npz file of plain arrays: {error}.") from error
    targets = next((arrays.pop(key) for key in ("labels", "label", "targets") if key in arrays), None)
    if targets is None:
        raise InputError(f"{path} has no array 'labels': --train takes the inputs and their labels.")
    if len(names) == 1 and names[0] not in arrays and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"{path} has no array {missing[0]!r}: name the arrays as the model's inputs ({', '.join(names)})."
        )
    return _checked(TrainingData(tuple(arrays[name] for name in names), (targets,)), str(path))


def _call(function: Any, where: str) -> Any:
    try:
        return function() if callable(function) else function
    except Exception as error:
        raise InputError(f"--train {where} failed: {brief(error)}.") from error


def load_samples(given: str, names: Sequence[str], limit: int) -> list[list[np.ndarray]]:
    """Calibration samples of ``module:function``, whose module imports TensorFlow.

    Args:
        given: gives an iterable (or a ``tf.data.Dataset``) of samples: an array, a tuple, or a dict by name.
        names: the model's inputs.

    Raises:
        InputError: it fails, or gives something else.
    """
    function, _ = resolve(given, "--calibration")
    samples = []
    try:
        for value in islice(iter(function() if callable(function) else function), limit):
            parts = [value[name] for name in names] if isinstance(value, dict) else value
            parts = parts if isinstance(parts, tuple | list) else (parts,)
            samples.append([np.asarray(part) for part in parts])
    except Exception as error:
        raise InputError(f"--calibration {given} failed at sample {len(samples)}: {brief(error)}.") from error
    return samples


def _from_value(value: Any, where: str) -> TrainingData:
    if isinstance(value, tf.data.Dataset):
        if value.element_spec and any(s.shape.rank == 0 for s in tf.nest.flatten(value.element_spec)):
            value = value.batch(256)
        pairs = list(value.as_numpy_iterator())
        if not pairs:
            raise InputError(f"{where} gave an empty dataset.")
        return _checked(TrainingData(_columns(pairs, 0), _columns(pairs, 1)), where)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(
            f"{where} must give (inputs, targets) as arrays, or a tf.data.Dataset of such pairs."
        )
    inputs, targets = (
        tuple(np.asarray(v) for v in (part if isinstance(part, tuple | list) else (part,))) for part in value
    )
    return _checked(TrainingData(inputs, targets), where)


def _columns(pairs: Sequence[tuple[Any, Any]], side: int) -> tuple[np.ndarray, ...]:
    """The batches of a dataset's inputs (side 0) or targets (1) as one array each."""
    return tuple(
        np.concatenate(part) for part in zip(*(tf.nest.flatten(p[side]) for p in pairs), strict=True)
    )


def _checked(data: TrainingData, where: str) -> TrainingData:
    counts = {len(array) for array in (*data.inputs, *data.targets)}
    if len(counts) != 1 or not data.rows:
        raise InputError(f"{where}: inputs and labels have different numbers of samples ({sorted(counts)}).")
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in (*data.inputs, *data.targets)):
        raise InputError(f"{where} has NaN or infinite values.")
    return data


def fit(
    model: Any,
    data: TrainingData,
    *,
    what: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    callbacks: Sequence[Any],
    progress: Progress,
    place: Place,
) -> float:
    """Train ``model`` with Adam on all of ``data`` from the last kept epoch on, and give the last epoch's loss.

    Raises:
        InputError: the data don't fit the model, or the loss left the finite numbers.
    """
    if len(model.outputs) != len(data.targets):
        raise InputError(
            f"training: the model has {counted(len(model.outputs), 'output')} and the data {counted(len(data.targets), 'array')} of "
            "labels: give module:function with one array an output."
        )
    losses = [
        _loss(output, target, model) for output, target in zip(model.outputs, data.targets, strict=True)
    ]
    model.compile(
        tf_keras.optimizers.Adam(learning_rate),
        loss=losses if len(losses) > 1 else losses[0],
        jit_compile=False,
    )
    done, loss = place.resume(model)
    if done >= epochs:
        progress(f"{what}: {epochs} epochs were finished before")
        return loss
    report = _Report(what, epochs, progress)
    try:
        history = model.fit(
            list(data.inputs) if len(data.inputs) > 1 else data.inputs[0],
            list(data.targets) if len(data.targets) > 1 else data.targets[0],
            batch_size=min(batch_size, data.rows),
            initial_epoch=done,
            epochs=epochs,
            verbose=0,
            callbacks=[*callbacks, Keeper(place), report, tf_keras.callbacks.TerminateOnNaN()],
        )
    except Exception as error:
        raise InputError(f"training ({what}) failed: {brief(error)}.") from error
    loss = float(history.history["loss"][-1])
    if not np.isfinite(loss):
        raise InputError(f"training ({what}): the loss became {loss}: lower learning_rate in the recipe.")
    return loss


def steps(data: TrainingData, epochs: int, batch_size: int) -> int:
    """Optimizer steps that ``epochs`` take."""
    return epochs * -(-data.rows // min(batch_size, data.rows))


def _loss(output: Any, target: np.ndarray, model: Any) -> Any:
    """What the targets say: class numbers → cross-entropy; one-hot the same; anything else squared error."""
    scores = output.shape[-1] or 1
    if target.dtype.kind in "iu" and scores > 1 and target.size == len(target):
        return tf_keras.losses.SparseCategoricalCrossentropy(
            from_logits=not _ends_in(model, output, "softmax")
        )
    one_hot = (
        target.ndim == 2
        and target.shape[-1] == scores > 1
        and np.array_equal(target.sum(-1), np.ones(len(target)))
    )
    if one_hot:
        return tf_keras.losses.CategoricalCrossentropy(from_logits=not _ends_in(model, output, "softmax"))
    if scores == 1 and set(np.unique(target)) <= {0, 1}:
        return tf_keras.losses.BinaryCrossentropy(from_logits=not _ends_in(model, output, "sigmoid"))
    return tf_keras.losses.MeanSquaredError()


def _ends_in(model: Any, output: Any, activation: str) -> bool:
    """Whether the layer that makes ``output`` ends in this activation; wrappers of tfmot are looked through."""
    layer = output.node.layer
    for _ in range(3):
        layer = getattr(layer, "layer", layer)
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if not name:
        quantized = getattr(layer, "activation", None)
        name = getattr(getattr(quantized, "activation", None), "__name__", "")
    return activation in (name, type(layer).__name__.lower())


class _Report(tf_keras.callbacks.Callback):  # type: ignore[misc]
    """Says after every epoch where the training is."""

    def __init__(self, what: str, epochs: int, progress: Progress) -> None:
        super().__init__()
        self._what, self._epochs, self._progress = what, epochs, progress

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """One line an epoch."""
        loss = (logs or {}).get("loss", float("nan"))
        self._progress(f"{self._what}: epoch {epoch + 1} of {self._epochs}, loss {loss:.4f}")
