"""The unit the cost model reasons about: one fused kernel with its work, its traffic and its shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..errors import InputError

Kind = Literal[
    "conv", "depthwise", "pointwise", "grouped", "linear", "matmul", "pool", "elementwise", "softmax", "norm",
    "layout", "embedding", "recurrent", "other",
]  # fmt: skip
Precision = Literal["fp32", "fp16", "int8", "int4"]

KINDS: tuple[str, ...] = get_args(Kind)
PRECISIONS: tuple[str, ...] = get_args(Precision)
ACTIVATION_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 1.0}
WEIGHT_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
MAC_KINDS = frozenset({"conv", "depthwise", "pointwise", "grouped", "linear", "matmul", "recurrent"})


@dataclass(frozen=True)
class Kernel:
    """One kernel of an inference; convolution + normalisation + activation in one call is one kernel.

    Attributes:
        name: what the file or graph calls it.
        kind: family (:data:`KINDS`).
        precision: of its arithmetic (:data:`PRECISIONS`).
        macs: multiply-accumulates of one inference by the formula (0 for kinds without weights).
        bytes_in, bytes_out: activations read and written.
        bytes_weights: constants read (weights, biases).
        in_channels, out_channels: per group for ``in_channels``: 1 for a depthwise convolution; for a
            matrix product the reduction length and the columns of the result.
        spatial: positions of the output (height × width, or the rows of a matrix product).
        kernel_size: side of the filter (geometric mean of the sides).
        stride: step of the filter.
        delegate: who executes it ("XNNPACK"), None for a runtime's own kernels.
        op: the operator in the words of the file or graph, where its reader tells.
    """

    name: str
    kind: Kind
    precision: Precision
    macs: int = 0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    bytes_weights: float = 0.0
    in_channels: int = 1
    out_channels: int = 1
    spatial: int = 1
    kernel_size: float = 1.0
    stride: float = 1.0
    delegate: str | None = None
    op: str = ""

    @property
    def elements_out(self) -> float:
        """Elements written."""
        return self.bytes_out / ACTIVATION_BYTES[self.precision]

    @property
    def bytes_moved(self) -> float:
        """All traffic of the kernel, each byte once."""
        return self.bytes_in + self.bytes_out + self.bytes_weights

    def at(self, precision: Precision) -> Kernel:
        """The same kernel computed in another precision: the work stays, the bytes change."""
        if precision == self.precision:
            return self
        activations = ACTIVATION_BYTES[precision] / ACTIVATION_BYTES[self.precision]
        weights = WEIGHT_BYTES[precision] / WEIGHT_BYTES[self.precision]
        return replace(
            self,
            precision=precision,
            bytes_in=self.bytes_in * activations,
            bytes_out=self.bytes_out * activations,
            bytes_weights=self.bytes_weights * weights,
        )


def total_macs(kernels: Iterable[Kernel]) -> int:
    """Multiply-accumulates of one inference."""
    return sum(kernel.macs for kernel in kernels)


def on_one_thread(kernels: Sequence[Kernel]) -> list[bool]:
    """Which kernels of a network use one thread, however many there are: a runtime's own, beside a delegate's.

    Where no delegate is named nobody knows who executes what, and none is.
    """
    delegated = any(kernel.delegate is not None for kernel in kernels)
    return [delegated and kernel.delegate is None for kernel in kernels]


def check_kernels(kernels: Sequence[Kernel]) -> None:
    """Refuse work that cannot be: nothing at all, negative or not finite, unknown words.

    Raises:
        InputError: with the kernel and the figure.
    """
    if not kernels:
        raise InputError("there is nothing to estimate: the model has no kernels.")
    for kernel in kernels:
        if kernel.kind not in KINDS:
            raise InputError(f"kernel {kernel.name!r} has kind {kernel.kind!r}; known: {', '.join(KINDS)}.")
        if kernel.precision not in PRECISIONS:
            raise InputError(
                f"kernel {kernel.name!r} has precision {kernel.precision!r}; known: {', '.join(PRECISIONS)}."
            )
        for field in ("macs", "bytes_in", "bytes_out", "bytes_weights"):
            value = getattr(kernel, field)
            if not math.isfinite(value) or value < 0:
                raise InputError(
                    f"kernel {kernel.name!r} has {field} = {value}; it must be finite and not negative."
                )
        for field in ("in_channels", "out_channels", "spatial", "kernel_size", "stride"):
            value = getattr(kernel, field)
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"kernel {kernel.name!r} has {field} = {value}; it must be above 0.")
