"""The kernels of a .tflite file for the cost model, read from its tables alone.

Nothing is prepared or run: who executes an operator follows from what XNNPACK's delegate in LiteRT 2.3 takes.
Constants that a DEQUANTIZE widens are unpacked once, when the file is loaded, and computed with in float.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cost_model import Kernel
from ..cost_model.kernels import Precision
from ..cost_model.memory import MemoryFacts, peak_bytes
from ..cost_model.shapes import Filter, Shape, convolution, linear, mean, pooling, product, simple
from .kernels_fused import Step, clamped, with_tables
from .tflite_file import read_model

_XNNPACK = "XNNPACK"
# No work: the output is the input's memory under another shape.
_FREE = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "RANK", "BITCAST", "CALL_ONCE", "VAR_HANDLE")
_LAYOUT = (
    "TRANSPOSE", "CONCATENATION", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "PAD", "PADV2", "MIRROR_PAD", "PACK",
    "UNPACK", "TILE", "BROADCAST_TO", "GATHER_ND", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BATCH_TO_SPACE_ND",
    "SPACE_TO_BATCH_ND", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "REVERSE_V2", "FILL", "SCATTER_ND", "DYNAMIC_UPDATE_SLICE",
)  # fmt: skip
_ELEMENTWISE = (
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "ABS", "NEG", "CEIL", "FLOOR", "ROUND",
    "SQRT", "RSQRT", "SQUARE", "EXP", "LOG", "SIN", "COS", "TANH", "LOGISTIC", "GELU", "ELU", "HARD_SWISH",
    "LEAKY_RELU", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE", "DEQUANTIZE", "CAST", "POW", "SIGN",
    "ADD_N", "FLOOR_DIV", "FLOOR_MOD", "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL",
    "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SELECT", "SELECT_V2", "WHERE",
)  # fmt: skip
_REDUCING = (
    "MEAN",
    "SUM",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "REDUCE_PROD",
    "REDUCE_ANY",
    "REDUCE_ALL",
    "ARG_MAX",
    "ARG_MIN",
)
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")
# What XNNPACK's delegate leaves to the runtime's own kernels.
_NEVER_DELEGATED = (
    "CONV_3D", "GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "CAST", "POW", "SIGN", "ADD_N", "FLOOR_DIV", "FLOOR_MOD",
    "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR",
    "LOGICAL_NOT", "SELECT", "SELECT_V2", "WHERE", "PADV2", "MIRROR_PAD", "PACK", "UNPACK", "TILE", "ROUND",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "FILL", "SCATTER_ND", "SPLIT_V", "BATCH_TO_SPACE_ND", "REDUCE_PROD",
    "SPACE_TO_BATCH_ND", "REDUCE_ANY", "REDUCE_ALL", "ARG_MAX", "ARG_MIN", "CUMSUM", "TOPK_V2", "L2_NORMALIZATION",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "DYNAMIC_UPDATE_SLICE", "REDUCE_MAX", "REDUCE_MIN",
)  # fmt: skip
_FLOAT_ONLY = (
    "SOFTMAX", "HARD_SWISH", "GELU", "SQUARED_DIFFERENCE", "RSQRT", "SQRT", "SQUARE", "EXP", "LOG", "SIN", "COS",
    "PRELU", "DIV", "MAXIMUM", "MINIMUM", "ABS", "NEG", "FLOOR", "CEIL", "AVERAGE_POOL_2D",
)  # fmt: skip


def read_tflite(path: Path) -> tuple[list[Kernel], MemoryFacts]:
    """The kernels of the file's first subgraph in the order in which they run, and what they need of memory."""
    from ai_edge_litert import schema_py_generated as schema

    from .inspect_tflite import Names

    data = path.read_bytes()
    model = read_model(data)
    graph = _Graph(model, Names(schema, model))
    found: list[Step] = []
    for operator in graph.operators:
        kernel = _kernel(graph, operator)
        if kernel is not None:
            kernel = replace(kernel, op=graph.op(operator).lower())
            computed = tuple(int(i) for i in operator.inputs if i >= 0 and not graph.is_constant(int(i)))
            stored = [int(i) for i in operator.inputs if i >= 0 and graph.is_constant(int(i))]
            writes = tuple(int(i) for i in operator.outputs)
            step = Step(kernel, computed, writes, any(graph.shape(i).elements > 1 for i in stored))
            bounds = getattr(operator.builtinOptions, "fusedActivationFunction", None)
            found += clamped(step) if kernel.kind == "elementwise" and bounds else [step]
    kernels = [step.kernel for step in with_tables(found, graph.outputs)]
    return kernels, _memory(graph, len(data))


