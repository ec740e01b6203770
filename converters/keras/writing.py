"""Writes a loaded model as a .tflite file with TensorFlow's own converter (the worker's side)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import InputError
from ...models.resolve import brief
from .loading import Loaded


def write_tflite(
    loaded: Loaded,
    path: Path,
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[str],
    *,
    quantized: bool,
    calibration: Sequence[Sequence[np.ndarray]] | None,
) -> None:
    """Convert ``loaded`` for inputs of the given shapes.

    Args:
        inputs: name, shape (None: free) and dtype of each, as the file shall have them.
        outputs: the outputs' names.
        quantized: whether the model was trained with quantisers, whose ranges become int8.
        calibration: samples for static int8 after training, or None.

    Raises:
        InputError: operators that the format doesn't have.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _save(loaded, Path(folder), inputs, outputs)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantized or calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if calibration is not None:
            names = [info["name"] for info in inputs]
            converter.representative_dataset = lambda: (
                dict(zip(names, sample, strict=True)) for sample in calibration
            )
        try:
            content = converter.convert()
        except Exception as error:
            raise InputError(_why_not(error)) from error
    partial = path.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(path)


def _save(loaded: Loaded, folder: Path, inputs: Sequence[dict[str, Any]], outputs: Sequence[str]) -> None:
    """A SavedModel with one signature, which gives the file's tensors the names of the model's."""
    specs = [tf.TensorSpec(info["shape"], info["dtype"], name=info["name"]) for info in inputs]

    def serve(*tensors: Any) -> dict[str, Any]:
        return {
            name: tf.identity(value, name=name)
            for name, value in zip(outputs, loaded.call(tensors), strict=True)
        }

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    try:
        function = module.serve.get_concrete_function()
        # The variables alone: with a Keras 3 model attached the converter keeps them as variables, which can't be
        # quantised. A bare graph may have tables besides.
        module.weights = list(function.variables)
        module.graph = loaded.model if loaded.kind == "savedmodel" else None
        tf.saved_model.save(module, str(folder), signatures=function)
    except Exception as error:
        raise InputError(f"the model can't be traced as a graph: {brief(error)}.") from error


def _why_not(error: Exception) -> str:
    text = str(error)
    select = re.findall(r"Flex(\w+)", text)
    custom = re.findall(r"tf\.([A-Z]\w+)", text) if "custom op" in text.lower() or "legalize" in text else []
    if select or custom:
        names = ", ".join(sorted(set(select or custom))[:6])
        return (
            f"LiteRT's runtime has no operator for {names}: replace it by other layers (only TensorFlow's own "
            "Select TF ops have it, which phones don't carry)."
        )
    return f"TensorFlow's converter can't write the model: {brief(error)}."
