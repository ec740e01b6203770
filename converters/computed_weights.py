"""Keeps products of two computed tensors in a .tflite file what they are.

LiteRT's converter makes a fully connected layer of a product whose right side has no batch, such as that of queries
and keys of a single head. XNNPACK takes such layers only with constant weights, but products of any kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tflite_file import opcode_index, operator_code, read_model, write_model


def use_products(path: Path) -> None:
    """Rewrite the file in place so that fully connected layers with computed float32 weights are BATCH_MATMULs.

    The numbers are the same. A SegFormer-B0 has two of them outside the delegate otherwise, 5% of its time on one
    x86 core.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(path)
    changed = False
    for graph in model.subgraphs:
        computed = {int(tensor) for operator in graph.operators for tensor in operator.outputs}
        for operator in graph.operators:
            if _is_product(schema, model, graph, computed, operator):
                _make_product(schema, model, operator)
                changed = True
    if changed:
        write_model(model, path)


def _is_product(schema: Any, model: Any, graph: Any, computed: set[int], operator: Any) -> bool:
    if operator_code(model, operator) != schema.BuiltinOperator.FULLY_CONNECTED:
        return False
    source, weights = (graph.tensors[index] for index in operator.inputs[:2])
    result = graph.tensors[operator.outputs[0]]
    floats = all(each.type == schema.TensorType.FLOAT32 for each in (source, weights, result))
    has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
    activation = operator.builtinOptions.fusedActivationFunction
    return (
        floats
        and int(operator.inputs[1]) in computed
        and not has_bias
        and activation == schema.ActivationFunctionType.NONE
        # A layer that flattens what it gets, or drops leading ones, is no product of these shapes.
        and [*source.shape[:-1], weights.shape[0]] == [*result.shape]
        and source.shape[-1] == weights.shape[-1]
    )


def _make_product(schema: Any, model: Any, operator: Any) -> None:
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY, options.asymmetricQuantizeInputs = False, True, False
    operator.builtinOptions = options
    operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
    operator.inputs = operator.inputs[:2]
    # The first version takes float32 on both sides; later ones only add integers.
    operator.opcodeIndex = opcode_index(model, schema.BuiltinOperator.BATCH_MATMUL, version=1)
