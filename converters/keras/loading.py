"""Loads .keras, .h5, SavedModel folders and ``module:attribute`` (the worker's side)."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import InputError
from ...models.resolve import brief, resolve
from ...wording import counted


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its shape with None for a free size, and its dtype's name."""

    name: str
    shape: list[int | None] | None
    dtype: str


@dataclass(frozen=True)
class Loaded:
    """A model that can be called with a flat list of tensors.

    Attributes:
        kind: ``keras3``, ``tf_keras`` or ``savedmodel`` (a graph without layers).
        model: the Keras model, or the object that ``tf.saved_model.load`` gave.
        inputs: what it takes; empty for a subclassed model that was never called.
        call: flat tensors in, flat tensors out, in inference mode.
        output_names: one name an output; empty until known.
    """

    kind: str
    model: Any
    inputs: list[Tensor]
    call: Callable[[Sequence[Any]], list[Any]]
    output_names: list[str]
    parameters: int
    weight_bytes: int


def load(given: str, origin: str, *, trust_pickle: bool, model_args: dict[str, Any]) -> Loaded:
    """The model that ``given`` names.

    Args:
        given: a .keras or .h5 file, a SavedModel folder, or ``module:attribute`` of the user's code.
        origin: what the user wrote, for messages.
        trust_pickle: allow Lambda layers, which hold Python bytecode.
        model_args: keyword arguments of a factory.

    Raises:
        InputError: no such model, or one that can't be read, in one sentence.
    """
    path = Path(given)
    if ":" in given and not path.exists():
        value, _ = resolve(given, "model")
        return from_object(_instantiate(value, model_args, origin), origin)
    if model_args:
        raise InputError(
            f"--model-args goes with a function that makes the model, not with a file ({origin})."
        )
    if path.is_dir():
        return _load_folder(path, origin)
    if not path.is_file():
        raise InputError(f"{origin} does not exist: give a .keras or .h5 file, or a SavedModel folder.")
    return from_object(_load_file(path, origin, trust_pickle), origin)


def from_object(model: Any, origin: str) -> Loaded:
    """A Keras model (of Keras 3 or tf_keras) in its flat form.

    Raises:
        InputError: it is no Keras model, or none whose layers were ever built.
    """
    kind = _kind_of(model)
    if kind is None:
        raise InputError(f"{origin} is a {type(model).__name__}, not a Keras model.")
    inputs = _keras_inputs(model, kind)
    _check_finite(model, origin)
    return Loaded(
        kind,
        model,
        inputs,
        _keras_call(model, kind),
        _unique([_tidy(name) for name in getattr(model, "output_names", None) or []]) if inputs else [],
        sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        sum(int(np.prod(w.shape)) * tf.as_dtype(w.dtype).size for w in model.weights),
    )


def _kind_of(model: Any) -> str | None:
    import keras
    import tf_keras

    if isinstance(model, tf_keras.Model):
        return "tf_keras"
    return "keras3" if isinstance(model, keras.Model) else None


def _instantiate(value: Any, model_args: dict[str, Any], origin: str) -> Any:
    if _kind_of(value) is not None or not callable(value):
        return value
    try:
        return value(**model_args)
    except Exception as error:
        raise InputError(f"calling {origin} to make the model failed: {brief(error)}.") from error


def _keras_inputs(model: Any, kind: str) -> list[Tensor]:
    symbolic = getattr(model, "inputs", None)
    if not symbolic:
        return []
    names = _unique([_input_name(t, kind) for t in symbolic])
    return [
        Tensor(name, [None if s is None else int(s) for s in t.shape], tf.as_dtype(t.dtype).name)
        for name, t in zip(names, symbolic, strict=True)
    ]


def _input_name(tensor: Any, kind: str) -> str:
    # Keras 3 names inputs "keras_tensor_12" when nobody named them; the history knows the layer's name.
    name = tensor.node.layer.name if kind == "tf_keras" and hasattr(tensor, "node") else str(tensor.name)
    name = _tidy(name.partition(":")[0])
    return "input" if re.fullmatch(r"(keras_tensor|input|input_layer)(_\d+)?", name) else name


