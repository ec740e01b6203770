"""The kernels of a .pte file for the cost model: the plan's own, and those inside its XNNPACK delegates."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cost_model import Kernel
from ..cost_model.kernels import Precision
from ..cost_model.memory import MemoryFacts, peak_bytes
from ..cost_model.shapes import Filter, Shape, convolution, linear, mean, pooling, product, simple
from .kernels_fused import Step, clamped, with_tables
from .pte_tables import SCALAR_TYPES, XNN_TYPES, Delegate, PteTables, read_pte

# No work: XNNPACK computes these in place, ExecuTorch's memory plan makes views of them.
_FREE_NODES = ("StaticReshape", "Copy")
_LAYOUT_NODES = ("StaticTranspose", "StaticConstantPad", "StaticSlice", "StaticResizeBilinear2D")
_CONVOLUTIONS = ("Conv2d", "DepthwiseConv2d", "ConvTranspose2d")
_PADDED = (["Conv2d"], ["DepthwiseConv2d"])
_FOUND_AS_IT_RUNS = ("xnn_datatype_qdint8", "xnn_datatype_qpint8", "xnn_datatype_qduint8")
_FREE_OPS = (
    "view_copy",
    "et_view",
    "alias_copy",
    "squeeze_copy",
    "unsqueeze_copy",
    "detach_copy",
    "lift_fresh_copy",
)
_LAYOUT_OPS = (
    "permute_copy", "transpose_copy", "t_copy", "cat", "slice_copy", "select_copy", "split_copy", "split_with_sizes_copy",
    "expand_copy", "repeat", "stack", "unbind_copy", "index", "gather", "constant_pad_nd", "_to_dim_order_copy",
    "_clone_dim_order", "clone", "_to_copy", "copy", "upsample_nearest2d", "upsample_bilinear2d", "full", "full_like",
    "pixel_shuffle", "roll", "flip", "reflection_pad1d", "replication_pad2d", "slice_scatter", "index_put",
)  # fmt: skip
_NORM_OPS = ("native_layer_norm", "native_group_norm", "_native_batch_norm_legit_no_training")
_REDUCING_OPS = ("mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "var", "any")
_POOLING_OPS = ("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d")


def read_pte_work(path: Path) -> tuple[list[Kernel], MemoryFacts]:
    """The kernels of the file's first method in the order in which they run, and what they need of memory."""
    data = path.read_bytes()
    tables = read_pte(data)
    found: list[Kernel] = []
    for instruction in tables.instructions:
        arguments = instruction["instr_args"]
        if instruction["instr_args_type"] == "KernelCall":
            found += _plan_kernel(tables.plan, arguments)
        elif instruction["instr_args_type"] == "DelegateCall":
            found += _delegate_kernels(tables.delegates[arguments["delegate_index"]])
    return _numbered(found), _memory(tables, len(data))


def _numbered(kernels: list[Kernel]) -> list[Kernel]:
    """``kernels`` with the names of their operators counted through the file: a delegate counts its own from one, and
    the plan has one entry for all calls of an operator."""
    counts: Counter[str] = Counter()
    named = []
    for kernel in kernels:
        op, dot, part = kernel.name.partition(".")
        counts[op] += not dot
        named.append(replace(kernel, name=f"{op}_{counts[op]}{dot}{part}"))
    return named


def _memory(tables: PteTables, file_bytes: int) -> MemoryFacts:
    weights = 0.0
    for value in tables.plan["values"]:
        tensor = value.get("val") or {}
        if (
            value["val_type"] == "Tensor"
            and tensor.get("data_buffer_idx")
            and not tensor.get("allocation_info")
        ):
            weights += _plain(tensor).bytes
    for delegate in tables.delegates:
        weights += sum(
            _shape(value).bytes for value in delegate.values.values() if value["constant_buffer_idx"]
        )
    # The plan's own buffers stand beside the workspace, which all delegates share.
    planned = sum(tables.plan.get("non_const_buffer_sizes", []))
    workspace = max((_workspace(delegate) for delegate in tables.delegates), default=0)
    ends = [tables.plan["values"][index] for index in (*tables.plan["inputs"], *tables.plan["outputs"])]
    io = sum(_plain(value["val"]).bytes for value in ends if value["val_type"] == "Tensor")
    return MemoryFacts(file_bytes, int(weights), int(planned) + workspace, io_bytes=int(io))


