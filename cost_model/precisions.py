"""What float32 kernels become when the model is exported in another precision, before it has been.

The rules are those of the files that edgeopt writes (docs/models.md): what is quantised, what stays in float
and where conversions stand between the two. Where a file exists, its own kernels are better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..errors import InputError
from .kernels import Kernel, Precision

# What static int8 leaves in float; ExecuTorch's delegate has no integer product of activations either.
_STAYS_FLOAT = ("softmax", "norm", "embedding", "other")
WHAT_IF = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weights", "int4-dynamic", "int4-weights")
# Those that may be faster; the others are smaller.
FASTER = ("fp16", "int8-dynamic", "int8-static")


def in_precision(kernels: Sequence[Kernel], precision: str, runtime: str) -> list[Kernel]:
    """The kernels of the same model exported in ``precision`` for ``runtime`` (executorch or litert).

    Raises:
        InputError: a precision that isn't in :data:`WHAT_IF`, or kernels that aren't float32.
    """
    if precision not in WHAT_IF:
        raise InputError(
            f"no kernels can be foretold for precision {precision!r}; known: {', '.join(WHAT_IF)}."
        )
    if precision == "fp32":
        return list(kernels)
    if not is_float32(kernels):
        raise InputError(
            f"what {precision} would give is foretold from the float32 file only: estimate that one instead."
        )
    if precision == "fp16":
        # LiteRT stores halves and computes in float32 on the CPU.
        return [kernel.at("fp16") for kernel in kernels] if runtime == "executorch" else list(kernels)
    if precision.endswith("-weights"):
        if runtime == "executorch":
            raise InputError(
                f"ExecuTorch has no kernels for {precision}: ask for int8-dynamic or int4-dynamic."
            )
        return list(kernels)
    if precision.endswith("-dynamic"):
        return list(_dynamic(kernels, runtime, "int4" if precision.startswith("int4") else "int8"))
    more = ("matmul",) if runtime == "executorch" else ()
    return list(_static(kernels, (*_STAYS_FLOAT, *more)))


def is_float32(kernels: Iterable[Kernel]) -> bool:
    """Whether everything is computed in float32."""
    return all(kernel.precision == "fp32" for kernel in kernels)


def _dynamic(kernels: Iterable[Kernel], runtime: str, precision: Precision) -> Iterator[Kernel]:
    """Linear layers in integers, their inputs converted as they come, in ExecuTorch the dense convolutions too."""
    int8_convs = runtime == "executorch" and precision == "int8"
    quantized = ("linear", "pointwise", "conv", "grouped") if int8_convs else ("linear",)
    for kernel in kernels:
        if kernel.kind not in quantized:
            yield kernel
            continue
        if runtime == "executorch":
            # A kernel of its own; LiteRT converts inside the layer.
            yield _conversion(f"{kernel.name}.convert", kernel.bytes_in, kernel.bytes_in / 4, "int8")
        yield replace(kernel.at(precision), bytes_in=kernel.bytes_in / 4, bytes_out=kernel.bytes_out)


def _static(kernels: Iterable[Kernel], stays_float: tuple[str, ...]) -> Iterator[Kernel]:
    """Everything in int8 but what stays in float, with a conversion wherever one side meets the other."""
    narrow, last = False, None
    for kernel in kernels:
        wanted = kernel.kind not in stays_float
        if wanted != narrow:
            size = kernel.bytes_in
            name = f"{kernel.name}.convert"
            yield (
                _conversion(name, size, size / 4, "int8")
                if wanted
                else _conversion(name, size / 4, size, "fp32")
            )
        narrow, last = wanted, kernel
        yield kernel.at("int8") if wanted else kernel
    if narrow and last is not None:
        yield _conversion(f"{last.name}.leave", last.bytes_out / 4, last.bytes_out, "fp32")


def _conversion(name: str, reads: float, writes: float, precision: Precision) -> Kernel:
    elements = max(1, int(min(reads, writes)))
    return Kernel(
        name,
        "elementwise",
        precision,
        bytes_in=reads,
        bytes_out=writes,
        spatial=elements,
        delegate="XNNPACK",
        op="convert",
    )
