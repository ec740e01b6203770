"""Computes transposed convolutions of a static int8 .tflite file in integers.

LiteRT's converter turns the filter over on its way, past which it takes no int8 weights: it computes in float32 between
DEQUANTIZE and QUANTIZE, or, in one dimension, turns the filter over at each inference, which XNNPACK doesn't take at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ..models.nodes import op_name
from .litert_scales import ALMOST_ONE
from .rewriting import add_constant, copy_program, finish, held_tensors
from .tflite_file import operator_code, read_model, write_model

_ATEN = torch.ops.aten
_TRANSPOSED = (_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input)
_BETWEEN = ("relu", "slice", "narrow", "view", "reshape", "permute", "transpose", "unsqueeze", "squeeze")
_MOVES = ("TRANSPOSE", "RESHAPE", "SLICE", "STRIDED_SLICE")
_LAST_POSITIVE = 127


def fold_filters(program: ExportedProgram) -> ExportedProgram:
    """A program whose transposed convolutions have their rounded weights as constants: those can be turned over."""
    if not any(node.target in _TRANSPOSED for node in program.graph.nodes):
        return program
    changed = copy_program(program)
    held = held_tensors(changed)
    for node in list(changed.graph_module.graph.nodes):
        for operand in node.args[1:3] if node.target in _TRANSPOSED else ():
            value = _rounded(operand, held)
            if value is not None:
                constant = add_constant(changed, value)
                held[constant] = value
                node.replace_input_with(operand, constant)
        if node.target in _TRANSPOSED and _follows_another(node):
            _keep_scale(node)
    finish(changed)
    return changed


def _follows_another(node: torch.fx.Node) -> bool:
    """Whether a transposed convolution takes what another one gave, quantised between."""
    above = node.args[0]
    while isinstance(above, torch.fx.Node) and (_is_pair(above) or op_name(above) in _BETWEEN):
        above = above.args[0]
    return isinstance(above, torch.fx.Node) and above.target in _TRANSPOSED


def _is_pair(node: torch.fx.Node) -> bool:
    return str(node.target).startswith("quantized_decomposed.")


def _keep_scale(node: torch.fx.Node) -> None:
    """Keep the scale between two layers in the file: the converter drops it between what it computes in float32."""
    dequantize = node.args[0]
    quantize = dequantize.args[0] if isinstance(dequantize, torch.fx.Node) and _is_pair(dequantize) else None
    if not isinstance(quantize, torch.fx.Node) or not _is_pair(quantize):
        return
    graph = node.graph
    with graph.inserting_before(node):
        product = graph.call_function(_ATEN.mul.Tensor, (dequantize, ALMOST_ONE))
        whole = graph.call_function(quantize.target, (product, *quantize.args[1:]), quantize.kwargs)  # type: ignore[arg-type]
        again = graph.call_function(dequantize.target, (whole, *dequantize.args[1:]), dequantize.kwargs)  # type: ignore[arg-type,union-attr]
    for new, like in ((product, dequantize), (whole, quantize), (again, dequantize)):
        new.meta = dict(like.meta)  # type: ignore[union-attr]
    node.replace_input_with(dequantize, again)  # type: ignore[arg-type]


def _rounded(node: Any, held: dict[torch.fx.Node, torch.Tensor]) -> torch.Tensor | None:
    """The value of ``dequantize(quantize(weight))``; None where ``node`` is something else."""
    chain: list[torch.fx.Node] = []
    while isinstance(node, torch.fx.Node) and node not in held:
        if not _is_pair(node):
            return None
        chain.append(node)
        node = node.args[0]
    if not chain or not isinstance(node, torch.fx.Node):
        return None
    value = held[node].detach()
    for each in reversed(chain):
        args, kwargs = torch.fx.node.map_arg((each.args[1:], each.kwargs), lambda n: held[n])
        value = each.target(value, *args, **kwargs)  # type: ignore[operator]
    return value


def use_integers(path: Path) -> None:
    """Rewrite the file in place so that float32 TRANSPOSE_CONVs between DEQUANTIZE and QUANTIZE take and give int8."""
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(path)
    changed = False
    for graph in model.subgraphs:
        changed = _Graph(schema, model, graph).rewrite() or changed
    if changed:
        write_model(model, path)


class _Graph:
    """One graph of a file, with who makes and who reads each tensor."""

    def __init__(self, schema: Any, model: Any, graph: Any) -> None:
        self._schema, self._model, self._graph = schema, model, graph
        self._makers = {int(t): operator for operator in graph.operators for t in operator.outputs}

    def rewrite(self) -> bool:
        changed = False
        for operator in self._graph.operators:
            if self._is(operator, "TRANSPOSE_CONV"):
                changed = self._rewrite(operator) or changed
        if changed:
            self._drop_unread()
        return changed

    def _rewrite(self, operator: Any) -> bool:
        source = self._makers.get(int(operator.inputs[2]))
        weights = self._floats(int(operator.inputs[1]))
        has_bias = len(operator.inputs) > 3 and operator.inputs[3] >= 0
        bias = self._floats(int(operator.inputs[3])) if has_bias else None
        behind = self._behind(int(operator.outputs[0]))
        scale = None if weights is None else _scale_of_rows(weights)
        if scale is None or not behind or (bias is None and has_bias):
            return False
        if source is None or not self._is(source, "DEQUANTIZE"):
            return False
        given = self._without_factor(int(source.inputs[0]))
        result = int(behind[-1].outputs[0])
        if not (self._is_int8(given) and self._is_int8(result)):
            return False
        quantization = self._graph.tensors[result].quantization
        clamps = any(self._is(each, "RELU") for each in behind)
        if clamps and quantization.zeroPoint[0] != -_LAST_POSITIVE - 1:
            return False
        assert weights is not None
        rounded = np.rint(weights / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        operator.inputs = [operator.inputs[0], self._constant(rounded, scale, operator.inputs[1]), given]
        if bias is not None:
            steps = scale * self._graph.tensors[given].quantization.scale[0]
            operator.inputs.append(self._constant(np.rint(bias / steps).astype(np.int32), steps, None))
        self._carry(operator, behind)
        return True

    def _behind(self, tensor: int) -> list[Any]:
        """The operators from a tensor to the QUANTIZE that it ends in, which move it or are a ReLU; else none."""
        found: list[Any] = []
        while True:
            readers = self._readers(tensor)
            if len(readers) != 1 or tensor in self._graph.outputs or int(readers[0].inputs[0]) != tensor:
                return []
            found.append(readers[0])
            if self._is(readers[0], "QUANTIZE"):
                return found
            if not any(self._is(readers[0], kind) for kind in ("RELU", *_MOVES)):
                return []
            tensor = int(readers[0].outputs[0])

    def _carry(self, operator: Any, behind: list[Any]) -> None:
        """Let what moves the result move int8; a ReLU is what int8 from zero on can't go below."""
        result = int(behind[-1].outputs[0])
        last = operator
        for each in behind:
            if self._is(each, "RELU") or self._is(each, "QUANTIZE"):
                each.outputs = []
                continue
            between = self._graph.tensors[int(last.outputs[0])]
            between.type = self._schema.TensorType.INT8
            between.quantization = self._graph.tensors[result].quantization
            each.inputs = [int(last.outputs[0]), *each.inputs[1:]]
            last = each
        last.outputs = [result]

    def _without_factor(self, tensor: int) -> int:
        """What was multiplied by next to 1, so that its scale was kept."""
        maker = self._makers.get(tensor)
        if maker is None or not self._is(maker, "MUL") or not self._is_int8(tensor):
            return tensor
        source, factor = (int(each) for each in maker.inputs)
        stored = self._model.buffers[self._graph.tensors[factor].buffer].data
        if stored is None or len(stored) != 1 or not self._is_int8(factor):
            return tensor
        ours, theirs = (self._graph.tensors[each].quantization for each in (source, tensor))
        steps = self._graph.tensors[factor].quantization
        value = (int(np.int8(stored[0].astype(np.int8))) - steps.zeroPoint[0]) * steps.scale[0]
        same = ours.scale[0] == theirs.scale[0] and ours.zeroPoint[0] == theirs.zeroPoint[0]
        return source if same and abs(value - 1) < 1e-5 else tensor

    def _readers(self, tensor: int) -> list[Any]:
        return [operator for operator in self._graph.operators if tensor in operator.inputs]

    def _is(self, operator: Any, kind: str) -> bool:
        code = getattr(self._schema.BuiltinOperator, kind)
        return bool(operator_code(self._model, operator) == code)

    def _is_int8(self, index: int) -> bool:
        return bool(self._graph.tensors[index].type == self._schema.TensorType.INT8)

    def _floats(self, index: int) -> np.ndarray | None:
        """The values of a float32 constant."""
        tensor = self._graph.tensors[index]
        stored = self._model.buffers[tensor.buffer].data
        if tensor.type != self._schema.TensorType.FLOAT32 or stored is None or not len(stored):
            return None
        return np.frombuffer(bytes(stored), np.float32).reshape(tensor.shape)

    def _constant(self, values: np.ndarray, scale: np.ndarray, name_of: int | None) -> int:
        schema = self._schema
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor = schema.TensorT()
        tensor.buffer, tensor.shape = len(self._model.buffers) - 1, list(values.shape)
        tensor.type = schema.TensorType.INT8 if values.dtype == np.int8 else schema.TensorType.INT32
        tensor.name = b"bias" if name_of is None else self._graph.tensors[name_of].name
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = scale.astype(np.float32)
        tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
        tensor.quantization.quantizedDimension = 0
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _drop_unread(self) -> None:
        """Take out operators whose results nothing reads any more, and the values of weights that nothing reads."""
        operators = list(self._graph.operators)
        while True:
            read = {int(t) for operator in operators for t in operator.inputs}
            read |= {int(t) for t in self._graph.outputs}
            kept = [operator for operator in operators if read & {int(t) for t in operator.outputs}]
            if len(kept) == len(operators):
                break
            operators = kept
        self._graph.operators = operators
        buffers = {self._graph.tensors[index].buffer for index in read if index >= 0}
        for index, tensor in enumerate(self._graph.tensors):
            if index not in read and tensor.buffer not in buffers:
                self._model.buffers[tensor.buffer].data = None
                tensor.buffer = 0


def _scale_of_rows(weights: np.ndarray) -> np.ndarray | None:
    """The scale of which each output channel's weights are whole multiples, within int8; None where there is none."""
    scales = []
    for row in weights.reshape(len(weights), -1).astype(np.float64):
        largest = np.abs(row).max()
        # The largest is 127 in weights that were measured, and may be less in weights that were trained.
        steps = (largest / whole for whole in range(_LAST_POSITIVE + 1, 0, -1))
        found = (step for step in steps if np.abs(row / step - np.rint(row / step)).max() < 1e-3)
        scale = next(found, None) if largest else 1.0
        if scale is None or np.rint(row / scale).max() > _LAST_POSITIVE:
            return None
        scales.append(scale)
    return np.array(scales)
