"""Writes a .tflite file of a few operators in milliseconds, without any exporter."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_tflite(
    path: Path, *, image: int = 32, channels: int = 16, classes: int = 10, empty: bool = False
) -> Path:
    """A 3×3 convolution with a clamp, a mean over the picture, a fully connected layer and a softmax."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers = [schema.BufferT()]
    tensors: list[object] = []

    def tensor(
        shape: list[int], values: np.ndarray | None = None, dtype: int = schema.TensorType.FLOAT32
    ) -> int:
        found = schema.TensorT()
        found.shape, found.type, found.name = (
            np.array(shape, np.int32),
            dtype,
            f"tensor_{len(tensors)}".encode(),
        )
        found.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            buffers.append(buffer)
            found.buffer = len(buffers) - 1
        tensors.append(found)
        return len(tensors) - 1

    def operator(
        code: int, inputs: list[int], outputs: list[int], kind: int = 0, options: object = None
    ) -> object:
        found = schema.OperatorT()
        found.opcodeIndex, found.inputs, found.outputs = (
            code,
            np.array(inputs, np.int32),
            np.array(outputs, np.int32),
        )
        found.builtinOptionsType, found.builtinOptions = kind, options
        return found

    data = tensor([1, image, image, 3])
    filters = tensor([channels, 3, 3, 3], np.ones((channels, 3, 3, 3), np.float32))
    bias = tensor([channels], np.zeros(channels, np.float32))
    features = tensor([1, image, image, channels])
    axes = tensor([2], np.array([1, 2], np.int32), schema.TensorType.INT32)
    mean = tensor([1, channels])
    weights = tensor([classes, channels], np.ones((classes, channels), np.float32))
    logits, scores = tensor([1, classes]), tensor([1, classes])
    conv = schema.Conv2DOptionsT()
    conv.strideW = conv.strideH = conv.dilationWFactor = conv.dilationHFactor = 1
    conv.fusedActivationFunction = schema.ActivationFunctionType.RELU
    builtin, options = schema.BuiltinOperator, schema.BuiltinOptions
    graph = schema.SubGraphT()
    graph.tensors = tensors
    graph.inputs, graph.outputs = np.array([data], np.int32), np.array([scores], np.int32)
    graph.operators = [] if empty else [
        operator(0, [data, filters, bias], [features], options.Conv2DOptions, conv),
        operator(1, [features, axes], [mean], options.ReducerOptions, schema.ReducerOptionsT()),
        operator(2, [mean, weights, -1], [logits], options.FullyConnectedOptions, schema.FullyConnectedOptionsT()),
        operator(3, [logits], [scores], options.SoftmaxOptions, schema.SoftmaxOptionsT()),
    ]  # fmt: skip
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], buffers
    model.operatorCodes = []
    for code in (builtin.CONV_2D, builtin.MEAN, builtin.FULLY_CONNECTED, builtin.SOFTMAX):
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        model.operatorCodes.append(entry)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
