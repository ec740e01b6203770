"""By how much two correct machines may differ: the rounding of a file's own arithmetic, from its format.

float32 (u = 2^-24) leaves so much room that one constant serves every network. float16 does not: u = 2^-11 is the
largest relative error of one rounding, and what is rounded differs between machines. A core with float16
arithmetic rounds every partial sum of a convolution or linear layer to float16; this machine and a core without
it sum in float32 and round the result once. What follows says how far that drives them apart.

One sum of K products, partial sums s_1 ... s_K, each rounded with a relative error of standard deviation at most
u / sqrt(3) (uniform within half a step) and mean 0. Products of random sign make s_i grow like sqrt(i), so that the
result's error has the variance u^2 K / 6 relative to the result's own size; products of one sign make s_i grow like
i and give u^2 K / 9. The larger is taken. Rounding errors of either sign, not all of one, are Higham and Mary's
model ("A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019), in which u sqrt(K)
takes the place of the worst case u K.

A stored tensor is rounded once on each machine: u^2 / 3 each, together u^2 4 / 6.

The layers' errors are independent, hence add as squares, as long as the network does not enlarge a relative error
(it does not on average: activations cut, pooling averages):

    s = u sqrt(sum over operators of (K + 4) / 6)        with float16 arithmetic
    s = u sqrt(sum over operators of 4 / 6)              without

Outputs are many; the largest of thousands of normally distributed errors lies within 4 s. Below one step of the
largest output, 2 u, nothing can be told. Deep networks would be allowed more than an error worth finding, and sums of
one sign with more than a thousand products stagnate (addends below half a step vanish, which is no longer random):
the bound ends at 2%, and beyond it the distance from the source model decides (verification.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from ...errors import EdgeoptError

# float32: what two orders of additions differ by in a network of ordinary depth, relative to the largest output.
FLOAT_TOLERANCE = 1e-4
# float16 where the file isn't known: ten steps, the bound of about a hundred products in a row.
HALF_TOLERANCE = 5e-3
# The most that any network is allowed. A twentieth of an output is an error, not a rounding.
LARGEST_TOLERANCE = 2e-2

_U = 2.0**-11
_SIGMAS = 4.0


def tolerance_of(path: Path, cpu_features: Iterable[str] = ()) -> float:
    """The largest difference of two correct runs of a file, relative to its largest output.

    Args:
        path: a .pte or .tflite file.
        cpu_features: of the core that is compared with this machine; ``fp16`` among them means that its
            kernels sum in float16.
    """
    if path.suffix.lower() != ".pte":
        # LiteRT's CPU kernels widen float16 weights to float32 before they compute.
        return FLOAT_TOLERANCE
    from ...converters.file_report import inspect_file

    try:
        report = inspect_file(path)
    except EdgeoptError:  # a file whose tables we can't read may still run
        return FLOAT_TOLERANCE
    if "float16" not in report.tensor_dtypes:
        return FLOAT_TOLERANCE
    sums = [op.macs / math.prod(op.output_shape) if op.macs else 0.0 for op in report.ops if not op.layout]
    return half_tolerance(sums, sums_in_half="fp16" in cpu_features)


def half_tolerance(sums: Iterable[float], *, sums_in_half: bool) -> float:
    """The bound above for a network whose operators add up ``sums`` products each (0: element by element)."""
    variance = sum(((length if sums_in_half else 0.0) + 4.0) / 6.0 for length in sums)
    return min(LARGEST_TOLERANCE, max(2 * _U, _SIGMAS * _U * math.sqrt(variance)))
