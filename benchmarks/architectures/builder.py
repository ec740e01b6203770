"""Writes a network down as a list of kernels, from its published table, without any framework.

A convolution carries its normalisation and its ReLU; activations that runtimes run on their own (swish,
hard-swish, GELU) are kernels of their own. Sizes are those of batch 1, float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edgeopt.cost_model import Kernel

FLOAT = 4.0
FUSED = (None, "relu", "relu6", "leaky")


class T(NamedTuple):
    """The shape of an activation: channels, height, width."""

    c: int
    h: int
    w: int

    @property
    def bytes(self) -> float:
        """Size in float32."""
        return FLOAT * self.c * self.h * self.w


def width(channels: float, divisor: int = 8) -> int:
    """Channels after a width multiplier, rounded as the published MobileNet code does."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class Net:
    """Collects kernels; every method returns the shape of what it computed.

    ``params`` counts weights, biases and the two learned vectors of a normalisation.
    """

    def __init__(self, image: int, channels: int = 3) -> None:
        self.kernels: list[Kernel] = []
        self.params = 0
        self.input = T(channels, image, image)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kernels."""
        return sum(kernel.macs for kernel in self.kernels)

    def _add(self, kind: str, reads: float, out: T, **facts: float | int) -> T:
        name = f"{kind}_{len(self.kernels)}"
        kernel = Kernel(name, kind, "fp32", bytes_in=reads, bytes_out=out.bytes, **facts)  # type: ignore[arg-type]
        self.kernels.append(kernel)
        return out

    def conv(
        self, x: T, out: int, k: int = 1, s: int = 1, *, pad: int | None = None, groups: int = 1,
        act: str | None = "relu", bn: bool = True, bias: bool = False, kw: int | None = None,
        pad_w: int | None = None,
    ) -> T:  # fmt: skip
        """A convolution (k × kw), "same" unless ``pad`` says otherwise."""
        kw = k if kw is None else kw
        pad = k // 2 if pad is None else pad
        pad_w = (pad if kw == k else kw // 2) if pad_w is None else pad_w
        y = T(out, (x.h + 2 * pad - k) // s + 1, (x.w + 2 * pad_w - kw) // s + 1)
        weights = out * (x.c // groups) * k * kw
        vectors = 2 * out if bn else out if bias else 0
        self.params += weights + vectors
        kind = (
            "depthwise" if groups == x.c and groups > 1 else "grouped" if groups > 1
            else "pointwise" if k * kw == 1 else "conv"
        )  # fmt: skip
        self._add(
            kind, x.bytes, y, macs=weights * y.h * y.w, bytes_weights=FLOAT * (weights + out),
            in_channels=x.c // groups, out_channels=out, spatial=y.h * y.w, kernel_size=math.sqrt(k * kw),
            stride=s,
        )  # fmt: skip
        return y if act in FUSED else self.act(y)

    def linear(self, x: T, out: int, *, rows: int = 1, bias: bool = True) -> T:
        """A fully connected layer on ``rows`` rows of all other entries of ``x``."""
        inner = x.c * x.h * x.w // rows
        self.params += inner * out + (out if bias else 0)
        return self._add(
            "linear", x.bytes, T(out, rows, 1), macs=rows * inner * out, bytes_weights=FLOAT * (inner + 1) * out,
            in_channels=inner, out_channels=out, spatial=rows,
        )  # fmt: skip

    def matmul(self, rows: int, inner: int, columns: int, batch: int = 1) -> T:
        """A product of two activations."""
        return self._add(
            "matmul", FLOAT * batch * (rows * inner + inner * columns), T(columns, rows, batch),
            macs=batch * rows * inner * columns, in_channels=inner, out_channels=columns, spatial=rows * batch,
        )  # fmt: skip

    def pool(self, x: T, k: int, s: int, pad: int = 0, *, ceil: bool = False) -> T:
        """A maximum or average over k × k."""
        rounding = math.ceil if ceil else math.floor
        h, w = (rounding((side + 2 * pad - k) / s) + 1 for side in (x.h, x.w))
        return self._add("pool", x.bytes, T(x.c, h, w), in_channels=k * k, out_channels=x.c, spatial=h * w,
                         kernel_size=k, stride=s)  # fmt: skip

    def mean(self, x: T) -> T:
        """Global average."""
        return self._add("pool", x.bytes, T(x.c, 1, 1), in_channels=x.h * x.w, out_channels=x.c,
                         kernel_size=x.h, stride=x.h)  # fmt: skip

    def act(self, x: T) -> T:
        """An activation that is a kernel of its own."""
        return self._elementwise(x.bytes, x)

    def add(self, x: T, *others: T) -> T:
        """Sum (or product) of equal or broadcast shapes."""
        return self._elementwise(x.bytes + sum(other.bytes for other in others), x)

    def _elementwise(self, reads: float, out: T) -> T:
        return self._add(
            "elementwise", reads, out, in_channels=out.c, out_channels=out.c, spatial=out.h * out.w
        )

    def layout(self, x: T, out: T | None = None) -> T:
        """Data moved: shuffle, slice, transpose, upsampling by copies."""
        y = out or x
        return self._add("layout", x.bytes, y, in_channels=x.c, out_channels=y.c, spatial=y.h * y.w)

    def concat(self, *parts: T) -> T:
        """Channels side by side."""
        out = T(sum(part.c for part in parts), parts[0].h, parts[0].w)
        return self.layout(out)

    def upsample(self, x: T, factor: int = 2) -> T:
        """Twice the height and width."""
        return self.layout(x, T(x.c, x.h * factor, x.w * factor))

    def softmax(self, x: T) -> T:
        """Over the channels."""
        return self._add("softmax", x.bytes, x, in_channels=x.c, out_channels=x.c, spatial=x.h * x.w)

    def norm(self, x: T) -> T:
        """A normalisation whose figures come from its input."""
        self.params += 2 * x.c
        return self._add("norm", x.bytes, x, in_channels=x.c, out_channels=x.c, spatial=x.h * x.w)

    def excite(self, x: T, squeezed: int, *, act: str | None = "relu", dense: bool = False) -> T:
        """Squeeze and excite: two small layers on the mean, then a product."""
        mean = self.mean(x)
        if dense:
            hidden = self.linear(mean, squeezed)
            gate = self.linear(T(squeezed, 1, 1), x.c)
            del hidden, gate
        else:
            hidden = self.conv(mean, squeezed, bn=False, bias=True, act=act)
            self.conv(hidden, x.c, bn=False, bias=True, act=None)
        self._elementwise(T(x.c, 1, 1).bytes, T(x.c, 1, 1))  # the gate's own sigmoid
        return self.add(x, T(x.c, 1, 1))

    def response_norm(self, x: T) -> T:
        """Local response normalisation over the channels: a power for each element, nothing learned."""
        return self._add("norm", x.bytes, x, in_channels=x.c, out_channels=x.c, spatial=x.h * x.w)

    def classify(self, x: T, classes: int = 1000) -> T:
        """Mean, fully connected layer, softmax."""
        return self.softmax(self.linear(self.mean(x), classes))
