"""The kernels that a runtime will make of a captured program, before any file of it exists.

What is fused follows XNNPACK: a convolution carries its normalisation, its bias and a clamp (ReLU, ReLU6);
other activations, sums, products, pools and the clamps behind them are kernels of their own. Convolutions compute on channels
last, so that a picture is transposed where it enters and where it leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch.export import ExportedProgram

from ..cost_model import Kernel
from ..cost_model.kernels import Kind
from ..cost_model.shapes import Filter, Shape, convolution, linear, mean, pooling, product, simple
from .attention import is_plain_attention
from .depthwise import is_large_depthwise, rows_of_parts
from .nodes import argument_of, as_list, dtype_of, op_name
from .workload import node_shape

Format = Literal["pte", "tflite"]

CLAMPS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max")
_CLAMPED = (
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "linear", "addmm",
    "max_pool2d", "avg_pool2d",
)  # fmt: skip
_CONVOLUTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
FREE = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "dropout", "detach", "identity",
    "alias", "_assert_tensor_metadata", "sym_size", "_unsafe_view", "getitem", "clone", "feature_dropout", "to",
    "_to_copy", "lift_fresh_copy", "type_as", "numpy_T", "arange", "zeros", "ones", "full", "zeros_like",
    "ones_like", "full_like", "scalar_tensor", "new_zeros", "new_ones", "as_strided", "view_as",
)  # fmt: skip
_LAYOUT = (
    "permute", "transpose", "t", "cat", "stack", "slice", "select", "expand", "repeat", "pad", "constant_pad_nd",
    "index", "gather", "roll", "flip", "pixel_shuffle", "upsample_nearest2d", "upsample_bilinear2d", "narrow",
    "index_select", "tile", "unfold", "masked_fill", "copy", "channel_shuffle", "upsample_nearest1d", "expand_as",
)  # fmt: skip
_SPLITS = ("chunk", "split", "split_with_sizes")  # written as slices
_NORMS = ("layer_norm", "group_norm", "instance_norm", "rms_norm", "native_layer_norm", "native_group_norm")
_POOLS = ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "max_pool1d", "avg_pool1d", "max_pool3d")
_REDUCING = ("mean", "sum", "amax", "amin", "var", "std", "argmax", "adaptive_avg_pool2d", "adaptive_avg_pool1d",
             "adaptive_max_pool2d", "norm", "linalg_vector_norm", "any", "prod")  # fmt: skip
_SPATIAL = (*_CONVOLUTIONS, *_POOLS, "adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d")


def program_kernels(program: ExportedProgram, format: Format = "pte") -> list[Kernel]:
    """The float32 kernels of ``program`` as the runtime of ``format`` executes it, in order."""
    return list(_Reader(program, format).kernels())


class _Reader:
    def __init__(self, program: ExportedProgram, format: Format) -> None:
        self._format = format
        self._nodes = list(program.graph.nodes)
        signature = program.graph_signature
        self._constants = {spec.arg.name for spec in signature.input_specs if spec.kind.name != "USER_INPUT"}
        self._last: set[torch.fx.Node] = set()
        self._gone: set[torch.fx.Node] = set()

    def kernels(self) -> Iterator[Kernel]:
        for node in self._nodes:
            if node.op == "call_function":
                yield from self._borders(node)
                yield from (replace(kernel, op=op_name(node)) for kernel in self._kernels(node))
            elif node.op == "output":
                for leaving in node.all_input_nodes:
                    yield from self._to_channels_first(leaving)

    def _kernels(self, node: torch.fx.Node) -> Iterator[Kernel]:
        op, data = op_name(node), self._data(node)
        if op in CLAMPS and data is not None and self._fuses(data, _CLAMPED):
            return
        if op in ("batch_norm", "_native_batch_norm_legit_no_training") and data is not None:
            if self._fuses(data, _CONVOLUTIONS):
                return
            yield self._simple(node, "elementwise", stored=1)
            yield self._simple(node, "elementwise", stored=1)
            return
        if op in FREE or (not node_shape(node) and not self._activations(node)):
            return
        if not self._activations(node):
            return  # computed from constants alone, which exporters fold
        special = _SPECIAL.get(op)
        if special is not None:
            yield from special(self, node)
        elif op in _NORMS:
            yield from self._norm(node)
        elif op in _LAYOUT:
            moved = None if op in ("cat", "stack") else [self._shape(node)]
            yield self._simple(node, "layout", reads=moved)
        elif op in _SPLITS:
            for piece in node.users:
                shape = self._shape(piece)
                yield simple(piece.name, "layout", [shape], shape, delegate="XNNPACK")
        elif op in ("unbind", "tensor_split"):
            yield self._simple(node, "layout", out=self._shape(self._activations(node)[0]))
        else:
            yield self._simple(node, "elementwise")
            for _ in range(self._more_parts(op, data)):
                yield self._simple(node, "elementwise")

    def _more_parts(self, op: str, data: torch.fx.Node | None) -> int:
        """Kernels beyond the first that an activation is written out as."""
        if op == "silu":
            return 1
        if op == "hardsigmoid":
            # A product and a sum, which LiteRT's exporter moves into a convolution before them, and a clamp.
            moved = self._format == "tflite" and data is not None and op_name(data) in _CONVOLUTIONS
            return 0 if moved else 2
        return 0

    # What a node is.

    def _is_constant(self, node: torch.fx.Node) -> bool:
        return node.op == "get_attr" or node.name in self._constants

    def _activations(self, node: torch.fx.Node) -> list[torch.fx.Node]:
        return [each for each in node.all_input_nodes if not self._is_constant(each) and node_shape(each)]

    def _data(self, node: torch.fx.Node) -> torch.fx.Node | None:
        first = node.args[0] if node.args else None
        return first if isinstance(first, torch.fx.Node) else None

    def _fuses(self, producer: torch.fx.Node, families: tuple[str, ...]) -> bool:
        """Whether a node is computed with the one before it, which nothing else may read."""
        if producer.op != "call_function" or len(producer.users) != 1:
            return False
        if op_name(producer) in ("batch_norm", "_native_batch_norm_legit_no_training"):
            before = self._data(producer)
            return before is not None and self._fuses(before, _CONVOLUTIONS)
        return op_name(producer) in families

    def _last_channels(self, node: torch.fx.Node) -> bool:
        """Whether a picture lies in memory with its channels last."""
        return node in self._last

    def _shape(self, node: torch.fx.Node) -> Shape:
        sizes, dtype = node_shape(node), dtype_of(node)
        if node in self._last:
            return Shape(max(1, math.prod(sizes) // sizes[1]), sizes[1], dtype)
        return Shape.of(sizes, dtype)

    def _picture(self, node: torch.fx.Node, axis: int = 1) -> Shape:
        sizes = node_shape(node)
        return Shape(max(1, math.prod(sizes) // sizes[axis]), sizes[axis], dtype_of(node))

    # Transposes between pictures with channels first and last.

    def _borders(self, node: torch.fx.Node) -> Iterator[Kernel]:
        op, reads = op_name(node), self._activations(node)
        pictures = [each for each in reads if each in self._last]
        if op in _SPATIAL and len(node_shape(node)) == 4:
            data = reads[0] if reads else None
            if data is not None and data not in self._last and data not in self._gone:
                self._gone.add(data)
                yield from self._transpose(data)
            self._last.add(node)
        elif pictures and op in (*FREE, "linear", "addmm", "matmul", "permute", "transpose") and op not in (
            "dropout", "contiguous", "detach", "identity", "alias", "clone", "feature_dropout", "to", "getitem",
            "sym_size", "_assert_tensor_metadata",
        ):  # fmt: skip
            # A permutation of a picture costs itself alone: it starts from the order in memory.
            if op not in ("permute", "transpose"):
                for picture in pictures:
                    yield from self._to_channels_first(picture)
        elif pictures and len(node_shape(node)) == 4:
            self._last.add(node)

    def _to_channels_first(self, node: torch.fx.Node) -> Iterator[Kernel]:
        sizes = node_shape(node)
        moves = node in self._last and len(sizes) == 4 and sizes[1] > 1 and sizes[2] * sizes[3] > 1
        if moves and node not in self._gone:
            self._gone.add(node)
            yield from self._transpose(node)

    def _transpose(self, node: torch.fx.Node) -> Iterator[Kernel]:
        sizes = node_shape(node)
        if len(sizes) == 4 and sizes[1] > 1 and sizes[2] * sizes[3] > 1:
            shape = self._picture(node)
            kernel = simple(f"{node.name}.transpose", "layout", [shape], shape, delegate="XNNPACK")
            yield replace(kernel, op="transpose")

    # Kernels.

    def _simple(
        self, node: torch.fx.Node, kind: Kind, *, reads: list[Shape] | None = None, out: Shape | None = None,
        stored: int = 0,
    ) -> Kernel:  # fmt: skip
        result = out or self._shape(node)
        inputs = reads if reads is not None else [self._shape(each) for each in self._activations(node)]
        return simple(
            node.name, kind, inputs, result, constants=4.0 * stored * result.channels, delegate="XNNPACK"
        )

    def _convolution(self, node: torch.fx.Node) -> Iterator[Kernel]:
        op = op_name(node)
        transposed = "transpose" in op or (op == "convolution" and bool(node.args[6]))
        data, weights = node.all_input_nodes[0], node_shape(node.args[1])
        groups = argument_of(node, "groups", 1)
        if is_large_depthwise(node) and (parts := rows_of_parts(weights)):
            yield from self._by_rows(node, parts)
            return
        taps = Filter(weights[2:], as_list(argument_of(node, "stride", 1)), int(groups))
        yield convolution(
            node.name, self._picture(data), self._picture(node), taps, "fp32", transposed=transposed,
            delegate="XNNPACK",
        )  # fmt: skip

    def _by_rows(self, node: torch.fx.Node, parts: list[tuple[int, int]]) -> Iterator[Kernel]:
        """A large depthwise convolution as the converters write it: a sum of some with fewer rows."""
        weights, stride = node_shape(node.args[1]), as_list(argument_of(node, "stride", 1))
        data, out = self._picture(node.args[0]), self._picture(node)  # type: ignore[arg-type]
        for index, (_, rows) in enumerate(parts):
            taps = Filter((rows, weights[3]), stride, weights[0])
            yield convolution(f"{node.name}.{index}", data, out, taps, "fp32", delegate="XNNPACK")
            yield simple(f"{node.name}.rows", "layout", [out], out, delegate="XNNPACK")
            if index:
                yield simple(f"{node.name}.sum", "elementwise", [out, out], out, delegate="XNNPACK")

    def _linear(self, node: torch.fx.Node) -> Iterator[Kernel]:
        addmm = op_name(node) == "addmm"
        data = node.args[1 if addmm else 0]
        bias = addmm or (len(node.args) > 2 and node.args[2] is not None)
        assert isinstance(data, torch.fx.Node)
        out = Shape.of(node_shape(node))
        yield linear(node.name, Shape.of(node_shape(data)), out, "fp32", bias=bias, delegate="XNNPACK")

    def _matmul(self, node: torch.fx.Node) -> Iterator[Kernel]:
        shift = 1 if op_name(node) == "baddbmm" else 0
        left, right = node.args[shift], node.args[shift + 1]
        assert isinstance(left, torch.fx.Node) and isinstance(right, torch.fx.Node)
        shapes = [Shape.of(node_shape(each)) for each in (left, right, node)]
        if self._is_constant(right):
            yield linear(node.name, shapes[0], shapes[2], "fp32", bias=False, delegate="XNNPACK")
            return
        batches = [node_shape(each)[:-2] for each in (left, right)]
        copies = op_name(node) == "matmul" and all(batches) and batches[0] != batches[1]
        yield from self._product(node.name, *shapes, copies=copies)

    def _product(self, name: str, left: Shape, right: Shape, out: Shape, *, copies: bool) -> Iterator[Kernel]:
        if copies and self._format == "pte":
            # ExecuTorch writes a product of batches of unlike sizes as two expansions, which it copies, and a product.
            for side, shape in (("left", left), ("right", right)):
                yield simple(f"{name}.{side}", "layout", [shape], shape)
        yield product(name, left, right, out, "fp32", delegate="XNNPACK")

    def _attention(self, node: torch.fx.Node) -> Iterator[Kernel]:
        query, key, value = (node_shape(each) for each in node.args[:3])
        scores, out = Shape.of((*query[:-1], key[-2])), Shape.of(node_shape(node))
        shapes = [Shape.of(sizes) for sizes in (query, key, value)]
        flipped = Shape.of((*key[:-2], key[-1], key[-2]))
        pte, plain = self._format == "pte", is_plain_attention(node)
        # The converter writes it as two products and a softmax where it can.
        copies = not plain and len(query) > 2
        if pte:
            # LiteRT's exporter folds the scale into weights and the turned keys into what made them.
            yield simple(f"{node.name}.key", "layout", [shapes[1]], flipped, delegate="XNNPACK")
            delegate = "XNNPACK" if plain else None
            yield simple(f"{node.name}.query_scale", "elementwise", [shapes[0]], shapes[0], delegate=delegate)
        if pte and not plain:
            yield simple(f"{node.name}.key_scale", "elementwise", [flipped], flipped)
        yield from self._product(f"{node.name}.scores", shapes[0], flipped, scores, copies=copies)
        if len(node.args) > 3 and isinstance(node.args[3], torch.fx.Node):
            mask = Shape.of(node_shape(node.args[3]))
            yield simple(f"{node.name}.mask", "elementwise", [scores, mask], scores, delegate="XNNPACK")
        yield simple(f"{node.name}.softmax", "softmax", [scores], scores, delegate="XNNPACK")
        if pte and not plain:
            yield from _safe_softmax(node.name, scores)
        yield from self._product(node.name, scores, shapes[2], out, copies=copies)
        if pte and not plain:
            for part in ("there", "back"):
                yield simple(f"{node.name}.{part}", "layout", [out], out, delegate="XNNPACK")

    def _pool(self, node: torch.fx.Node) -> Iterator[Kernel]:
        window = as_list(node.args[1])
        strides = as_list(argument_of(node, "stride", None) or window)
        axes = len(node_shape(node)) - 2
        taps = math.prod(window) if len(window) > 1 else window[0] ** axes
        step = math.prod(strides) ** (1 / len(strides))
        data = self._data(node)
        assert data is not None
        if (
            self._format == "tflite"
            and "max" in op_name(node)
            and any(as_list(argument_of(node, "padding", 0)))
        ):
            # LiteRT pads before a maximum, with a kernel of its own.
            yield simple(f"{node.name}.pad", "layout", [self._picture(data)], self._picture(data))
        yield pooling(
            node.name, self._picture(data), self._picture(node), window=taps, side=taps**0.5, step=step,
            delegate="XNNPACK",
        )  # fmt: skip

    def _reduce(self, node: torch.fx.Node) -> Iterator[Kernel]:
        data = self._data(node)
        assert data is not None
        inner = node_shape(data)
        picture = data in self._last or (len(inner) == 4 and "pool" in op_name(node))
        out = self._shape(node)
        if picture:
            out = Shape(max(1, out.elements // inner[1]), inner[1]) if out.elements >= inner[1] else out
        yield mean(node.name, self._picture(data) if picture else self._shape(data), out, delegate="XNNPACK")

    def _norm(self, node: torch.fx.Node) -> Iterator[Kernel]:
        data = self._data(node)
        assert data is not None
        if self._format == "pte":
            yield simple(
                node.name, "norm", [self._shape(data)], self._shape(node), constants=8.0 * self._shape(node).channels
            )  # fmt: skip
            return
        # LiteRT has no kernel for it: it is written out.
        x = Shape.of(node_shape(data))
        row = Shape(1, x.positions)
        for part in ("mean", "variance"):
            yield mean(f"{node.name}.{part}", x, row, delegate="XNNPACK")
            if part == "mean":
                yield simple(f"{node.name}.square", "elementwise", [x, row], x, delegate="XNNPACK")
        for part in ("epsilon", "rsqrt", "product", "shift"):
            yield simple(f"{node.name}.{part}", "elementwise", [row], row, delegate="XNNPACK")
        for part in ("scaled", "shifted"):
            yield simple(f"{node.name}.{part}", "elementwise", [x, row], x, delegate="XNNPACK")

    def _embedding(self, node: torch.fx.Node) -> Iterator[Kernel]:
        yield simple(node.name, "embedding", [self._shape(node)], self._shape(node))

    def _softmax(self, node: torch.fx.Node) -> Iterator[Kernel]:
        yield self._simple(node, "softmax")

    def _recurrent(self, node: torch.fx.Node) -> Iterator[Kernel]:
        data = self._data(node)
        assert data is not None
        sizes = node_shape(data)
        steps = sizes[1] if len(sizes) == 3 and node.args[-1] is True else sizes[0]
        rows = max(1, math.prod(sizes[:-1]) // steps)
        matrices = [each for each in node.args[2] if len(node_shape(each)) == 2]  # type: ignore[union-attr]
        for index, weights in enumerate(matrices):
            outputs, inner = node_shape(weights)
            # The inputs of all steps are one product, the state's are one a step.
            count, each = (1, rows * steps) if index % 2 == 0 else (steps, rows)
            for step in range(count):
                name = f"{node.name}.{index}.{step}"
                yield linear(name, Shape(each, inner), Shape(each, outputs), "fp32", delegate="XNNPACK")
                if index % 2:
                    gates = Shape(each, outputs)
                    for part in ("gates", "squashed", "kept", "added", "state"):
                        yield simple(
                            f"{name}.{part}", "elementwise", [gates], Shape(each, inner), delegate="XNNPACK"
                        )


_SPECIAL: dict[str, Callable[[_Reader, torch.fx.Node], Iterator[Kernel]]] = {
    **dict.fromkeys(_CONVOLUTIONS, _Reader._convolution),
    **dict.fromkeys(_POOLS, _Reader._pool),
    **dict.fromkeys(_REDUCING, _Reader._reduce),
    **dict.fromkeys(("linear", "addmm"), _Reader._linear),
    **dict.fromkeys(("mm", "bmm", "matmul", "baddbmm"), _Reader._matmul),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), _Reader._softmax),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _Reader._recurrent),
    "scaled_dot_product_attention": _Reader._attention,
    "embedding": _Reader._embedding,
}


def _safe_softmax(name: str, scores: Shape) -> Iterator[Kernel]:
    """What ExecuTorch writes so that a row in which everything is masked gives zeros."""
    flags, rows = replace(scores, dtype="bool"), Shape(scores.positions, 1, "bool")
    yield simple(f"{name}.is_masked", "elementwise", [scores], flags)
    yield simple(f"{name}.zeros", "layout", [scores], scores)
    yield simple(f"{name}.not_masked", "elementwise", [flags], flags)
    yield mean(f"{name}.any", flags, rows)
    yield simple(f"{name}.none", "elementwise", [rows], rows)
    yield simple(f"{name}.where", "elementwise", [rows, scores, scores], scores)
