"""Operators that one of the exporters refuses or gets wrong, each as other operators that give the same result.

Every function here looks at one node of a captured program and gives the operators that may stand in its
place, as a torch function of the node's tensor inputs, or None when the node is fine as it is. Checked with
ExecuTorch 1.5.1 and litert-torch 0.10.0: what each refuses stands in the docstrings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from .activation_forms import hard_sigmoid, prelu_of_rows
from .attention_forms import plain_attention, product_of_batches
from .depthwise_forms import depthwise_by_rows
from .index_forms import embedding_bag, index_copy, masked_assignment, one_hot
from .padding_forms import border_by_slices, padding_in_numbers, without_padding
from .pooling_forms import largest_along_axis, max_over_bins, mean_of_all, pool_by_axes
from .recurrent import cell_form, recurrent_form
from .scatter_forms import fold_by_convolution, index_by_mask, put_by_mask, scatter_by_mask
from .split_forms import slices_of_split
from .topk_forms import order_by_topk, sort_by_topk, topk_by_positions

_ATEN = torch.ops.aten
Form = Callable[..., Any]


@dataclass(frozen=True)
class EqualForm:
    """Operators that may stand in a node's place: ``function(*inputs)``, and what to call the change.

    ``cuts_weights``: pieces of a weight are weights of their own in it.
    """

    title: str
    function: Form
    inputs: tuple[torch.fx.Node, ...]
    cuts_weights: bool


def equal_form(node: torch.fx.Node, output_format: str | None) -> EqualForm | None:
    """An equal form of ``node``, or None when it needs none.

    Args:
        output_format: ``pte``, ``tflite``, or ``pte int8`` for a quantised graph; None asks for the forms that
            both formats need.
    """
    for rule in _RULES.get(node.target, ()):
        if output_format not in rule.formats or (rule.sizes_known and _is_symbolic(node)):
            continue
        function = rule.find(node)
        if function is not None:
            return EqualForm(rule.title, function, tuple(node.all_input_nodes), rule.cuts_weights)
    return None


def _nearest_by_index(node: torch.fx.Node) -> Form | None:
    """Nearest-neighbour resizing by a factor that is no whole number: LiteRT takes other pixels than PyTorch.

    PyTorch takes pixel floor(i·in/out) (in float32); picked here with constant indices.
    """
    before = node.args[0].meta["val"].shape[2:]  # type: ignore[union-attr]
    after = node.meta["val"].shape[2:]
    if all(big % small == 0 for small, big in zip(before, after, strict=True)):
        return None
    # Asking the operator itself for the indices leaves no room for another rounding.
    picks = []
    for small, big in zip(before, after, strict=True):
        ramp = torch.arange(small, dtype=torch.float32).reshape(1, 1, small)
        picks.append(functional.interpolate(ramp, size=int(big), mode="nearest").flatten().long())

    def form(x: torch.Tensor) -> torch.Tensor:
        for axis, index in enumerate(picks):
            x = torch.index_select(x, axis + 2, index)
        return x

    return form


def _transposed_convolution(node: torch.fx.Node) -> Form | None:
    """Transposed convolution with output padding: LiteRT fails on it (or fills zeros where values belong).

    Without any padding the whole result is there; the wanted part is cut out of it.
    """
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    rank = node.args[0].meta["val"].ndim - 2  # type: ignore[union-attr]

    def sizes(name: str, default: int) -> list[int]:
        value = given.get(name, default)
        values = [value] if isinstance(value, int) else list(value)  # type: ignore[arg-type]
        return values * rank if len(values) == 1 else values

    extra, padding = sizes("output_padding", 0), sizes("padding", 0)
    if not any(extra) or any(e > p for e, p in zip(extra, padding, strict=True)):
        return None
    stride, dilation, groups = sizes("stride", 1), sizes("dilation", 1), int(given.get("groups", 1))  # type: ignore[call-overload]
    wanted = node.meta["val"].shape[2:]
    transposed = functional.conv_transpose2d if rank == 2 else functional.conv_transpose1d
    order = node.all_input_nodes
    roles = [given[name] for name in names[:3] if isinstance(given.get(name), torch.fx.Node)]

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        found = transposed(
            *(tensors[order.index(role)] for role in roles), stride=stride, groups=groups, dilation=dilation
        )
        for axis, (start, size) in enumerate(zip(padding, wanted, strict=True)):
            found = found.narrow(axis + 2, start, size)
        return found

    return form


def _volume_by_slices(node: torch.fx.Node) -> Form | None:
    """Three-dimensional convolution: ExecuTorch's kernels have one and two dimensions.

    y[d] = Σ_t conv2d(x[d·stride + t·dilation], w[:, :, t]): the depths of a tap become rows of one batch.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}

    def sizes(name: str, default: int) -> list[int]:
        value = given.get(name, default)
        values = [value] if isinstance(value, int) else list(value)  # type: ignore[arg-type]
        return values * 3 if len(values) == 1 else values

    stride, padding, dilation = sizes("stride", 1), sizes("padding", 0), sizes("dilation", 1)
    groups = int(given.get("groups", 1))  # type: ignore[call-overload]
    order = node.all_input_nodes
    depth = node.meta["val"].shape[2]

    def form(*tensors: torch.Tensor) -> torch.Tensor:
        found = [
            tensors[order.index(given[n])] if isinstance(given.get(n), torch.fx.Node) else None  # type: ignore[arg-type]
            for n in names[:3]
        ]
        x, weight, bias = found
        assert x is not None and weight is not None
        x = functional.pad(x, (0, 0, 0, 0, padding[0], padding[0]))
        batch = x.shape[0]
        total = None
        for tap in range(weight.shape[2]):
            first = tap * dilation[0]
            rows = x[:, :, first : first + (depth - 1) * stride[0] + 1 : stride[0]]
            flat = rows.transpose(1, 2).reshape(batch * depth, x.shape[1], x.shape[3], x.shape[4])
            part = functional.conv2d(
                flat,
                weight[:, :, tap],
                bias if tap == 0 else None,
                stride[1:],
                padding[1:],
                dilation[1:],
                groups,
            )
            total = part if total is None else total + part
        assert total is not None
        return total.reshape(batch, depth, *total.shape[1:]).transpose(1, 2)

    return form