def _workspace(delegate: Delegate) -> int:
    """The most bytes that values inside a delegate take at one moment; its borders lie in the plan's memory."""
    steps = []
    for node in delegate.nodes:
        fields = node["xnode_union"]
        ids = {key: value for key, value in fields.items() if key.endswith("_id")}
        steps.append((
            {value for key, value in ids.items() if not key.startswith("output")},
            {value for key, value in ids.items() if key.startswith("output")},
        ))  # fmt: skip
    sizes = {
        index: _shape(value).bytes
        for index, value in delegate.values.items()
        if not value["constant_buffer_idx"] and not value["flags"]
    }
    return peak_bytes(steps, sizes)


def _delegate_kernels(delegate: Delegate) -> list[Kernel]:
    if delegate.name != "XNNPACK":
        return [Kernel(f"{delegate.name} partition", "other", "fp32", delegate=delegate.name)]
    folded = _folded(delegate)
    found: list[Step] = []
    for index, node in enumerate(delegate.nodes):
        kernel = None if index in folded else _node_kernel(node, delegate)
        if kernel is None:
            continue
        reads, writes = _reads(node, delegate), _writes(node, delegate)
        computed = tuple(i for i in reads if not delegate.values[i]["constant_buffer_idx"])
        step = Step(
            replace(kernel, op=_op_of(node).lower()), computed, writes, constants=len(computed) < len(reads)
        )
        bounded = kernel.kind == "elementwise" and node.get("output_min_max") and step.kernel.op != "clamp"
        found += clamped(step) if bounded else [step]
    ends = {index for index, value in delegate.values.items() if value["flags"]}
    return [step.kernel for step in with_tables(found, ends)]


def _folded(delegate: Delegate) -> set[int]:
    """Nodes that XNNPACK folds into what reads them: paddings of convolutions, conversions of products' inputs."""
    readers: dict[int, list[dict[str, Any]]] = {}
    for node in delegate.nodes:
        for index in _reads(node, delegate):
            readers.setdefault(index, []).append(node)
    return {
        place
        for place, node in enumerate(delegate.nodes)
        if _is_folded(node, readers.get(node["xnode_union"].get("output_id", -1), []), delegate)
    }


def _is_folded(node: dict[str, Any], readers: list[dict[str, Any]], delegate: Delegate) -> bool:
    op, fields = _op_of(node), node["xnode_union"]
    if op == "StaticConstantPad" and [_op_of(each) for each in readers] in _PADDED:
        sides = (*fields["pre_paddings"], *fields["post_paddings"])
        # Height and width alone: of four axes the first and the last stay as they are.
        return (
            len(sides) == 8 and not any(sides[0::4]) and not any(sides[3::4]) and fields["padding_value"] == 0
        )
    if op == "Convert" and delegate.values[fields["output_id"]]["datatype"] in _FOUND_AS_IT_RUNS:
        return all(_is_product(each) for each in readers)
    return False


def _is_product(node: dict[str, Any]) -> bool:
    fields = node["xnode_union"]
    sides = ("kernel_height", "kernel_width", "subsampling_height", "subsampling_width", "groups")
    return _op_of(node) == "FullyConnected" or (
        _op_of(node) == "Conv2d" and all(fields[side] == 1 for side in sides)
    )


def _reads(node: dict[str, Any], delegate: Delegate) -> tuple[int, ...]:
    """The values that a node reads; what it doesn't use has a number that no value has."""
    ids = {key: value for key, value in node["xnode_union"].items() if key.endswith("_id")}
    return tuple(i for key, i in sorted(ids.items()) if not key.startswith("output") and i in delegate.values)


def _writes(node: dict[str, Any], delegate: Delegate) -> tuple[int, ...]:
    ids = {key: value for key, value in node["xnode_union"].items() if key.endswith("_id")}
    return tuple(i for key, i in sorted(ids.items()) if key.startswith("output") and i in delegate.values)


def _op_of(node: dict[str, Any]) -> str:
    name: str = node["xnode_union_type"]
    return name.removeprefix("XNN").lstrip("_")


