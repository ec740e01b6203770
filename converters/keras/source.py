"""The model in the worker, as a source model: what reads inputs, data and metrics needs no word of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...models.data import MAX_CALIBRATION_SAMPLES, Evaluation, Sample, load_calibration, load_evaluation
from ...models.findings import Finding
from ...models.source import SourceModel, load_source_model
from ...runtimes.isolation import load_batches
from .client import KerasWorker
from .spec import is_keras

_ROWS_AT_ONCE = 256
_DTYPES = {"float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"}


@dataclass(frozen=True)
class KerasSource:
    """A model that the worker holds.

    Attributes:
        source: its inputs, outputs and example; running it asks the worker.
        number: the worker's number of the model.
        order: for each input of the Keras model, its position in ``source.inputs``.
        fixed_rows: the number of rows the model insists on, or None.
    """

    worker: KerasWorker
    source: SourceModel
    number: int
    kind: str
    parameters: int
    weight_bytes: int
    order: tuple[int, ...]
    fixed_rows: int | None

    def trained(self, number: int) -> KerasSource:
        """The same model after training, under its own number."""
        proxy = self.source.module.model
        assert isinstance(proxy, _Proxy)
        other = _Proxy(self.worker, number, proxy.names, proxy.output_names)
        flat = type(self.source.module)(other, self.source.module._signature)
        return replace(self, source=replace(self.source, module=flat.eval()), number=number)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs on arrays (in the order of ``source.inputs``) of any number of rows."""
        values = [np.ascontiguousarray(arrays[i]) for i in self.order]
        rows = self.fixed_rows or _ROWS_AT_ONCE
        count = len(values[0]) if values[0].ndim else 1
        if not values[0].ndim or count <= rows:
            return self.worker.run(self.number, [values])[0]
        batches = [[v[i : i + rows] for v in values] for i in range(0, count, rows)]
        if self.fixed_rows and len(batches[-1][0]) < rows:
            batches.pop()
        return [np.concatenate(column) for column in zip(*self.worker.run(self.number, batches), strict=True)]

    def predict(self, *arrays: Any) -> Any:
        """``predict`` as evaluation functions call it."""
        if len(arrays) != len(self.source.inputs):
            raise InputError(
                f"evaluate() called predict with {len(arrays)} arrays; the model takes {len(self.source.inputs)}."
            )
        values = [
            np.asarray(a.detach().numpy() if isinstance(a, torch.Tensor) else a).astype(info.dtype)
            for a, info in zip(arrays, self.source.inputs, strict=True)
        ]
        found = self.run(values)
        if len(found) == 1:
            return found[0]
        return {info.name: value for info, value in zip(self.source.outputs, found, strict=True)}

    def tensors_of_file(self) -> list[dict[str, Any]]:
        """The inputs as a file shall have them, in the order of the Keras model; None is a free size."""
        infos = [self.source.inputs[i] for i in self.order]
        return [
            {"name": i.name, "shape": [None if isinstance(s, str) else s for s in i.shape], "dtype": i.dtype}
            for i in infos
        ]

    def in_model_order(self, samples: Sequence[Sequence[torch.Tensor]]) -> list[list[np.ndarray]]:
        """Calibration samples as arrays in the order of the Keras model."""
        return [[sample[i].numpy() for i in self.order] for sample in samples]


def keras_calibration(keras: KerasSource, given: Any) -> list[Sample]:
    """Calibration samples; a function whose module imports TensorFlow is called where that is.

    Raises:
        InputError: as ``load_calibration``.
    """
    if isinstance(given, str) and ":" in given and is_keras(given):
        names = [keras.source.inputs[i].name for i in keras.order]
        count = keras.worker.ask("samples", data=given, names=names, limit=MAX_CALIBRATION_SAMPLES)
        found = load_batches(keras.worker.folder / "calibration.npz", count)
        given = [_in_source_order(keras, sample, names) for sample in found]
    return load_calibration(keras.source, given)


def _in_source_order(keras: KerasSource, sample: list[np.ndarray], names: list[str]) -> Any:
    if len(sample) != len(names):
        return tuple(sample)
    by_name = dict(zip(names, sample, strict=True))
    return tuple(by_name[info.name] for info in keras.source.inputs)


def keras_evaluation(keras: KerasSource, given: Any) -> Evaluation:
    """The user's metric; a function whose module imports TensorFlow runs where that is, and asks back.

    Raises:
        InputError: as ``load_evaluation``.
    """
    if not (isinstance(given, str) and ":" in given and is_keras(given)):
        return load_evaluation(keras.source, given)

    def evaluate(predict: Any) -> Any:
        # Files are checked side by side in processes of their own: each has its own TensorFlow to talk to.
        worker = KerasWorker(lambda doing: None)
        try:
            return worker.ask("evaluate", predict, function=given)
        finally:
            worker.close()

    return load_evaluation(keras.source, evaluate)


