"""Kernels from the shapes of operators, so that every reader of a graph describes the same work alike.

Readers of files and of captured programs know operators; here they become :class:`Kernel`. Channels are
the last axis of the tensors a runtime computes on, positions all the others together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .kernels import Kernel, Kind, Precision

# Bytes an element takes; int4 packs two to a byte.
ELEMENT_BYTES = {
    "float64": 8.0, "int64": 8.0, "float32": 4.0, "int32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int16": 2.0,
    "int8": 1.0, "uint8": 1.0, "bool": 1.0, "int4": 0.5, "uint4": 0.5,
}  # fmt: skip
_NARROW: dict[str, Precision] = {
    "int8": "int8",
    "uint8": "int8",
    "int4": "int8",
    "float16": "fp16",
    "bfloat16": "fp16",
}


@dataclass(frozen=True)
class Shape:
    """A tensor as kernels see it: channels and positions of an element type."""

    positions: int
    channels: int
    dtype: str = "float32"

    @classmethod
    def of(cls, sizes: Sequence[int], dtype: str = "float32") -> Shape:
        """Of a tensor whose last axis holds the channels; unknown sizes (-1, 0) count as 1."""
        known = [max(1, int(abs(size))) for size in sizes]
        return cls(math.prod(known[:-1]), known[-1], dtype) if known else cls(1, 1, dtype)

    @property
    def elements(self) -> int:
        """How many there are."""
        return self.positions * self.channels

    @property
    def bytes(self) -> float:
        """Size in memory."""
        return self.elements * ELEMENT_BYTES.get(self.dtype, 4.0)

    @property
    def precision(self) -> Precision:
        """What arithmetic on it is done in."""
        return _NARROW.get(self.dtype, "fp32")


@dataclass(frozen=True)
class Filter:
    """Weights of a convolution: sides and step of the filter, groups, and the type they are stored in."""

    sides: Sequence[int]
    strides: Sequence[int]
    groups: int = 1
    dtype: str = "float32"


def convolution(
    name: str, data: Shape, out: Shape, taps: Filter, precision: Precision, *, transposed: bool = False,
    delegate: str | None = None,
) -> Kernel:  # fmt: skip
    """A convolution with its bias and clamp, along any number of axes."""
    window = math.prod(taps.sides)
    inputs = data.channels // taps.groups
    # A transposed convolution spreads every input over the window instead of gathering it.
    macs = (
        data.elements * window * (out.channels // taps.groups)
        if transposed
        else out.elements * window * inputs
    )
    kind: Kind = "conv"
    if taps.groups > 1:
        kind = "depthwise" if inputs == 1 else "grouped"
    elif window == 1:
        kind = "pointwise"
    axes = max(1, len(taps.sides))
    weights = window * inputs * out.channels * ELEMENT_BYTES.get(taps.dtype, 4.0) + 4.0 * out.channels
    return Kernel(
        name, kind, precision, macs=macs, bytes_in=data.bytes, bytes_out=out.bytes, bytes_weights=weights,
        in_channels=max(1, inputs), out_channels=out.channels, spatial=out.positions,
        kernel_size=float(window ** (1 / min(axes, 2))),
        stride=float(max(1, math.prod(taps.strides)) ** (1 / min(axes, 2))), delegate=delegate,
    )  # fmt: skip


def linear(
    name: str, data: Shape, out: Shape, precision: Precision, *, weights: str = "float32", bias: bool = True,
    delegate: str | None = None,
) -> Kernel:  # fmt: skip
    """A product with constant weights, and its bias and clamp."""
    inner = max(1, data.elements // out.positions)
    stored = inner * out.channels * ELEMENT_BYTES.get(weights, 4.0) + (4.0 * out.channels if bias else 0.0)
    return Kernel(
        name, "linear", precision, macs=out.elements * inner, bytes_in=data.bytes, bytes_out=out.bytes,
        bytes_weights=stored, in_channels=inner, out_channels=out.channels, spatial=out.positions,
        delegate=delegate,
    )  # fmt: skip


def product(
    name: str, left: Shape, right: Shape, out: Shape, precision: Precision, *, delegate: str | None = None
) -> Kernel:
    """A (batched) product of two activations."""
    inner = max(1, left.elements // out.positions)
    return Kernel(
        name, "matmul", precision, macs=out.elements * inner, bytes_in=left.bytes + right.bytes,
        bytes_out=out.bytes, in_channels=inner, out_channels=out.channels, spatial=out.positions,
        delegate=delegate,
    )  # fmt: skip


def pooling(
    name: str, data: Shape, out: Shape, *, window: int, side: float, step: float, delegate: str | None = None
) -> Kernel:
    """A maximum or an average over ``window`` positions; ``side`` and ``step`` are those of the window."""
    return Kernel(
        name, "pool", out.precision, bytes_in=data.bytes, bytes_out=out.bytes, in_channels=max(1, window),
        out_channels=out.channels, spatial=out.positions, kernel_size=max(1.0, side), stride=max(1.0, step),
        delegate=delegate,
    )  # fmt: skip


def mean(name: str, data: Shape, out: Shape, *, delegate: str | None = None) -> Kernel:
    """An average (or sum) over whole axes."""
    window = max(1, data.elements // out.elements)
    return pooling(name, data, out, window=window, side=window**0.5, step=window**0.5, delegate=delegate)


def simple(
    name: str, kind: Kind, reads: Sequence[Shape], out: Shape, *, constants: float = 0.0,
    delegate: str | None = None,
) -> Kernel:  # fmt: skip
    """A kernel without multiply-accumulates: elementwise, layout, softmax, norm, embedding, other.

    ``constants`` is the bytes of weights it reads.
    """
    return Kernel(
        name, kind, out.precision, bytes_in=sum(shape.bytes for shape in reads), bytes_out=out.bytes,
        bytes_weights=constants, in_channels=out.channels, out_channels=out.channels, spatial=out.positions,
        delegate=delegate,
    )  # fmt: skip
