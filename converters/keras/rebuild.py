"""Rebuilds a Keras 3 model of standard layers with tf_keras, which tensorflow-model-optimization needs.

Only the layers' configs and weights are taken over; the outputs of both are compared before anyone trains.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ...errors import InputError
from ...models.resolve import brief

# Sums of float32 products in another order differ by this much, relative to the largest output.
_TOLERANCE = 1e-4


def to_tf_keras(model: Any, origin: str) -> Any:
    """The same model with tf_keras layers, flat (nested models are written out).

    Args:
        model: a Sequential or functional Keras 3 model.

    Raises:
        InputError: another kind of model, a layer tf_keras doesn't have, or outputs that differ.
    """
    import keras

    if not isinstance(model, keras.Sequential | keras.models.Model) or not _is_graph(model):
        raise InputError(
            f"{origin}: a recipe that trains needs a Sequential or functional model; this {type(model).__name__} is "
            "written as a class: build it from layers, or export it without training passes."
        )
    inputs = [
        tf_keras.Input(batch_shape=tuple(t.shape), dtype=t.dtype, name=_layer_name(t.name))
        for t in model.inputs
    ]
    made = _Rebuilder(origin)
    outputs = made.run(model, inputs)
    rebuilt = tf_keras.Model(inputs, outputs, name=_layer_name(model.name))
    for layer, source in made.pairs:
        _copy_weights(layer, source, origin)
    _check_same(model, rebuilt, origin)
    return rebuilt


def _is_graph(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Sequential | keras.src.models.functional.Functional)


def _layer_name(name: str) -> str:
    return name.replace("/", "_").replace(":", "_")


class _Rebuilder:
    """Walks the graph of a Keras 3 model and calls the same layers of tf_keras."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.pairs: list[tuple[Any, Any]] = []
        self._made: dict[int, Any] = {}
        self._names: set[str] = set()

    def run(self, model: Any, inputs: list[Any]) -> Any:
        """Symbolic outputs of ``model`` (its nested structure) on symbolic ``inputs``."""
        import keras

        if isinstance(model, keras.Sequential):
            value: Any = inputs[0]
            for layer in model.layers:
                value = self._apply(layer, (value,), {})
            return value
        values: dict[int, Any] = {id(t): v for t, v in zip(model.inputs, inputs, strict=True)}
        for node in _nodes_in_order(model):
            if all(id(t) in values for t in node.output_tensors):
                continue
            arguments = node.arguments
            args, kwargs = keras.tree.map_structure(
                lambda part: values.get(id(part), part), (arguments.args, arguments.kwargs)
            )
            result = self._apply(node.operation, args, kwargs)
            for t, v in zip(node.output_tensors, tf.nest.flatten(result), strict=True):
                values[id(t)] = v
        return keras.tree.map_structure(lambda t: values[id(t)], model._outputs_struct)

    def _apply(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import keras

        if isinstance(layer, keras.Model) and _is_graph(layer):
            return self.run(layer, list(tf.nest.flatten(args[0])))
        kept = {k: v for k, v in kwargs.items() if v is not None and k != "training"}
        made = self._layer(layer)
        try:
            return made(*args, **kept)
        except Exception as error:
            raise InputError(
                f"{self.origin}: layer {layer.name!r} can't be rebuilt with tf_keras: {brief(error)}."
            ) from error

    def _layer(self, layer: Any) -> Any:
        if id(layer) in self._made:
            return self._made[id(layer)]
        kind = getattr(tf_keras.layers, type(layer).__name__, None)
        standard = type(layer).__module__.startswith("keras.")
        if (
            kind is None
            or not standard
            or not hasattr(layer, "get_config")
            or type(layer).__name__ == "Lambda"
        ):
            raise InputError(
                f"{self.origin}: {layer.name!r} is a {type(layer).__name__}, which tf_keras has no layer for: recipes "
                "that train take standard layers only; export it without training passes."
            )
        config = _plain_config(layer.get_config(), kind)
        config["name"] = self._unique(_layer_name(layer.name))
        try:
            made = kind.from_config(config)
        except Exception as error:
            raise InputError(
                f"{self.origin}: layer {layer.name!r} can't be rebuilt with tf_keras: {brief(error)}."
            ) from error
        self._made[id(layer)] = made
        self.pairs.append((made, layer))
        return made

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def _nodes_in_order(model: Any) -> Iterator[Any]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _plain_config(config: dict[str, Any], kind: type) -> dict[str, Any]:
    """A Keras 3 config without what the class of tf_keras doesn't know; the weights stand for their initialisers."""
    known = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            known |= set(inspect.signature(vars(base)["__init__"]).parameters)
    known -= {"self", "kwargs", "args", "batch_shape"}
    return {k: _plain(v) for k, v in config.items() if k in known and not k.endswith("_initializer")}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict) or "class_name" not in value or not isinstance(value.get("config"), dict):
        return value
    name = value["class_name"]
    if name == "DTypePolicy":
        return value["config"]["name"]
    # A wrapped layer (Bidirectional, TimeDistributed), a cell, a regulariser, a constraint.
    homes = (tf_keras.layers, tf_keras.regularizers, tf_keras.constraints)
    inner = next((found for home in homes if (found := getattr(home, name, None)) is not None), None)
    return value if inner is None else {**value, "config": _plain_config(value["config"], inner)}


def _copy_weights(layer: Any, source: Any, origin: str) -> None:
    wanted, given = layer.get_weights(), source.get_weights()
    if [w.shape for w in wanted] != [g.shape for g in given]:
        raise InputError(
            f"{origin}: the weights of layer {source.name!r} ({type(source).__name__}) are laid out in another way in "
            "tf_keras: export it without training passes."
        )
    layer.set_weights(given)


def _check_same(model: Any, rebuilt: Any, origin: str) -> None:
    generator = np.random.default_rng(0)
    samples = []
    for tensor in model.inputs:
        shape = [8 if size is None else size for size in tensor.shape]
        whole = not tf.as_dtype(tensor.dtype).is_floating
        value = generator.integers(0, 2, shape) if whole else generator.normal(size=shape)
        samples.append(tf.constant(value, tensor.dtype))
    packed = tf.nest.pack_sequence_as(model._inputs_struct, samples)
    wanted = tf.nest.flatten(model(packed, training=False))
    found = tf.nest.flatten(rebuilt(samples if len(samples) > 1 else samples[0], training=False))
    for a, b in zip(wanted, found, strict=True):
        scale = float(tf.reduce_max(tf.abs(tf.cast(a, tf.float32)))) or 1.0
        error = float(tf.reduce_max(tf.abs(tf.cast(a, tf.float32) - tf.cast(b, tf.float32))))
        if not error <= _TOLERANCE * scale:
            raise InputError(
                f"{origin}: rebuilt with tf_keras the model gives other outputs (by {error:.2g} of {scale:.2g}): export "
                "it without training passes, or save it from tf_keras."
            )