def _keras_call(model: Any, kind: str) -> Callable[[Sequence[Any]], list[Any]]:
    def call(tensors: Sequence[Any]) -> list[Any]:
        structure = getattr(model, "_inputs_struct" if kind == "keras3" else "_nested_inputs", None)
        if structure is None:
            packed: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        else:
            packed = tf.nest.pack_sequence_as(structure, list(tensors))
        return list(tf.nest.flatten(model(packed, training=False)))

    return call


def _check_finite(model: Any, origin: str) -> None:
    for weight in model.weights:
        values = np.asarray(weight)
        bad = int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0
        if bad:
            name = getattr(weight, "path", weight.name)
            raise InputError(
                f"{origin}: weight {name!r} has {counted(bad, 'NaN or infinite value')} of {values.size}: give a model that is whole."
            )


def _load_file(path: Path, origin: str, trust_pickle: bool) -> Any:
    version = _saved_by(path, origin)
    try:
        if version.startswith("2"):
            import tf_keras

            return tf_keras.models.load_model(path, compile=False, safe_mode=not trust_pickle)
        import keras

        return keras.models.load_model(path, compile=False, safe_mode=not trust_pickle)
    except Exception as error:
        raise InputError(_why_not_loaded(origin, error)) from error


def _saved_by(path: Path, origin: str) -> str:
    """The version of Keras that wrote a file, as its own metadata say.

    Raises:
        InputError: neither a .keras archive nor an HDF5 file.
    """
    import h5py

    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{origin} is a zip archive, but not one that Keras wrote ({error}).") from error
    if h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                version = str(file.attrs.get("keras_version", "2")) if "model_config" in file.attrs else None
        except OSError as error:
            raise InputError(
                f"{origin} can't be read, it is corrupt or truncated: {brief(error)}."
            ) from error
        if version is None:
            raise InputError(
                f"{origin} holds weights only: save the whole model (model.save) or give module:attribute."
            )
        return version
    raise InputError(f"{origin} is neither a .keras archive nor an HDF5 file: it is corrupt or truncated.")


def _why_not_loaded(origin: str, error: Exception) -> str:
    text = str(error)
    if "Lambda" in text and ("safe_mode" in text or "unsafe" in text.lower() or "deserializ" in text):
        return (
            f"{origin} has a Lambda layer, which holds Python bytecode that runs when it is loaded: give --trust-pickle "
            "if you trust the file."
        )
    custom = re.search(
        r"(?:Could not locate class|Unknown (?:layer|object)|Unknown layer:?)[ :]*'?\"?([\w.>]+)", text
    )
    if custom:
        return (
            f"{origin} uses the custom layer or object {custom[1]!r}: give the model from its code as "
            "file.py:attribute instead."
        )
    return f"{origin} can't be loaded: {brief(error)}."


def _load_folder(path: Path, origin: str) -> Loaded:
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{origin} is not a SavedModel: it has no saved_model.pb.")
    if (path / "keras_metadata.pb").is_file():
        import tf_keras

        try:
            return from_object(tf_keras.models.load_model(path, compile=False), origin)
        except InputError:
            raise
        except Exception as error:
            # Custom layers: the graph is as good for an export that doesn't train.
            logging.getLogger(__name__).info("no layers in %s: %s", origin, error)
    try:
        model = tf.saved_model.load(str(path))
    except Exception as error:
        raise InputError(f"{origin} can't be loaded: {brief(error)}.") from error
    return _from_signature(model, origin)


def _from_signature(model: Any, origin: str) -> Loaded:
    signatures = dict(model.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise InputError(f"{origin} has no signature: save it with one (model.export or signatures=...).")
    function = signatures[name]
    given = function.structured_input_signature[1]
    outputs = sorted(function.structured_outputs)

    def call(tensors: Sequence[Any]) -> list[Any]:
        found = function(**dict(zip(given, tensors, strict=True)))
        return [found[key] for key in outputs]

    inputs = [
        Tensor(_tidy(key), None if spec.shape.rank is None else list(spec.shape), spec.dtype.name)
        for key, spec in given.items()
    ]
    variables = list(getattr(model, "variables", None) or function.variables)
    return Loaded(
        "savedmodel",
        model,
        inputs,
        call,
        [_tidy(key) for key in outputs],
        sum(int(np.prod(v.shape)) for v in variables),
        sum(int(np.prod(v.shape)) * v.dtype.size for v in variables),
    )


def _tidy(name: str) -> str:
    return re.sub(r"\W", "_", name) or "tensor"


def _unique(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found