def _number_of_full_rank(node: torch.fx.Node) -> Form | None:
    """Arithmetic of an image and a number: between quantised convolutions ExecuTorch mixes up the layouts.

    XNNPACK's part turns images to channels last and takes a constant of fewer dimensions for one of other axes
    (12 dB where 62 are right). A constant of as many dimensions is left in peace.
    """
    if len(node.args) != 2 or node.kwargs:
        return None
    source, number = node.args
    value = node.meta.get("val")
    if not isinstance(source, torch.fx.Node) or isinstance(number, torch.fx.Node | bool | complex):
        return None
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or not value.dtype.is_floating_point:
        return None
    constant = torch.full((1, 1, 1, 1), float(number), dtype=value.dtype)  # type: ignore[arg-type]
    operation: Any = node.target
    return lambda x: operation(x, constant)


def _power(node: torch.fx.Node) -> Form | None:
    """A power of five dimensions or more: LiteRT's converter can't write it. Products or a root instead."""
    base, exponent = node.args
    if base.meta["val"].ndim < 5 or isinstance(exponent, torch.fx.Node):  # type: ignore[union-attr]
        return None
    if exponent == 0.5:
        return torch.sqrt
    if exponent not in (2, 3, 4):
        return None
    return lambda x: functools.reduce(torch.mul, [x] * int(exponent))  # type: ignore[arg-type]


