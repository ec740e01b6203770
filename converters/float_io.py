"""Gives an int8 .tflite file float32 inputs and outputs, as its .pte sibling has.

LiteRT's converter drops the quantise operators at the border of a static int8 graph, which leaves the
app to scale its data. They are put back here, as QUANTIZE and DEQUANTIZE operators that XNNPACK runs.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError


def use_float_io(path: Path) -> None:
    """Rewrite the file in place so that each int8 input and output becomes float32."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    if len(model.subgraphs) != 1:
        raise EdgeoptError(f"{path.name} has {len(model.subgraphs)} subgraphs; one was expected.")
    graph = model.subgraphs[0]
    border = _Border(schema, model, graph)
    graph.inputs = [border.float_input(index) for index in graph.inputs]
    graph.outputs = [border.float_output(index) for index in graph.outputs]
    graph.operators = [*border.first, *graph.operators, *border.last]
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = border.replaced.get(entry.tensorIndex, entry.tensorIndex)
    builder = flatbuffers.Builder(len(path.read_bytes()) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


class _Border:
    """Collects the operators that go before and after the graph."""

    def __init__(self, schema: Any, model: Any, graph: Any) -> None:
        self._schema, self._model, self._graph = schema, model, graph
        self.first: list[Any] = []
        self.last: list[Any] = []
        self.replaced: dict[int, int] = {}

    def float_input(self, index: int) -> int:
        if not self._is_quantized(index):
            return int(index)
        outer = self._float_twin(index)
        self.first.append(self._operator(self._schema.BuiltinOperator.QUANTIZE, outer, index))
        return outer

    def float_output(self, index: int) -> int:
        if not self._is_quantized(index):
            return int(index)
        outer = self._float_twin(index)
        self.last.append(self._operator(self._schema.BuiltinOperator.DEQUANTIZE, index, outer))
        return outer

    def _is_quantized(self, index: int) -> bool:
        tensor = self._graph.tensors[index]
        quantization = tensor.quantization
        int8 = tensor.type == self._schema.TensorType.INT8
        return int8 and quantization is not None and quantization.scale is not None

    def _float_twin(self, index: int) -> int:
        tensor = copy.copy(self._graph.tensors[index])
        tensor.type = self._schema.TensorType.FLOAT32
        tensor.quantization = None
        tensor.buffer = 0
        tensor.name = (tensor.name or b"tensor") + b"_float"
        self._graph.tensors.append(tensor)
        twin = len(self._graph.tensors) - 1
        self.replaced[int(index)] = twin
        return twin

    def _operator(self, builtin: int, source: int, destination: int) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._opcode(builtin)
        operator.inputs = [int(source)]
        operator.outputs = [int(destination)]
        return operator

    def _opcode(self, builtin: int) -> int:
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 2
        codes.append(code)
        return len(codes) - 1
