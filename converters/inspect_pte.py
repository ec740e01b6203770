"""Reads a .pte file with the flatbuffer compiler and the schemas that come with ExecuTorch.

ExecuTorch itself isn't imported: its Python reader takes seconds to load, flatc milliseconds.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from .file_report import ELEMENT_BYTES, FileReport, OpReport, TensorReport

_SCALAR_TYPES = {
    "BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16",
    "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "BFLOAT16": "bfloat16",
}  # fmt: skip
_XNN_TYPES = {
    "xnn_datatype_fp32": "float32", "xnn_datatype_fp16": "float16", "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": "int8", "xnn_datatype_quint8": "uint8", "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qdint8": "int8", "xnn_datatype_qcint4": "int4", "xnn_datatype_qbint4": "int4",
    "xnn_datatype_qint32": "int32", "xnn_datatype_qcint32": "int32", "xnn_datatype_int32": "int32",
}  # fmt: skip
_LAYOUT = ("transpose", "permute", "copy", "clone", "reshape", "view", "squeeze", "slice", "expand")
_DELEGATE_NAMES = {"XnnpackBackend": "XNNPACK"}
_EXTENDED_HEADER = struct.Struct("<4sIQQ")
_XNN_HEADER = struct.Struct("<4x4sHIIIQ")


def inspect_pte(path: Path) -> FileReport:
    """The contents of a .pte file: the plan's kernels and, inside each XNNPACK delegate, its nodes."""
    data = path.read_bytes()
    program = _decode(data, "exir/_serialize/program.fbs")
    plan = program["execution_plan"][0]
    weights: Counter[str] = Counter()
    ops: list[OpReport] = []
    for instruction in plan["chains"][0]["instructions"]:
        arguments = instruction["instr_args"]
        if instruction["instr_args_type"] == "KernelCall":
            ops.append(_kernel(plan, arguments))
        elif instruction["instr_args_type"] == "DelegateCall":
            delegate = plan["delegates"][arguments["delegate_index"]]
            ops += _delegate_ops(delegate, _payload(program, data, delegate), weights)
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
        schema_version=str(program["version"]),
        planned_arena_bytes=sum(plan.get("non_const_buffer_sizes", [])),
        tensor_dtypes=_dtypes(plan),
    )


def _decode(data: bytes, schema: str) -> dict[str, Any]:
    package = importlib.util.find_spec("executorch")
    if package is None or not package.submodule_search_locations:
        raise EdgeoptError("executorch is not installed: pip install executorch to read .pte files.")
    home = Path(next(iter(package.submodule_search_locations)))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "buffer.bin")
        source.write_bytes(data)
        flags = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", folder]
        command = [str(home / "data/bin/flatc"), *flags, str(home / schema), "--", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                f"the file's tables don't fit ExecuTorch's schema ({(done.stdout or done.stderr).strip()[:200]})."
            )
        text = Path(folder, "buffer.json").read_text(encoding="utf-8")
        # flatc writes an unbounded clamp as inf, which JSON doesn't know; Python reads Infinity.
        parsed: dict[str, Any] = json.loads(re.sub(r"(?<=: )(-?)(\+?inf)(?=[,\s])", r"\1Infinity", text))
        return parsed


def _payload(program: dict[str, Any], data: bytes, delegate: dict[str, Any]) -> bytes:
    place = delegate["processed"]
    if place["location"] == "INLINE":
        return bytes(program["backend_delegate_data"][place["index"]]["data"])
    magic, _, _, base = _EXTENDED_HEADER.unpack_from(data, 8)
    if magic != b"eh00":
        raise InputError("the file's segment header is missing.")
    segment = program["segments"][place["index"]]
    start = base + segment["offset"]
    if start + segment["size"] > len(data):
        raise InputError("the file is truncated: a segment reaches past its end.")
    return data[start : start + segment["size"]]


def _kernel(plan: dict[str, Any], arguments: dict[str, Any]) -> OpReport:
    operator = plan["operators"][arguments["op_index"]]
    name = operator["name"].removeprefix("aten::")
    tensors = [v["val"] for v in (plan["values"][i] for i in arguments["args"]) if v["val_type"] == "Tensor"]
    shape = tuple(tensors[-1]["sizes"]) if tensors else ()
    constants = [t for t in tensors if t.get("data_buffer_idx", 0) > 0 and len(t["sizes"]) > 1]
    dtype = _SCALAR_TYPES.get(constants[0]["scalar_type"]) if constants else None
    return OpReport(
        op=name,
        macs=_kernel_macs(name, tensors, shape),
        output_shape=shape,
        weight_dtype=dtype,
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
            found[_SCALAR_TYPES.get(tensor["scalar_type"], "float32")] += math.prod(tensor["sizes"])
    return found


def _dtypes(plan: dict[str, Any]) -> tuple[str, ...]:
    found = {v["val"]["scalar_type"] for v in plan["values"] if v["val_type"] == "Tensor"}
    return tuple(sorted(_SCALAR_TYPES.get(name, name.lower()) for name in found))


def _tensor(plan: dict[str, Any], index: int, name: str) -> TensorReport:
    value = plan["values"][index]
    if value["val_type"] != "Tensor":
        return TensorReport(name, value["val_type"].lower(), ())
    tensor = value["val"]
    dtype = _SCALAR_TYPES.get(tensor["scalar_type"], tensor["scalar_type"].lower())
    return TensorReport(name, dtype, tuple(tensor["sizes"]))


def _delegate_ops(delegate: dict[str, Any], payload: bytes, weights: Counter[str]) -> list[OpReport]:
    name = _DELEGATE_NAMES.get(delegate["id"], delegate["id"])
    if name != "XNNPACK":
        return [OpReport(op=f"{name} partition", delegate=name)]
    magic, _, offset, size, _, _ = _XNN_HEADER.unpack_from(payload)
    if magic == b"XH00":
        payload = payload[offset : offset + size]
    graph = _decode(payload, "backends/xnnpack/serialization/schema.fbs")
    values = {}
    for entry in graph["xvalues"]:
        tensor = entry["xvalue_union"]
        # A quantised tensor wraps the plain one.
        plain = tensor.get("tensor_value", tensor)
        values[plain["id_out"]] = plain
        if plain["constant_buffer_idx"] and len(plain["dims"]) > 1:
            weights[_XNN_TYPES.get(plain["datatype"], "float32")] += math.prod(plain["dims"])
    return [_xnn_node(node, values, name) for node in graph["xnodes"]]


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
    return OpReport(
        op=op,
        delegate=delegate,
        macs=macs,
        output_shape=shape,
        weight_dtype=_XNN_TYPES.get(weight["datatype"]) if weight else None,
        layout=any(word in op.lower() for word in _LAYOUT),
    )