def _affine_grid(node: torch.fx.Node) -> Form | None:
    """A grid of positions: LiteRT writes an operator for it that its runtime doesn't have.

    The grid of the identity is constant; the pose is applied to it: g = base · θ[:, :, :2]ᵀ + θ[:, :, 2].
    """
    size, corners = [int(s) for s in node.args[1]], bool(node.args[2])  # type: ignore[union-attr]
    dims = len(size) - 2
    identity = torch.eye(dims, dims + 1)[None]
    base = functional.affine_grid(identity, [1, *size[1:]], align_corners=corners).reshape(1, -1, dims)

    def form(theta: torch.Tensor) -> torch.Tensor:
        grid = torch.matmul(base, theta[:, :, :dims].transpose(1, 2)) + theta[:, :, dims].unsqueeze(1)
        return grid.reshape(size[0], *size[2:], dims)

    return form


def _is_symbolic(node: torch.fx.Node) -> bool:
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return any(
        not isinstance(size, int) for item in flat if isinstance(item, torch.Tensor) for size in item.shape
    )


@dataclass(frozen=True)
class _Rule:
    """``find`` gives the form of a node; ``format`` is what needs it: None for both formats before anything is
    optimised, ``each`` for both in their converters.

    A form without a ``title`` is only faster, or another spelling: nothing that a user need be told.
    ``sizes_known``: it can't be told while a size is dynamic.
    """

    find: Callable[[torch.fx.Node], Form | None]
    format: str | None
    title: str = ""
    cuts_weights: bool = False
    sizes_known: bool = True

    @property
    def formats(self) -> tuple[str | None, ...]:
        return ("pte", "tflite") if self.format == "each" else (self.format,)


_MASK = _Rule(masked_assignment, None, "an assignment through a mask is written as where")
_BINS = _Rule(max_over_bins, None, "adaptive max pooling is written as maxima over slices")
_WHOLE = _Rule(mean_of_all, None, "average pooling over the whole image is written as a mean")
_SORT = _Rule(sort_by_topk, None, "sorting is written as topk of all elements")
_TOPK = _Rule(topk_by_positions, "tflite", "topk is written as positions and a gather")
_NEAREST = _Rule(
    _nearest_by_index, "tflite", "nearest-neighbour resizing is written as a selection of pixels"
)
_TRANSPOSED = _Rule(
    _transposed_convolution, "tflite", "a transposed convolution's output padding is written as a cut"
)
_BAG = _Rule(embedding_bag, None, "an embedding bag is written as an embedding and a reduction")
_ONE_HOT = _Rule(one_hot, "tflite", "one_hot is written as a comparison with each class")
_COPY = _Rule(index_copy, "tflite", "a copy to positions is written as where")
_SCATTER = _Rule(
    scatter_by_mask, "tflite", "a sum at given positions is written as a product with their mask"
)
_INDEX = replace(_SCATTER, find=index_by_mask)
_PUT = replace(_SCATTER, find=put_by_mask)
_REDUCE = _Rule(scatter_by_mask, "each", "a reduction at given positions is written with their mask")
_FOLD = _Rule(fold_by_convolution, "tflite", "F.fold is written as a transposed convolution")
_VOLUME = _Rule(
    _volume_by_slices,
    "pte",
    "a 3-D convolution is written as 2-D convolutions of its slices",
    cuts_weights=True,
)
_PADDING = _Rule(padding_in_numbers, None, sizes_known=False)
_NO_PADDING = _Rule(without_padding, None, sizes_known=False)
_BORDER = _Rule(border_by_slices, "pte")
_AFFINE = _Rule(_affine_grid, None, "an affine grid is written as a product with a constant grid")

_NUMBER = _Rule(_number_of_full_rank, "pte int8", "numbers are written as tensors of full rank")

_LARGEST = _Rule(largest_along_axis, "pte", sizes_known=False)
_POOL3D = _Rule(pool_by_axes, "pte", "a 3-D pooling is written as poolings of two axes and of one")
_POWER = _Rule(_power, "tflite", "a power is written as products")

_ATTENTION = _Rule(plain_attention, "pte")
_PRODUCT = _Rule(product_of_batches, "pte")

