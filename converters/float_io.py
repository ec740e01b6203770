"""Gives an int8 .tflite file float32 where its .pte sibling has it: at the border, and in some activations.

LiteRT's converter drops the quantise operators at the border of a static int8 graph, which leaves the
app to scale its data; and it fuses those around an activation into an int8 one, for which XNNPACK may have no
kernel. They are put back here, as QUANTIZE and DEQUANTIZE operators that XNNPACK runs.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from ..optimizers.annotation import FIXED_RESULTS
from .tflite_file import opcode_index, operator_code, read_model, write_model


def use_float_io(path: Path) -> None:
    """Rewrite the file in place so that each int8 input and output becomes float32.

    So do int8 activations that no kernel gives with the scales they have here, and those that XNNPACK computes in
    float32 only: LiteRT's own kernels took 69% of a MobileNetV3-Large's time, on one thread, and each of them ended
    a part that is delegated.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(path)
    # Others hold what an operator of this one does with each element.
    graph = model.subgraphs[0]
    border = _Border(schema, model, graph)
    graph.inputs = [border.float_input(index) for index in graph.inputs]
    graph.outputs = [border.float_output(index) for index in graph.outputs]
    inside = [written for operator in graph.operators for written in border.float_activation(operator)]
    graph.operators = [*border.first, *inside, *border.last]
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = border.replaced.get(entry.tensorIndex, entry.tensorIndex)
    write_model(model, path)


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
        outer = self.replaced[int(index)] = self._float_twin(index)
        self.first.append(self._operator(self._schema.BuiltinOperator.QUANTIZE, outer, index))
        return outer

    def float_output(self, index: int) -> int:
        if not self._is_quantized(index):
            return int(index)
        outer = self.replaced[int(index)] = self._float_twin(index)
        self.last.append(self._operator(self._schema.BuiltinOperator.DEQUANTIZE, index, outer))
        return outer

    def float_activation(self, operator: Any) -> list[Any]:
        """The operator itself, or where it is such an activation the three that stand for it."""
        kinds = self._schema.BuiltinOperator
        source, destination = operator.inputs[0], operator.outputs[0]
        if not (self._is_quantized(source) and self._is_quantized(destination)) or not self._wants_float(
            operator
        ):
            return [operator]
        operator.inputs, operator.outputs = [self._float_twin(source)], [self._float_twin(destination)]
        return [
            self._operator(kinds.DEQUANTIZE, source, operator.inputs[0]),
            operator,
            self._operator(kinds.QUANTIZE, operator.outputs[0], destination),
        ]

    def _wants_float(self, operator: Any) -> bool:
        """Whether XNNPACK has no int8 kernel of it, or LiteRT none that gives a result of this scale."""
        kinds = self._schema.BuiltinOperator
        code = operator_code(self._model, operator)
        if code in (kinds.HARD_SWISH, kinds.GELU):
            return True
        fixed = {kinds.LOGISTIC: "sigmoid", kinds.SOFTMAX: "softmax", kinds.TANH: "tanh"}
        if code not in fixed:
            return False
        given = self._graph.tensors[operator.outputs[0]].quantization
        scale, zero_point = FIXED_RESULTS[fixed[code]]
        return not math.isclose(given.scale[0], scale, rel_tol=1e-3) or given.zeroPoint[0] != zero_point

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
        return len(self._graph.tensors) - 1

    def _operator(self, builtin: int, source: int, destination: int) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = opcode_index(self._model, builtin, version=2)
        operator.inputs = [int(source)]
        operator.outputs = [int(destination)]
        return operator