def load_keras_source(
    worker: KerasWorker,
    model: str,
    origin: str,
    *,
    model_args: dict[str, Any],
    trust_pickle: bool,
    example_inputs: Any = None,
    input_shapes: Sequence[str] = (),
    dynamic_batch: bool = False,
    name: str | None = None,
) -> KerasSource:
    """Load ``model`` in the worker and run it once on its example inputs.

    Args:
        model: as the worker finds it.
        origin: as the user wrote it.
        example_inputs, input_shapes, dynamic_batch, name: as for ``load_source_model``; without them every
            input gets seeded random values in the shape that the model declares.

    Raises:
        InputError: anything wrong with these, in one sentence.
    """
    found = worker.ask("load", model=model, origin=origin, trust_pickle=trust_pickle, model_args=model_args)
    declared: list[dict[str, Any]] = found["inputs"]
    if not declared and not input_shapes and example_inputs is None:
        raise InputError(
            f"{origin} doesn't say what it takes (a model written as a class that was never called): give "
            "--input-shape input:float32[1,28,28,1]."
        )
    for tensor in declared:
        if tensor["dtype"] not in _DTYPES:
            raise InputError(
                f"{origin}: input {tensor['name']!r} is of type {tensor['dtype']}, which no model file takes: move "
                "that part (text, lookups) out of the model."
            )
    if example_inputs is None and not input_shapes:
        input_shapes = [_shape_text(tensor, origin) for tensor in declared]
    names = [tensor["name"] for tensor in declared]
    proxy = _Proxy(worker, 0, names, found["outputs"])
    # Messages name the model by the name of its class.
    proxy.__class__ = type(origin, (_Proxy,), {})
    source = load_source_model(
        proxy,
        example_inputs=example_inputs,
        input_shapes=input_shapes,
        dynamic_batch=dynamic_batch,
        name=name,
    )
    stem = origin.rpartition(":")[2].split(".")[-1] if ":" in origin else Path(origin).stem
    source = replace(source, origin=origin, name=name or stem, findings=tuple(_warnings(source)))
    given = [info.name for info in source.inputs]
    order = tuple(given.index(n) for n in names) if set(given) == set(names) else tuple(range(len(given)))
    rows = {t["shape"][0] for t in declared if t["shape"]}
    fixed = rows.pop() if len(rows) == 1 else None
    if fixed is not None and dynamic_batch and fixed:
        raise InputError(f"{origin} is built for {fixed} rows at a time: --dynamic-batch can't change that.")
    return KerasSource(
        worker, source, 0, found["kind"], found["parameters"], found["weight_bytes"], order, fixed
    )


class _Proxy(torch.nn.Module):
    """A module whose forward asks the worker."""

    def __init__(
        self, worker: KerasWorker, number: int, names: Sequence[str], output_names: Sequence[str]
    ) -> None:
        super().__init__()
        self.names, self.output_names = list(names), list(output_names)
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]

        def forward(*args: torch.Tensor, **kwargs: torch.Tensor) -> dict[str, torch.Tensor]:
            given = dict(zip(self.names, args, strict=False)) | kwargs
            values = [given[name] for name in self.names] if self.names else [*args, *kwargs.values()]
            (found,) = worker.run(number, [[value.numpy() for value in values]])
            return {
                name: torch.from_numpy(np.array(value))
                for name, value in zip(self._names_of(found), found, strict=True)
            }

        if names:
            forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    def _names_of(self, found: Sequence[Any]) -> list[str]:
        if len(self.output_names) == len(found):
            return self.output_names
        return ["output"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))]


def _shape_text(tensor: dict[str, Any], origin: str) -> str:
    shape = tensor["shape"]
    if shape is None or any(size is None for size in shape[1:]):
        written = "any shape" if shape is None else str(["?" if s is None else s for s in shape])
        raise InputError(
            f"{origin}: input {tensor['name']!r} has no fixed shape ({written}): give --input-shape "
            f"{tensor['name']}:{tensor['dtype']}[1,…] once for every input."
        )
    sizes = [1 if size is None else size for size in shape]
    return f"{tensor['name']}:{tensor['dtype']}[{','.join(map(str, sizes))}]"


def _warnings(source: SourceModel) -> list[Finding]:
    return [finding for finding in source.findings if "training mode" not in finding.message]
