"""Which time of an op profile belongs to which kernel of a file: operators of one family come in one order in both."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cost_model.kernels import Kernel

# (name, ms, whether a delegate ran it)
Op = tuple[str, float, bool]

# Families as XNNPACK names the operators that it runs, by the beginnings of their names ...
_RUN = {
    "Convolution": "conv", "Fully Connected": "conv", "Deconvolution": "deconv", "Batch Matrix": "matmul",
    "Add": "add", "Multiply": "mul", "Subtract": "sub", "Divide": "div", "Squared Difference": "sqd",
    "Clamp": "clamp", "Convert": "convert", "Sigmoid": "unary", "TanH": "unary", "GELU": "unary",
    "HardSwish": "unary", "Invalid Unary": "unary", "Reciprocal Square": "rsqrt", "Copy": "concat", "Slice": "slice",
    "Transpose": "transpose", "Constant Pad": "pad", "Max Pooling": "maxpool", "Average Pooling": "avgpool",
    "Mean": "mean", "Softmax": "softmax",
}  # fmt: skip
# ... and as files name them. A 1×1 convolution runs as a fully connected layer, a mean over an image as a pool.
_NAMED = {
    "conv2d": "conv", "conv_2d": "conv", "depthwiseconv2d": "conv", "depthwise_conv_2d": "conv",
    "fullyconnected": "conv", "fully_connected": "conv", "convtranspose2d": "deconv", "transpose_conv": "deconv",
    "batchmatrixmultiply": "matmul", "batch_matmul": "matmul", "add": "add", "multiply": "mul", "mul": "mul",
    "subtract": "sub", "sub": "sub", "div": "div", "squared_difference": "sqd", "clamp": "clamp",
    "convert": "convert", "quantize": "convert", "dequantize": "convert", "gelu": "unary", "sigmoid": "unary",
    "logistic": "unary", "tanh": "unary", "hardswish": "unary", "hard_swish": "unary", "rsqrt": "rsqrt",
    "concatenate": "concat", "concatenation": "concat", "staticslice": "slice", "slice": "slice",
    "statictranspose": "transpose", "transpose": "transpose", "pad": "pad", "maxpooling2d": "maxpool",
    "max_pool_2d": "maxpool", "avgpooling2d": "avgpool", "average_pool_2d": "avgpool",
    "globalavgpooling2d": "mean", "mean": "mean", "softmax": "softmax",
}  # fmt: skip
# They cost next to nothing, and no kernel stands for them.
_FREE = ("Static Reshape", "RESHAPE")
_OWN = "a runtime's own"


def kernel_times(kernels: Sequence[Kernel], ops: Sequence[Op]) -> tuple[float, ...]:
    """The time of each kernel in ms; NaN for those of a family that file and profile count differently."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, kernel in enumerate(kernels):
        # concatenate2, concatenate3: by how much they join.
        named = kernel.op.rstrip("0123456789") if kernel.op.startswith("concatenate") else kernel.op
        places[_OWN if kernel.delegate is None else _NAMED.get(named, kernel.op)].append(index)
    taken: dict[str, list[float]] = defaultdict(list)
    for name, ms, delegated in ops:
        if not name.startswith(_FREE):
            taken[_family(name) if delegated else _OWN].append(ms)
    times = [math.nan] * len(kernels)
    for family, found in places.items():
        if len(found) == len(taken[family]):
            for index, ms in zip(found, taken[family], strict=True):
                times[index] = ms
    return tuple(times)


def _family(name: str) -> str:
    return next((family for start, family in _RUN.items() if name.startswith(start)), name)