def _memory(graph: _Graph, file_bytes: int) -> MemoryFacts:
    steps = []
    for operator in graph.operators:
        # A view of another shape is the same memory: it is written where its input is.
        reads, writes = (
            {graph.storage(int(i)) for i in side if i >= 0} for side in (operator.inputs, operator.outputs)
        )
        steps.append((reads, writes))
    constants = {index for index in range(graph.tensor_count) if graph.is_constant(index)}
    sizes = {
        index: graph.shape(index).bytes
        for index in range(graph.tensor_count)
        if index not in constants and graph.storage(index) == index
    }
    weights = sum(graph.shape(index).bytes for index in constants - graph.stored)
    ends = ([graph.storage(index) for index in side] for side in (graph.inputs, graph.outputs))
    tables = {
        int(index)
        for operator in graph.operators
        if graph.op(operator) in ("GATHER", "EMBEDDING_LOOKUP")
        for index in operator.inputs
        if graph.is_constant(int(index)) and len(graph.sizes(int(index))) > 1
    }
    looked_up = sum(graph.shape(index).bytes for index in tables)
    unpacked = sum(graph.shape(index).bytes for index in graph.stored)
    arena = peak_bytes(steps, sizes, *ends)
    io = sum(graph.shape(index).bytes for index in (*graph.inputs, *graph.outputs))
    return MemoryFacts(file_bytes, int(weights), arena, int(looked_up), int(unpacked), int(io))


class _Graph:
    """One subgraph with the questions that kernels raise."""

    def __init__(self, model: Any, names: Any) -> None:
        self._model, self._names = model, names
        subgraph = model.subgraphs[0]
        self._tensors = subgraph.tensors
        self.operators = subgraph.operators
        self._readers: dict[int, list[Any]] = {}
        producers: dict[int, Any] = {}
        for operator in self.operators:
            for index in operator.inputs:
                self._readers.setdefault(int(index), []).append(operator)
            for index in operator.outputs:
                producers[int(index)] = operator
        # Made of constants alone when the file is loaded, such as weights that are widened.
        self.stored: set[int] = set()
        for index, operator in producers.items():
            if self.op(operator) in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE") and self.is_constant(
                int(operator.inputs[0])
            ):
                self.stored.add(index)
        self.inputs = [int(index) for index in subgraph.inputs]
        self.outputs = {int(index) for index in subgraph.outputs}
        self._producers = producers

    def op(self, operator: Any) -> str:
        name: str = self._names.op(operator)
        return name

    def name(self, operator: Any) -> str:
        output = self._tensors[operator.outputs[0]]
        return output.name.decode() if output.name else self.op(operator)

    def dtype(self, index: int) -> str:
        name: str = self._names.dtype(self._tensors[index])
        return name

    def zero_point(self, index: int) -> int:
        """Of a tensor quantised as one; 0 where it isn't quantised."""
        quantization = self._tensors[index].quantization
        points = quantization.zeroPoint if quantization is not None else None
        return int(points[0]) if points is not None and len(points) else 0

    def sizes(self, index: int) -> tuple[int, ...]:
        shape = self._tensors[index].shape
        return tuple(int(size) for size in shape) if shape is not None else ()

    def shape(self, index: int) -> Shape:
        return Shape.of(self.sizes(index), self.dtype(index))

    def is_constant(self, index: int) -> bool:
        if index in self.stored:
            return True
        buffer = self._model.buffers[self._tensors[index].buffer]
        size: int = len(buffer.data) if buffer.data is not None else buffer.size or 0
        return size > 0

    @property
    def tensor_count(self) -> int:
        return len(self._tensors)

    def storage(self, index: int) -> int:
        """The tensor whose memory this one is a view of: itself, or what it was reshaped from."""
        producer = self._producers.get(index)
        if producer is None or self.is_constant(index):
            return index
        op = self.op(producer)
        viewed = op in _FREE or (op == "PAD" and self.pads_a_convolution(producer))
        return self.storage(int(producer.inputs[0])) if viewed and len(producer.inputs) else index

    def activations(self, operator: Any) -> list[Shape]:
        """Inputs that are computed, not stored."""
        return [self.shape(int(i)) for i in operator.inputs if i >= 0 and not self.is_constant(int(i))]

    def constant_bytes(self, operator: Any) -> float:
        return sum(self.shape(int(i)).bytes for i in operator.inputs if i >= 0 and self.is_constant(int(i)))

    def pads_a_convolution(self, operator: Any) -> bool:
        """Whether XNNPACK folds this zero padding of height and width into the convolution that reads it."""
        out = int(operator.outputs[0])
        readers = self._readers.get(out, [])
        same_channels = self.sizes(out)[-1:] == self.sizes(int(operator.inputs[0]))[-1:]
        return (
            same_channels
            and out not in self.outputs
            and len(readers) == 1
            and self.op(readers[0]) in ("CONV_2D", "DEPTHWISE_CONV_2D")
        )

    def unpadded(self, index: int) -> int:
        """The tensor behind a padding that is folded into its reader."""
        producer = self._producers.get(index)
        if producer is not None and self.op(producer) == "PAD" and self.pads_a_convolution(producer):
            return int(producer.inputs[0])
        return index


