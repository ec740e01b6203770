"""Reads a .tflite file through the flatbuffer schema that comes with ai-edge-litert."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError
from .file_report import FileReport, OpReport, TensorReport
from .tflite_file import builtin_code, read_model

_LAYOUT = ("TRANSPOSE", "RESHAPE", "PAD", "SLICE", "CONCATENATION", "SQUEEZE", "EXPAND_DIMS")
_CONVOLUTIONS = ("CONV_2D", "CONV_3D")


def inspect_tflite(path: Path) -> FileReport:
    """The contents of a .tflite file's first subgraph, and what XNNPACK takes of it on this machine."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise EdgeoptError(
            "ai-edge-litert is not installed: pip install ai-edge-litert to read .tflite files."
        ) from error
    data = path.read_bytes()
    model = read_model(data)
    graph = model.subgraphs[0]
    names = Names(schema, model)
    delegated = _delegated(path, len(graph.operators))
    constants = {i for i, t in enumerate(graph.tensors) if _buffer_bytes(model, t)}
    ops = tuple(_op(graph, op, names, constants, delegated.get(i)) for i, op in enumerate(graph.operators))
    weights: Counter[str] = Counter()
    for index in constants:
        tensor = graph.tensors[index]
        # Shapes, axes and biases are constants too; weights are what has two dimensions or more.
        if tensor.shape is not None and len(tensor.shape) > 1:
            weights[names.dtype(tensor)] += math.prod(int(s) for s in tensor.shape)
    return FileReport(
        path=path,
        format="tflite",
        size_bytes=len(data),
        ops=ops,
        inputs=tuple(_tensor(graph, i, names, model, "inputs") for i in graph.inputs),
        outputs=tuple(_tensor(graph, i, names, model, "outputs") for i in graph.outputs),
        weights=dict(weights),
        weight_bytes=sum(_buffer_bytes(model, t) for t in graph.tensors),
        schema_version=str(model.version),
    )


class Names:
    """Words for the schema's enum numbers."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._ops = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
        self._types = {v: k for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
        self._model = model

    def op(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return f"custom:{code.customCode.decode()}"
        return str(self._ops[builtin_code(code)])

    def dtype(self, tensor: Any) -> str:
        return str(self._types[tensor.type]).lower()


def _buffer_bytes(model: Any, tensor: Any) -> int:
    buffer = model.buffers[tensor.buffer]
    if buffer.data is not None:
        return len(buffer.data)
    return int(getattr(buffer, "size", 0) or 0)


def _shape(tensor: Any) -> tuple[int, ...]:
    signature = tensor.shapeSignature
    shape = signature if signature is not None and len(signature) else tensor.shape
    return tuple(int(size) for size in shape) if shape is not None else ()


def _op(graph: Any, operator: Any, names: Names, constants: set[int], delegate: str | None) -> OpReport:
    op = names.op(operator)
    inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
    output = graph.tensors[operator.outputs[0]] if len(operator.outputs) else None
    shape = tuple(abs(size) for size in _shape(output)) if output is not None else ()
    weight = next(
        (
            graph.tensors[i]
            for i in operator.inputs[1:]
            if i in constants and len(_shape(graph.tensors[i])) > 1
        ),
        None,
    )
    factor = inputs[1] if op == "BATCH_MATMUL" else weight
    return OpReport(
        op=op,
        delegate=delegate,
        macs=_macs(op, inputs, shape),
        output_shape=shape,
        weight_dtype=names.dtype(weight) if weight is not None else None,
        factor_dtype=names.dtype(factor) if factor is not None else None,
        layout=op in _LAYOUT,
        name=output.name.decode() if output is not None and output.name else None,
    )


def _macs(op: str, inputs: list[Any], output: tuple[int, ...]) -> int:
    shapes = [tuple(abs(s) for s in _shape(tensor)) for tensor in inputs]
    if op in _CONVOLUTIONS:
        return math.prod(output) * math.prod(shapes[1][1:])
    if op == "DEPTHWISE_CONV_2D":
        return math.prod(output) * math.prod(shapes[1][1:3])
    if op == "TRANSPOSE_CONV":
        return math.prod(shapes[2][:-1]) * math.prod(shapes[1])
    if op == "FULLY_CONNECTED":
        return math.prod(output) * shapes[1][-1]
    if op == "BATCH_MATMUL":
        return math.prod(output) * shapes[0][-1]
    return 0


def _tensor(graph: Any, index: int, names: Names, model: Any, side: str) -> TensorReport:
    tensor = graph.tensors[index]
    name = tensor.name.decode() if tensor.name else f"{side}_{index}"
    for signature in model.signatureDefs or []:
        for entry in getattr(signature, side) or []:
            if entry.tensorIndex == index:
                name = entry.name.decode()
    quantization = None
    q = tensor.quantization
    if q is not None and q.scale is not None and len(q.scale) == 1:
        quantization = (float(q.scale[0]), int(q.zeroPoint[0]) if q.zeroPoint is not None else 0)
    return TensorReport(name, names.dtype(tensor), _shape(tensor), quantization)


def _delegated(path: Path, op_count: int) -> dict[int, str]:
    """Operator index -> the delegate that executes it once LiteRT has prepared the file here.

    The interpreter lists the original operators and, after them, one node a delegated partition with its
    outer tensors: what lies between those is what the delegate took.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        try:
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError):
            # Custom operators: nothing can be said about who would run the rest.
            return {}
        nodes = interpreter._get_ops_details()
    producers = {int(t): i for i, node in enumerate(nodes[:op_count]) for t in np.atleast_1d(node["outputs"])}
    taken: dict[int, str] = {}
    for node in nodes[op_count:]:
        if node["op_name"] != "DELEGATE":
            continue
        border = {int(t) for t in node["inputs"]}
        pending = [int(t) for t in node["outputs"]]
        while pending:
            producer = producers.get(pending.pop())
            if producer is None or producer in taken:
                continue
            taken[producer] = "XNNPACK"
            pending += [int(t) for t in nodes[producer]["inputs"] if int(t) not in border]
    return taken


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the C++ side prints to stderr while a delegate is created."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