_DEPTHWISE = _Rule(depthwise_by_rows, "each", cuts_weights=True)

_SPLIT = _Rule(slices_of_split, None)

_CELL = _Rule(cell_form, None, "a recurrent cell is written as linear layers and gates")
_RECURRENT = _Rule(
    recurrent_form, None, "a recurrent layer is written as linear layers and gates, step by step"
)

_EACH_RULE: dict[Any, _Rule | tuple[_Rule, ...]] = {
    _ATEN.mul.Tensor: _NUMBER,
    _ATEN.div.Tensor: _NUMBER,
    _ATEN.add.Tensor: _NUMBER,
    _ATEN.sub.Tensor: _NUMBER,
    _ATEN.scaled_dot_product_attention.default: _ATTENTION,
    _ATEN.matmul.default: _PRODUCT,
    **dict.fromkeys((_ATEN.chunk.default, _ATEN.split.Tensor, _ATEN.split_with_sizes.default), _SPLIT),
    _ATEN.lstm.input: _RECURRENT,
    _ATEN.gru.input: _RECURRENT,
    _ATEN.lstm_cell.default: _CELL,
    _ATEN.gru_cell.default: _CELL,
    _ATEN.max.dim: _LARGEST,
    _ATEN.max_pool3d.default: _POOL3D,
    _ATEN.avg_pool3d.default: _POOL3D,
    _ATEN.pow.Tensor_Scalar: _POWER,
    _ATEN.hardsigmoid.default: _Rule(
        hard_sigmoid, "pte int8", "hardsigmoid is written with tensors of full rank"
    ),
    _ATEN.prelu.default: _Rule(prelu_of_rows, "pte", sizes_known=False),
    _ATEN.index_put.default: (_MASK, _PUT),
    _ATEN.index_put_.default: (_MASK, _PUT),
    **dict.fromkeys((_ATEN.scatter_add.default, _ATEN.scatter_add_.default), _SCATTER),
    **dict.fromkeys((_ATEN.index_add.default, _ATEN.index_add_.default), _INDEX),
    **dict.fromkeys((_ATEN.scatter_reduce.two, _ATEN.scatter_reduce_.two), _REDUCE),
    **dict.fromkeys(
        (_ATEN.index_reduce.default, _ATEN.index_reduce_.default), replace(_REDUCE, find=index_by_mask)
    ),
    _ATEN.col2im.default: _FOLD,
    _ATEN.pad.default: (_NO_PADDING, _BORDER),
    _ATEN.constant_pad_nd.default: _NO_PADDING,
    _ATEN.adaptive_max_pool1d.default: _BINS,
    _ATEN.adaptive_max_pool2d.default: _BINS,
    **dict.fromkeys((_ATEN.conv1d.padding, _ATEN.conv2d.padding, _ATEN.conv3d.padding), _PADDING),
    _ATEN.avg_pool2d.default: _WHOLE,
    _ATEN.sort.default: _SORT,
    _ATEN.argsort.default: replace(_SORT, find=order_by_topk),
    _ATEN.topk.default: _TOPK,
    _ATEN.upsample_nearest2d.vec: _NEAREST,
    _ATEN.upsample_nearest2d.default: _NEAREST,
    _ATEN.conv_transpose2d.input: _TRANSPOSED,
    _ATEN.conv_transpose1d.default: _TRANSPOSED,
    _ATEN.embedding_bag.padding_idx: _BAG,
    _ATEN.embedding_bag.default: _BAG,
    _ATEN.one_hot.default: _ONE_HOT,
    _ATEN.index_copy.default: _COPY,
    _ATEN.index_copy_.default: _COPY,
    _ATEN.conv3d.default: _VOLUME,
    _ATEN.conv2d.default: _DEPTHWISE,
    _ATEN.affine_grid_generator.default: _AFFINE,
}
_RULES = {target: each if isinstance(each, tuple) else (each,) for target, each in _EACH_RULE.items()}
