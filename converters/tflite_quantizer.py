"""Quantises a float32 .tflite file with ai-edge-quantizer, in a second where a conversion takes many."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .tflite_file import operator_code, read_model

Progress = Callable[[str], None]


def quantize_file(
    source: Path,
    precision: str,
    path: Path,
    progress: Progress,
    *,
    group: int = 0,
    samples: Sequence[Mapping[str, np.ndarray]] = (),
) -> None:
    """Quantise a float32 .tflite file.

    int8-dynamic quantises at run time what has fast kernels for it (fully connected, batch matmul, embedding
    lookup, and recurrent cells); convolutions get int8 weights that are expanded to float when the model
    is loaded, because LiteRT's dynamic int8 convolutions leave XNNPACK and were measured 3 times slower.

    Args:
        precision: ``fp16``, ``int8-dynamic``, ``int8-weights``, ``int4-dynamic``, ``int4-weights`` or ``w8a16``.
        group: int4 weights in a row that share a scale; 0 is a whole output channel.
        samples: inputs by name, for w8a16.
    """
    from ai_edge_quantizer import quantizer

    progress(f"quantising to {precision}")
    tool = quantizer.Quantizer(str(source))
    tool.load_quantization_recipe(_recipe(precision, group, source))
    calibrated = None
    if precision == "w8a16":
        progress(f"calibrating on {len(samples)} samples")
        calibrated = _calibrate(tool, _signature(source), samples)
    result = tool.quantize(calibrated)
    path.write_bytes(bytes(result.quantized_model))


def quantize_tables(path: Path) -> None:
    """Give the embeddings of a static int8 file int8 tables with a scale a row, in place.

    PT2E leaves look-ups alone, and with them the largest tensor of a language model.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    model = read_model(path)
    operators = [each for graph in model.subgraphs for each in graph.operators]
    if not any(operator_code(model, each) == schema.BuiltinOperator.EMBEDDING_LOOKUP for each in operators):
        return
    manager = recipe_manager.RecipeManager()
    manager.add_dynamic_config(
        regex=".*", operation_name=qtyping.TFLOperationName.EMBEDDING_LOOKUP, num_bits=8
    )
    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(manager.get_quantization_recipe())
    path.write_bytes(bytes(tool.quantize(None).quantized_model))


def _calibrate(tool: Any, signature: str, samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Tensor -> its smallest and largest values over all samples.

    The tool's own range is an average that moves by a twentieth with each sample: a few samples leave it at the
    first one's, and everything beyond is clipped.
    """
    merged: dict[str, Any] = {}
    for sample in samples:
        for name, found in tool.calibrate({signature: [sample]}).items():
            known = merged.get(name)
            if known and "min" in found:
                found["min"] = np.minimum(known["min"], found["min"])
                found["max"] = np.maximum(known["max"], found["max"])
            merged[name] = found
    return merged


def _recipe(precision: str, group: int, source: Path) -> list[dict[str, Any]]:
    from ai_edge_quantizer import qtyping, recipe_manager

    names = qtyping.TFLOperationName
    manager = recipe_manager.RecipeManager()
    if precision == "fp16":
        _add_half(manager)
    elif precision == "w8a16":
        _add_int16(manager)
    elif precision.endswith("-weights"):
        manager.add_weight_only_config(regex=".*", operation_name=names.ALL_SUPPORTED, num_bits=8)
    else:
        manager.add_dynamic_config(regex=".*", operation_name=names.ALL_SUPPORTED, num_bits=8)
        for operation in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.CONV_2D_TRANSPOSE):
            manager.add_weight_only_config(regex=".*", operation_name=operation, num_bits=8)
        _leave_constant_left_sides(manager, source)
    if precision.startswith("int4-"):
        _add_int4(manager, dynamic=precision == "int4-dynamic", group=group, source=source)
    found: list[dict[str, Any]] = manager.get_quantization_recipe()
    return found


def _add_half(manager: Any) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    manager.add_quantization_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )


def _add_int16(manager: Any) -> None:
    """int16 inside, float32 at the border; embeddings, which int16 kernels don't know, get int8 tables."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    names = qtyping.TFLOperationName
    manager.add_static_config(
        regex=".*", operation_name=names.ALL_SUPPORTED, activation_num_bits=16, weight_num_bits=8
    )
    for border in (names.INPUT, names.OUTPUT):
        manager.add_quantization_config(
            regex=".*", operation_name=border, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    manager.add_dynamic_config(regex=".*", operation_name=names.EMBEDDING_LOOKUP, num_bits=8)


def _add_int4(manager: Any, *, dynamic: bool, group: int, source: Path) -> None:
    """int4 for fully connected layers; those whose rows don't divide into groups keep int8."""
    from ai_edge_quantizer import qtyping

    add = manager.add_dynamic_config if dynamic else manager.add_weight_only_config
    granularity = qtyping.QuantGranularity[f"BLOCKWISE_{group}" if group else "CHANNELWISE"]
    name = qtyping.TFLOperationName.FULLY_CONNECTED
    add(regex=".*", operation_name=name, num_bits=4, granularity=granularity)
    for output, width in _fully_connected(source):
        if group and width % group:
            add(regex=_exactly(output), operation_name=name, num_bits=8)


def _leave_constant_left_sides(manager: Any, source: Path) -> None:
    """Keep products in float whose left side is a constant.

    The tool would make int8 of it, which LiteRT's kernel refuses beside float activations; with two constants the
    kernel runs and gives NaN.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import algorithm_manager, qtyping

    model = read_model(source)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_code(model, operator) != schema.BuiltinOperator.BATCH_MATMUL:
                continue
            stored = model.buffers[graph.tensors[operator.inputs[0]].buffer].data
            if stored is not None and len(stored):
                output = graph.tensors[operator.outputs[0]].name.decode()
                manager.add_quantization_config(
                    regex=_exactly(output),
                    operation_name=qtyping.TFLOperationName.BATCH_MATMUL,
                    algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
                )


def _exactly(output: str) -> str:
    """The tool looks for a pattern anywhere in an operator's scope, which is its outputs' names, each with ";"."""
    return f"^{re.escape(output)};$"


def _fully_connected(path: Path) -> Iterator[tuple[str, int]]:
    """(name of the output, weights a row) of each fully connected layer of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(path)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_code(model, operator) == schema.BuiltinOperator.FULLY_CONNECTED:
                weight = graph.tensors[operator.inputs[1]]
                yield graph.tensors[operator.outputs[0]].name.decode(), int(weight.shape[-1])


def _signature(path: Path) -> str:
    key: str = read_model(path).signatureDefs[0].signatureKey.decode()
    return key
