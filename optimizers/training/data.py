"""Training data as the user gives it, in one form: rows that are picked by number.

What can be given: ``module:function`` (or the thing itself) that gives a pair of arrays (inputs, targets), a
map-style ``torch.utils.data.Dataset`` or a ``DataLoader`` of (input, target) pairs, an iterable of batches
(kept in memory), or an .npz with the inputs and ``labels``. Without targets (a lone array, items that are no
pairs, an .npz without labels) the data is unlabelled, which distillation can use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...models.inputs import read_npz, to_tensors
from ...models.resolve import brief, resolve
from ...models.source import SourceModel

# Held out of the training data to choose the best epoch and to stop early.
HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 5_000
_FINGERPRINT_ROWS = 16


@dataclass(frozen=True)
class Batch:
    """Some rows: one tensor an input of the model (each [rows, ...]), and the targets or None."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        targets = None if self.targets is None else self.targets.to(device)
        return Batch(tuple(tensor.to(device) for tensor in self.inputs), targets)


class TrainingData:
    """Rows of training data, and which of them are held out.

    Args:
        count: number of rows.
        pick: gives the rows of the given numbers as a :class:`Batch`.
        identity: what the data is, for the keys of checkpoints: equal data has equal identity.
    """

    def __init__(self, count: int, pick: Callable[[list[int]], Batch], identity: str) -> None:
        self.count = count
        self.pick = pick
        self.identity = identity
        self.labelled = pick([0]).targets is not None
        # The same rows whatever the recipe's seed is, so that one pass never trains on what another held out.
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count)).tolist()
        held_out = min(MAX_HELD_OUT, max(1, round(count * HELD_OUT_SHARE)))
        self.held_out_rows: list[int] = sorted(order[:held_out])
        self.training_rows: list[int] = sorted(order[held_out:])

    def batches(self, size: int, seed: int) -> Iterator[Batch]:
        """The training rows once, shuffled by ``seed``; a last batch of one row is left out."""
        order = torch.randperm(len(self.training_rows), generator=torch.Generator().manual_seed(seed))
        for part in order.split(size):
            # One row has no variance, which batch normalisation refuses.
            if len(part) > 1 or len(order) == 1:
                yield self.pick([self.training_rows[i] for i in part.tolist()])

    def steps(self, size: int) -> int:
        """How many batches :meth:`batches` gives."""
        full, rest = divmod(len(self.training_rows), size)
        return full + (rest > 1) or 1

    def held_out(self, size: int) -> Iterator[Batch]:
        """The held-out rows, in order."""
        for start in range(0, len(self.held_out_rows), size):
            yield self.pick(self.held_out_rows[start : start + size])


def load_training(source: SourceModel, given: Any) -> TrainingData:
    """The training data that the user names; see the module's docstring.

    Raises:
        InputError: none of the forms, fewer than 2 rows, or rows that don't fit the model's inputs.
    """
    where = "the training data"
    if isinstance(given, str | Path):
        text = str(given)
        where = f"--train {text}"
        if ":" not in text or Path(text).exists():
            return _checked(_from_npz(Path(text), source), source, where)
        given, _ = resolve(text, "--train")
    if callable(given) and not isinstance(given, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        try:
            given = given()
        except Exception as error:
            raise InputError(f"{where} failed: {brief(error)}.") from error
    return _checked(_from_value(given, source, where), source, where)


def _checked(data: TrainingData, source: SourceModel, where: str) -> TrainingData:
    if data.count < 2:
        raise InputError(f"{where} has {data.count} rows; training needs at least 2.")
    batch = data.pick([0, 1])
    if len(batch.inputs) != len(source.inputs):
        names = ", ".join(info.name for info in source.inputs)
        raise InputError(
            f"{where} has {len(batch.inputs)} inputs a row; the model takes {len(source.inputs)} ({names})."
        )
    for info, example, found in zip(source.inputs, source.example, batch.inputs, strict=True):
        fits = found.ndim == example.ndim and all(
            (0, axis) in source.dynamic or wanted == size
            for axis, (wanted, size) in enumerate(zip(example.shape[1:], found.shape[1:], strict=False), 1)
        )
        if not fits:
            raise InputError(
                f"{where}: a row of input {info.name!r} must have shape {list(example.shape[1:])}, found "
                f"{list(found.shape[1:])}."
            )
        if found.is_floating_point() != example.is_floating_point():
            raise InputError(
                f"{where}: input {info.name!r} must be {info.dtype}, found {str(found.dtype).removeprefix('torch.')}."
            )
    return data


def _from_value(value: Any, source: SourceModel, where: str) -> TrainingData:
    if isinstance(value, torch.utils.data.DataLoader):
        if isinstance(value.dataset, torch.utils.data.IterableDataset):
            return _from_batches(value, source, where)
        return _from_items(value.dataset, source, where, value.collate_fn)
    if isinstance(value, torch.Tensor | np.ndarray):
        return _from_tensors(_inputs(to_tensors(value), source, where), None, where)
    if isinstance(value, dict):
        return _from_tensors(_inputs(to_tensors(value), source, where), None, where)
    if isinstance(value, tuple | list) and len(value) == 2 and _is_arrays(value[0]) and _is_array(value[1]):
        inputs, targets = to_tensors(tuple(value))
        return _from_tensors(_inputs(inputs, source, where), targets, where)
    if hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, list | tuple):
        return _from_items(value, source, where, torch.utils.data.default_collate)
    if isinstance(value, Iterable):
        return _from_batches(value, source, where)
    raise InputError(
        f"{where} must give arrays (inputs, targets), a dataset, or batches of (inputs, targets), not a "
        f"{type(value).__name__}."
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_arrays(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_array, value.values()))
    return _is_array(value) or (isinstance(value, tuple | list) and all(map(_is_array, value)))


