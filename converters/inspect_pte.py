"""What is inside a .pte file, from its tables: the plan's kernels and what its delegates hold."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from .file_report import ELEMENT_BYTES, FileReport, OpReport, TensorReport
from .pte_tables import SCALAR_TYPES, XNN_TYPES, Delegate, read_pte

_LAYOUT = ("transpose", "permute", "copy", "clone", "reshape", "view", "squeeze", "slice", "expand")


def inspect_pte(path: Path) -> FileReport:
    """The contents of a .pte file: the plan's kernels and, inside each XNNPACK delegate, its nodes."""
    data = path.read_bytes()
    tables = read_pte(data)
    plan = tables.plan
    weights: Counter[str] = Counter()
    ops: list[OpReport] = []
    for instruction in tables.instructions:
        arguments = instruction["instr_args"]
        if instruction["instr_args_type"] == "KernelCall":
            ops.append(_kernel(plan, arguments))
        elif instruction["instr_args_type"] == "DelegateCall":
            ops += _delegate_ops(tables.delegates[arguments["delegate_index"]], weights)
    weights.update(_plan_weights(plan))
    return FileReport(
        path=path,
        format="pte",
        size_bytes=len(data),
        ops=tuple(ops),
        inputs=tuple(_tensor(plan, index, f"input_{i}") for i, index in enumerate(plan["inputs"])),
        outputs=tuple(_tensor(plan, index, f"output_{i}") for i, index in enumerate(plan["outputs"])),
        weights=dict(weights),
        weight_bytes=int(sum(ELEMENT_BYTES.get(dtype, 4.0) * count for dtype, count in weights.items())),
        schema_version=str(tables.program["version"]),
        planned_arena_bytes=sum(plan.get("non_const_buffer_sizes", [])),
        tensor_dtypes=_dtypes(plan),
    )


def _kernel(plan: dict[str, Any], arguments: dict[str, Any]) -> OpReport:
    operator = plan["operators"][arguments["op_index"]]
    name = operator["name"].removeprefix("aten::")
    tensors = [v["val"] for v in (plan["values"][i] for i in arguments["args"]) if v["val_type"] == "Tensor"]
    shape = tuple(tensors[-1]["sizes"]) if tensors else ()
    constants = [t for t in tensors if t.get("data_buffer_idx", 0) > 0 and len(t["sizes"]) > 1]
    dtype = SCALAR_TYPES.get(constants[0]["scalar_type"]) if constants else None
    return OpReport(
        op=name,
        macs=_kernel_macs(name, tensors, shape),
        output_shape=shape,
        weight_dtype=dtype,
        factor_dtype=dtype,
        layout=any(word in name for word in _LAYOUT),
    )


def _kernel_macs(name: str, tensors: list[dict[str, Any]], output: tuple[int, ...]) -> int:
    sizes = [tuple(t["sizes"]) for t in tensors]
    if name in ("convolution", "conv2d") and len(sizes) > 1:
        return math.prod(output) * math.prod(sizes[1][1:])
    if name in ("mm", "bmm", "matmul", "linear") and sizes:
        return math.prod(output) * sizes[0][-1]
    if name == "addmm" and len(sizes) > 1:
        return math.prod(output) * sizes[1][-1]
    return 0


def _plan_weights(plan: dict[str, Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for value in plan["values"]:
        tensor = value.get("val") or {}
        constant = value["val_type"] == "Tensor" and tensor.get("data_buffer_idx", 0) > 0
        if constant and tensor.get("allocation_info") is None and len(tensor["sizes"]) > 1:
            found[SCALAR_TYPES.get(tensor["scalar_type"], "float32")] += math.prod(tensor["sizes"])
    return found


def _dtypes(plan: dict[str, Any]) -> tuple[str, ...]:
    found = {v["val"]["scalar_type"] for v in plan["values"] if v["val_type"] == "Tensor"}
    return tuple(sorted(SCALAR_TYPES.get(name, name.lower()) for name in found))


def _tensor(plan: dict[str, Any], index: int, name: str) -> TensorReport:
    value = plan["values"][index]
    if value["val_type"] != "Tensor":
        return TensorReport(name, value["val_type"].lower(), ())
    tensor = value["val"]
    dtype = SCALAR_TYPES.get(tensor["scalar_type"], tensor["scalar_type"].lower())
    return TensorReport(name, dtype, tuple(tensor["sizes"]))


def _delegate_ops(delegate: Delegate, weights: Counter[str]) -> list[OpReport]:
    if delegate.name != "XNNPACK":
        return [OpReport(op=f"{delegate.name} partition", delegate=delegate.name)]
    for tensor in delegate.values.values():
        if tensor["constant_buffer_idx"] and len(tensor["dims"]) > 1:
            weights[XNN_TYPES.get(tensor["datatype"], "float32")] += math.prod(tensor["dims"])
    return [_xnn_node(node, delegate.values, delegate.name) for node in delegate.nodes]


def _xnn_node(node: dict[str, Any], values: dict[int, dict[str, Any]], delegate: str) -> OpReport:
    op = node["xnode_union_type"].removeprefix("XNN").lstrip("_")
    fields = node["xnode_union"]
    output = values.get(fields.get("output_id", -1), {"dims": []})
    weight = values.get(fields.get("filter_id", -1))
    shape = tuple(output["dims"])
    macs = 0
    if weight is not None and op == "FullyConnected":
        macs = math.prod(shape) * weight["dims"][-1]
    elif weight is not None and op == "DepthwiseConv2d":
        # XNNPACK stores a depthwise filter as [1, kh, kw, channels].
        macs = math.prod(shape) * math.prod(weight["dims"][1:3])
    elif weight is not None and op == "ConvTranspose2d":
        source = values[fields["input1_id"]]
        macs = math.prod(source["dims"]) // source["dims"][-1] * math.prod(weight["dims"])
    elif weight is not None:
        macs = math.prod(shape) * math.prod(weight["dims"][1:])
    elif op == "BatchMatrixMultiply":
        macs = math.prod(shape) * values[fields["input1_id"]]["dims"][-1]
    factor = values.get(fields.get("input2_id", -1)) if op == "BatchMatrixMultiply" else weight
    return OpReport(
        op=op,
        delegate=delegate,
        macs=macs,
        output_shape=shape,
        weight_dtype=XNN_TYPES.get(weight["datatype"]) if weight else None,
        factor_dtype=XNN_TYPES.get(factor["datatype"]) if factor else None,
        layout=any(word in op.lower() for word in _LAYOUT),
    )