def _kernel(graph: _Graph, operator: Any) -> Kernel | None:
    op, name = graph.op(operator), graph.name(operator)
    if op in _FREE or not len(operator.outputs) or int(operator.outputs[0]) in graph.stored:
        return None
    if op == "PAD" and graph.pads_a_convolution(operator):
        return None
    out = graph.shape(int(operator.outputs[0]))
    delegate = _delegate(graph, operator, op)
    if op in _CONVOLUTIONS:
        return _convolution(graph, operator, op, delegate)
    if op == "FULLY_CONNECTED":
        return _linear(graph, operator, delegate)
    reads = graph.activations(operator)
    if op == "BATCH_MATMUL" and len(reads) == 2:
        return product(name, reads[0], reads[1], out, reads[0].precision, delegate=delegate)
    if op == "BATCH_MATMUL":
        weights = graph.dtype(int(operator.inputs[1]))
        return linear(name, reads[0], out, reads[0].precision, weights=weights, bias=False, delegate=delegate)
    if op in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"):
        options = operator.builtinOptions
        window = options.filterHeight * options.filterWidth
        step = math.sqrt(options.strideH * options.strideW)
        return pooling(
            name, reads[0], out, window=window, side=math.sqrt(window), step=step, delegate=delegate
        )
    if op in _REDUCING and reads:
        return mean(name, reads[0], out, delegate=delegate)
    if op in ("GATHER", "EMBEDDING_LOOKUP"):
        # Of a table only the rows that are asked for are read.
        return simple(name, "embedding", [out], out, delegate=delegate)
    if op == "STRIDED_SLICE" or op in ("SLICE", "SPLIT", "SPLIT_V"):
        outs = [graph.shape(int(index)) for index in operator.outputs]
        total = Shape(sum(each.elements for each in outs) // out.channels, out.channels, out.dtype)
        return simple(name, "layout", [total], total, delegate=delegate)
    kind = "softmax" if op in ("SOFTMAX", "LOG_SOFTMAX") else "other"
    if op in _ELEMENTWISE:
        kind = "elementwise"
    elif op in _LAYOUT:
        kind = "layout"
    elif op in ("L2_NORMALIZATION", "LOCAL_RESPONSE_NORMALIZATION"):
        kind = "norm"
    constants = graph.constant_bytes(operator) if kind == "elementwise" else 0.0
    return simple(name, kind, reads, out, constants=constants, delegate=delegate)  # type: ignore[arg-type]


def _delegate(graph: _Graph, operator: Any, op: str) -> str | None:
    if op.startswith("custom:") or op in _NEVER_DELEGATED:
        return None
    if not len(operator.inputs):
        return None
    data = graph.dtype(int(operator.inputs[2 if op == "TRANSPOSE_CONV" else 0]))
    if data not in ("float32", "float16", "int8", "uint8"):
        return None
    if op in _FLOAT_ONLY and data in ("int8", "uint8"):
        return None
    # It multiplies int8 matrices where the second has zero point 0 only.
    if op == "BATCH_MATMUL" and data in ("int8", "uint8") and graph.zero_point(int(operator.inputs[1])):
        return None
    # Float activations with 8-bit weights: the delegate has no such depthwise convolutions.
    hybrid = (
        op == "DEPTHWISE_CONV_2D" and data == "float32" and graph.dtype(int(operator.inputs[1])) == "int8"
    )
    return None if hybrid else _XNNPACK


def _convolution(graph: _Graph, operator: Any, op: str, delegate: str | None) -> Kernel:
    transposed = op == "TRANSPOSE_CONV"
    source = graph.unpadded(int(operator.inputs[2 if transposed else 0]))
    weights = int(operator.inputs[1])
    data, out = graph.shape(source), graph.shape(int(operator.outputs[0]))
    sizes, options = graph.sizes(weights), operator.builtinOptions
    dtype = graph.dtype(weights)
    groups = out.channels if op == "DEPTHWISE_CONV_2D" else max(1, data.channels // sizes[-1])
    if op == "DEPTHWISE_CONV_2D":
        groups = data.channels
    elif transposed or op == "CONV_3D":
        groups = 1
    sides = sizes[:3] if op == "CONV_3D" else sizes[1:3]
    strides = [options.strideH, options.strideW] + ([options.strideD] if op == "CONV_3D" else [])
    return convolution(
        graph.name(operator), data, out, Filter(sides, strides, groups, dtype),
        _product_precision(data, dtype), transposed=transposed, delegate=delegate,
    )  # fmt: skip


def _linear(graph: _Graph, operator: Any, delegate: str | None) -> Kernel:
    data, weights = graph.shape(int(operator.inputs[0])), int(operator.inputs[1])
    # The rows of the product are those of the data, whatever shape it is written in.
    outputs, inner = graph.sizes(weights)
    dtype = graph.dtype(weights)
    out = graph.shape(int(operator.outputs[0]))
    rows = Shape(max(1, data.elements // inner), outputs, out.dtype)
    bias = len(operator.inputs) > 2 and int(operator.inputs[2]) >= 0
    return linear(
        graph.name(operator), data, rows, _product_precision(data, dtype), weights=dtype, bias=bias,
        delegate=delegate,
    )  # fmt: skip


def _product_precision(data: Shape, weights: str) -> Precision:
    """Of a product: 8-bit weights make it one of integers, whether the activations come so or are converted."""
    if weights in ("int4", "uint4"):
        return "int4"
    return "int8" if weights in ("int8", "uint8") else data.precision