def _inputs(value: Any, source: SourceModel, where: str) -> tuple[torch.Tensor, ...]:
    """The inputs of a row or batch, in the order of the model's, in its dtypes."""
    names = [info.name for info in source.inputs]
    if isinstance(value, dict):
        missing = [name for name in names if name not in value]
        if missing:
            raise InputError(
                f"{where}: input {missing[0]!r} is missing (the model takes {', '.join(names)})."
            )
        value = tuple(value[name] for name in names)
    tensors = (value,) if isinstance(value, torch.Tensor) else tuple(value)
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise InputError(
            f"{where}: inputs must be tensors or arrays, by name or in the order of the model's."
        )
    return (
        tuple(
            tensor.to(example.dtype) if tensor.is_floating_point() == example.is_floating_point() else tensor
            for tensor, example in zip(tensors, source.example, strict=False)
        )
        + tensors[len(source.example) :]
    )


def _from_tensors(inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None, where: str) -> TrainingData:
    every = [*inputs, *([] if targets is None else [targets])]
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in every}
    if len(lengths) > 1:
        raise InputError(f"{where}: inputs and targets have different numbers of rows ({sorted(lengths)}).")
    if not lengths or lengths == {0}:
        raise InputError(f"{where} is empty.")

    def pick(rows: list[int]) -> Batch:
        index = torch.tensor(rows)
        return Batch(tuple(t[index] for t in inputs), None if targets is None else targets[index])

    return TrainingData(lengths.pop(), pick, _digest(every))


def _from_items(
    items: Any, source: SourceModel, where: str, collate: Callable[[list[Any]], Any]
) -> TrainingData:
    def pick(rows: list[int]) -> Batch:
        try:
            value = to_tensors(collate([items[row] for row in rows]))
        except Exception as error:
            raise InputError(f"{where} failed at row {rows[0]}: {brief(error)}.") from error
        return _batch(value, source, where)

    count = len(items)
    if not count:
        raise InputError(f"{where} is empty.")
    # Reading a whole data set only to name it could take hours: some rows must do.
    some = pick(sorted({round(i * (count - 1) / _FINGERPRINT_ROWS) for i in range(_FINGERPRINT_ROWS + 1)}))
    found = [*some.inputs, *([] if some.targets is None else [some.targets])]
    return TrainingData(count, pick, f"{count} rows {_digest(found)}")


def _batch(value: Any, source: SourceModel, where: str) -> Batch:
    if isinstance(value, tuple | list) and len(value) == 2 and _is_array(value[1]):
        return Batch(_inputs(value[0], source, where), value[1])
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return Batch(_inputs(value, source, where), None)


def _from_batches(values: Iterable[Any], source: SourceModel, where: str) -> TrainingData:
    batches: list[Batch] = []
    try:
        for value in values:
            batches.append(_batch(to_tensors(value), source, f"{where}, batch {len(batches)}"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where} failed at batch {len(batches)}: {brief(error)}.") from error
    if not batches:
        raise InputError(f"{where} is empty.")
    if len({batch.targets is None for batch in batches}) > 1:
        raise InputError(f"{where}: some batches have targets and some have none.")
    try:
        inputs = tuple(torch.cat(column) for column in zip(*(b.inputs for b in batches), strict=True))
        targets = [b.targets for b in batches if b.targets is not None]
        return _from_tensors(inputs, torch.cat(targets) if targets else None, where)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{where}: the batches don't fit together: {brief(error)}.") from error


def _from_npz(path: Path, source: SourceModel) -> TrainingData:
    arrays = {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
    targets = arrays.pop("labels", arrays.pop("label", arrays.pop("targets", None))) if arrays else None
    if len(source.inputs) == 1 and source.inputs[0].name not in arrays and len(arrays) == 1:
        arrays = {source.inputs[0].name: next(iter(arrays.values()))}
    return _from_tensors(_inputs(arrays, source, str(path)), targets, str(path))


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()
