"""Gives a .tflite file dynamic dimensions by comparing it with its twin of another size.

litert-torch lowers many operators at fixed sizes only (a reshape or an attention layer of a dynamic batch
fails deep inside it). LiteRT's runtime works sizes out again whenever an input is resized, so that only what
is written into the file as numbers stands in the way: the shapes of tensors, and the constants that tell
RESHAPE and its like what to make. Both are found by converting twice, at two sizes, and comparing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ..errors import InputError
from .rewriting import copy_program, finish, replace
from .tflite_file import operator_code, read_model, write_model

_ATEN = torch.ops.aten

# Operators with a constant operand in which -1 means "what is left": operator -> which operand.
_OPEN_ENDED = {"RESHAPE": 1, "SLICE": 2}


def merge_sizes(path: Path, twin: Path) -> None:
    """Rewrite ``path`` in place so that every dimension in which its twin differs is dynamic.

    Raises:
        InputError: a constant of the model depends on the dynamic dimension in a way that no file can say.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(path)
    other = read_model(twin)
    graph, other_graph = model.subgraphs[0], other.subgraphs[0]
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    ops, other_ops = (
        [names[operator_code(m, op)] for op in g.operators] for m, g in ((model, graph), (other, other_graph))
    )
    if ops != other_ops or len(graph.tensors) != len(other_graph.tensors):
        raise InputError("the graph itself depends on the dynamic dimension")
    for index, (tensor, twin_tensor) in enumerate(zip(graph.tensors, other_graph.tensors, strict=True)):
        constant, twin_constant = model.buffers[tensor.buffer], other.buffers[twin_tensor.buffer]
        if not _same_bytes(constant, twin_constant):
            readers = [
                (name, op) for name, op in zip(ops, graph.operators, strict=True) if index in op.inputs
            ]
            constant.data = _merged_constant(tensor, constant, twin_constant, readers, index)
        elif not _is_constant(constant):
            _mark_dynamic(tensor, twin_tensor)
    for op, name in zip(graph.operators, ops, strict=True):
        # The shape is said twice; the constant operand is the one that may hold -1.
        if name == "RESHAPE" and len(op.inputs) > 1:
            op.builtinOptions, op.builtinOptionsType = None, 0
    write_model(model, path)


def _is_constant(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _same_bytes(one: Any, other: Any) -> bool:
    if not _is_constant(one) or not _is_constant(other):
        return _is_constant(one) == _is_constant(other)
    return np.array_equal(np.asarray(one.data), np.asarray(other.data))


def _merged_constant(
    tensor: Any, constant: Any, twin: Any, readers: list[tuple[str, Any]], index: int
) -> np.ndarray:
    """The constant with -1 where the two sizes differ."""
    what = ", ".join(sorted({name for name, _ in readers})) or "nothing"
    if not readers or any(list(op.inputs).index(index) != _OPEN_ENDED.get(name) for name, op in readers):
        raise InputError(
            f"a constant of {what} depends on the dynamic dimension, and LiteRT keeps constants at one size"
        )
    values = np.frombuffer(np.asarray(constant.data, np.uint8).tobytes(), np.int32).copy()
    others = np.frombuffer(np.asarray(twin.data, np.uint8).tobytes(), np.int32)
    differs = values != others
    if len(values) != len(others) or (differs.sum() != 1 and "RESHAPE" in what):
        raise InputError("a reshape has more than one dynamic dimension, which LiteRT can't express")
    values[differs] = -1
    return np.frombuffer(values.tobytes(), np.uint8)


def _mark_dynamic(tensor: Any, twin: Any) -> None:
    if tensor.shape is None or twin.shape is None:
        return
    shape, other = np.asarray(tensor.shape), np.asarray(twin.shape)
    if len(shape) != len(other):
        raise InputError("the rank of a tensor depends on the dynamic dimension")
    if (shape != other).any():
        tensor.shapeSignature = np.where(shape != other, -1, shape).astype(np.int32)


def spread_by_adding(program: ExportedProgram) -> ExportedProgram:
    """``program`` with each constant that is repeated along a dynamic dimension added to zeros of that size.

    LiteRT's broadcast has its size written into the file; an addition broadcasts to what comes in. The zeros
    are an input clamped to 0, which is exact for all but NaN.
    """
    expands = program.graph_module.graph.find_nodes(op="call_function", target=_ATEN.expand.default)
    if not any(_spread_axis(node) for node in expands):
        return program
    changed = copy_program(program)
    for node in list(changed.graph_module.graph.find_nodes(op="call_function", target=_ATEN.expand.default)):
        found = _spread_axis(node)
        if found is None:
            continue
        axis, source, source_axis = found
        rank = node.meta["val"].ndim
        sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]

        def form(
            token: torch.Tensor,
            data: torch.Tensor,
            axis: int = axis,
            source_axis: int = source_axis,
            rank: int = rank,
            sizes: list[int] = sizes,
        ) -> torch.Tensor:
            first = data.movedim(source_axis, 0)
            while first.ndim > 1:
                first = first.select(1, 0)
            shape = [1] * rank
            shape[axis] = -1
            zeros = first.clamp(0, 0).to(token.dtype).reshape(shape)
            fixed = [1 if size == -1 else size for size in sizes]
            return token.expand(fixed) + zeros

        replace(changed, node, form, [node.args[0], source])  # type: ignore[list-item]
    finish(changed)
    return changed


def _spread_axis(node: torch.fx.Node) -> tuple[int, torch.fx.Node, int] | None:
    """(axis of the result, the tensor whose size it takes, that tensor's axis) of a spreading expand."""
    found = []
    sizes: Any = node.args[1]
    before = node.args[0].meta["val"]  # type: ignore[union-attr]
    for axis, size in enumerate(sizes):
        own = axis - (len(sizes) - before.ndim)
        spreads = isinstance(size, torch.fx.Node) and (own < 0 or before.shape[own] == 1)
        if spreads and size.target is _ATEN.sym_size.int:
            found.append((axis, size.args[0], size.args[1]))
    return found[0] if len(found) == 1 else None