def _node_kernel(node: dict[str, Any], delegate: Delegate) -> Kernel | None:
    op = _op_of(node)
    fields = node["xnode_union"]
    inputs = [fields[key] for key in sorted(fields) if key.startswith("input") and key.endswith("_id")]
    known = [delegate.values[i] for i in inputs if i in delegate.values]
    out = _shape(delegate.values[fields["output_id"]]) if "output_id" in fields else Shape(1, 1)
    name, who = op, delegate.name
    if op in _FREE_NODES:
        return None
    if op in _CONVOLUTIONS:
        return _convolution(name, op, fields, delegate)
    reads = [_shape(value) for value in known if not value["constant_buffer_idx"]]
    constants = sum(_shape(value).bytes for value in known if value["constant_buffer_idx"])
    if op == "FullyConnected":
        weights = delegate.values[fields["filter_id"]]
        dtype = XNN_TYPES.get(weights["datatype"], "float32")
        rows = Shape(max(1, out.elements // weights["dims"][0]), weights["dims"][0], out.dtype)
        bias = fields["bias_id"] in delegate.values
        return linear(
            name, reads[0], rows, _precision(reads[0], dtype), weights=dtype, bias=bias, delegate=who
        )
    if op == "BatchMatrixMultiply":
        return product(name, reads[0], reads[1], out, reads[0].precision, delegate=who)
    if op in ("AvgPooling2d", "MaxPooling2d", "ArgMaxPooling2d"):
        window = fields["pooling_height"] * fields["pooling_width"]
        step = math.sqrt(fields.get("stride_height", 1) * fields.get("stride_width", 1))
        return pooling(name, reads[0], out, window=window, side=math.sqrt(window), step=step, delegate=who)
    if op == "GlobalAvgPooling2d":
        return mean(name, reads[0], out, delegate=who)
    if op in _LAYOUT_NODES or op.startswith("Concatenate"):
        moved = [out] if op == "StaticSlice" else reads
        return simple(name, "layout", moved, out, delegate=who)
    if op == "ScaledDotProductAttention":
        return _attention(name, fields, delegate)
    kind = "softmax" if op == "Softmax" else "elementwise"
    return simple(name, kind, reads, out, constants=constants, delegate=who)  # type: ignore[arg-type]


def _convolution(name: str, op: str, fields: dict[str, Any], delegate: Delegate) -> Kernel:
    weights = delegate.values[fields["filter_id"]]
    data = _shape(delegate.values[fields["input1_id"]])
    # A value that is quantised as it comes is described with its channels first.
    channels = fields["group_input_channels"] * fields["groups"]
    data = Shape(max(1, data.elements // channels), channels, data.dtype)
    dtype = XNN_TYPES.get(weights["datatype"], "float32")
    taps = Filter(
        (fields["kernel_height"], fields["kernel_width"]),
        (fields["subsampling_height"], fields["subsampling_width"]),
        data.channels if op == "DepthwiseConv2d" else fields["groups"],
        dtype,
    )
    out = _shape(delegate.values[fields["output_id"]])
    transposed = op == "ConvTranspose2d"
    return convolution(
        name, data, out, taps, _precision(data, dtype), transposed=transposed, delegate=delegate.name
    )


def _attention(name: str, fields: dict[str, Any], delegate: Delegate) -> Kernel:
    query, key, value = (_shape(delegate.values[fields[f"{part}_id"]]) for part in ("query", "key", "value"))
    out = _shape(delegate.values[fields["output_id"]])
    first = product(name, query, key, out, query.precision, delegate=delegate.name)
    keys = delegate.values[fields["key_id"]]["dims"][-2]
    macs = query.elements * keys + out.elements * keys
    return Kernel(
        name, "matmul", first.precision, macs=macs, bytes_in=query.bytes + key.bytes + value.bytes,
        bytes_out=out.bytes, in_channels=query.channels, out_channels=keys, spatial=query.positions,
        delegate=delegate.name,
    )  # fmt: skip


def _shape(value: dict[str, Any]) -> Shape:
    return Shape.of(value["dims"], XNN_TYPES.get(value["datatype"], "float32"))


def _precision(data: Shape, weights: str) -> Precision:
    """Of a product: what its activations are converted to when they aren't what the weights are."""
    return "int4" if weights == "int4" else data.precision


def _plan_kernel(plan: dict[str, Any], arguments: dict[str, Any]) -> list[Kernel]:
    operator = plan["operators"][arguments["op_index"]]
    op = operator["name"].rpartition("::")[2]
    values = [plan["values"][index] for index in arguments["args"]]
    tensors = [(value["val"], index) for value, index in zip(values, arguments["args"], strict=True) if value["val_type"] == "Tensor"]  # fmt: skip
    if op in _FREE_OPS or not operator["name"].startswith(("aten::", "dim_order_ops::", "quantized_decomposed::")) or not tensors:  # fmt: skip
        return []
    # An out variant gets its result as an argument and returns it: the last one twice.
    unique = list({index: tensor for tensor, index in tensors}.values())
    outs = 3 if op in ("native_layer_norm", "native_group_norm") else 2 if "with_indices" in op else 1
    out = _plain(unique[-outs])
    inputs = unique[:-outs]
    reads = [_plain(tensor) for tensor in inputs if not tensor.get("data_buffer_idx")]
    constants = [_plain(tensor) for tensor in inputs if tensor.get("data_buffer_idx")]
    found = _plan_product(plan, op, op, values, inputs, out)
    return [replace(found or _plan_simple(plan, op, op, values, reads, constants, out), op=op)]


def _plan_simple(
    plan: dict[str, Any], name: str, op: str, values: list[dict[str, Any]], reads: list[Shape],
    constants: list[Shape], out: Shape,
) -> Kernel:  # fmt: skip
    stored = sum(shape.bytes for shape in constants)
    if op.startswith("embedding"):  # Of quantised tables too: embedding_byte, embedding_4bit.
        return simple(name, "embedding", [out], out)
    if op in _POOLING_OPS and reads:
        window = _integers(plan, values[1]) if len(values) > 1 else []
        if "adaptive" in op or not window:
            return mean(name, reads[0], out)
        taps = math.prod(window) if len(window) > 1 else window[0] ** 2
        return pooling(name, reads[0], out, window=taps, side=math.sqrt(taps), step=math.sqrt(taps))
    if op in _REDUCING_OPS and len(reads) == 1 and out.elements <= reads[0].elements:
        return mean(name, reads[0], out)
    if op in _NORM_OPS:
        return simple(name, "norm", reads, out, constants=stored)
    if "softmax" in op:
        return simple(name, "softmax", reads, out)
    if op in _LAYOUT_OPS:
        moved = reads if op in ("cat", "stack") and reads else [out]
        return simple(name, "layout", moved, out)
    return simple(name, "elementwise", reads, out, constants=stored)


def _plan_product(
    plan: dict[str, Any], name: str, op: str, values: list[dict[str, Any]], inputs: list[dict[str, Any]], out: Shape
) -> Kernel | None:  # fmt: skip
    shapes = [_plain(tensor) for tensor in inputs]
    constant = [bool(tensor.get("data_buffer_idx")) for tensor in inputs]
    if op in ("mm", "bmm", "matmul") and len(shapes) == 2:
        if constant[1]:
            return linear(name, shapes[0], out, "fp32", weights=shapes[1].dtype, bias=False)
        return product(name, shapes[0], shapes[1], out, "fp32")
    if op == "linear" and len(shapes) >= 2:
        return linear(name, shapes[0], out, "fp32", weights=shapes[1].dtype, bias=len(shapes) > 2)
    if op == "addmm" and len(shapes) == 3:
        return linear(name, shapes[1], out, "fp32", weights=shapes[2].dtype)
    if op in ("convolution", "conv2d") and len(shapes) >= 2:
        # ExecuTorch's own convolution computes on channels first.
        weights, data, result = inputs[1]["sizes"], inputs[0]["sizes"], out
        strides = _integers(plan, values[3])
        transposed = bool((values[6].get("val") or {}).get("bool_val")) if len(values) > 6 else False
        channels = weights[1] if transposed else weights[0]
        result = Shape(max(1, out.elements // channels), channels, out.dtype)
        source = Shape(math.prod(data) // data[1], data[1], shapes[0].dtype)
        groups = max(1, data[1] // weights[1]) if not transposed else max(1, data[1] // weights[0])
        return convolution(
            name, source, result, Filter(weights[2:], strides or [1], groups, shapes[1].dtype), "fp32", transposed=transposed
        )  # fmt: skip
    return None


def _integers(plan: dict[str, Any], value: dict[str, Any]) -> list[int]:
    """A list of integers among a kernel's arguments, which holds the places of its entries; else nothing."""
    items = value["val"]["items"] if value["val_type"] == "IntList" else []
    entries = [plan["values"][int(item)] for item in items]
    return [int(entry["val"]["int_val"]) for entry in entries if entry["val_type"] == "Int"]


def _plain(tensor: dict[str, Any]) -> Shape:
    return Shape.of(tensor["sizes"], SCALAR_TYPES.get(tensor["scalar_type"], "float32"))
