"""What a calibration adds to the formula: a correction of each kernel, drawn from the measured ones like it.

The correction is a natural logarithm, the mean of a Gaussian process over kernels: it falls back to zero for
kernels unlike any that was measured. What two kernels have in common (:data:`COMPONENTS`) decides how much
one tells on the other: anything on the device a little, the same class with the same runtime, arithmetic and
threads much, and the nearer in shape the more. Corrections are bounded and change smoothly with the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .analytic import CLASSES, kernel_class
from .kernels import Kernel, on_one_thread

if TYPE_CHECKING:
    from ..device_profiles.calibration import Calibration

# Runtimes with the kernels of a calibrated one.
_SAME_KERNELS = {"tflite_runtime": "litert"}
# What kernels share → (standard deviation of the logarithm, how far apart in shape they still tell on each other:
# None for any shape, else in units of _LENGTHS). The wide ones learn how the formula bends wrongly over all sizes.
# Letters: c class, o operator, r runtime, a arithmetic, w who executes, t one thread or more. Chosen among 29 such
# by marginal likelihood (type II, Rasmussen and Williams 2006, chapter 5) of 1,008 latencies of the suite on an x86
# host. Of two sets that it left level, this one predicts the suite's left-out networks better, and the nine of
# benchmarks/calibration_models.py by two points: they were seen when it was taken.
COMPONENTS: tuple[tuple[str, float, float | None], ...] = (
    ("", 0.72, None),
    ("c", 0.21, None),
    ("co", 0.25, None),
    ("rw", 0.68, None),
    ("rawt", 0.07, None),
    ("cow", 0.67, 2.5),
    ("coaw", 0.52, 2.5),
    ("corawt", 0.18, 6.0),
    ("corawt", 0.08, 2.5),
    ("c", 0.05, 0.4),
    ("coaw", 0.08, 0.4),
)
_LETTERS = "corawt"
# Operators without multiply-accumulates that cost alike, by words in their names; all others are sums and products.
_OPERATORS = (
    ("convert", ("convert", "quantize", "cast")),
    ("sigmoid", ("sigmoid", "logistic", "silu")),
    ("tanh", ("tanh",)),
    ("gelu", ("gelu", "erf")),
    ("exp", ("exp", "log")),
    ("divide", ("div", "sqrt", "reciprocal", "pow")),
    ("clamp", ("clamp", "relu", "hardtanh", "minimum", "maximum")),
    ("swish", ("swish",)),
    ("transpose", ("transpose", "permute")),
    ("pad", ("pad",)),
    ("join", ("cat", "stack", "pack")),
    ("mean", ("mean", "sum", "globalavg", "adaptive")),
    ("maximum", ("maxpool", "max_pool")),
    ("resize", ("resize", "upsample")),
    ("embedding", ("embedding", "gather")),
    ("slice", ("slice", "split", "chunk", "select")),
)
# Of int8 values XNNPACK looks these up in a table, whatever the function.
_TABLES = ("sigmoid", "tanh", "gelu", "exp", "divide", "swish")
# How far in each direction of the shape (natural logarithms) kernels are alike; the last two are how full input and
# output channels leave their vectors: 56 channels cost what 64 cost, 1000 nearly what they say.
_LENGTHS = np.array([2.0, 1.5, 1.5, 1.5, 0.7, 0.7, 0.2, 0.2])
_LANES = 16
_MOST = 3.0


@dataclass(frozen=True)
class Likeness:
    """Kernels as the Gaussian process sees them: codes (:data:`_LETTERS`) and shapes."""

    codes: np.ndarray
    shapes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


def arithmetic_of(kernel: Kernel) -> str:
    """The kernel's precision; ``dynamic`` when int8 weights meet activations that are kept in float."""
    if (
        kernel.precision == "int8"
        and kernel.macs
        and kernel.bytes_out >= 2 * kernel.spatial * kernel.out_channels
    ):
        return "dynamic"
    return kernel.precision


def shape_of(kernel: Kernel) -> tuple[float, ...]:
    """Work, input and output channels, positions, filter, stride."""
    work = float(kernel.macs) if kernel.macs else max(kernel.elements_out, 1.0)
    if kernel.kind == "pool":
        work *= kernel.in_channels
    return (
        work, float(kernel.in_channels), float(kernel.out_channels), float(kernel.spatial),
        float(kernel.kernel_size), float(kernel.stride),
    )  # fmt: skip


def traits_of(kernel: Kernel) -> tuple[str, str, str]:
    """(class, operator, who executes it: ``delegate`` or ``own``)."""
    return kernel_class(kernel), operator_of(kernel), "own" if kernel.delegate is None else "delegate"


def settings_of(kernels: Sequence[Kernel], runtime: str, threads: int) -> list[tuple[str, str, int]]:
    """(runtime, arithmetic, threads that it uses) of each kernel of a network."""
    return [
        (runtime, arithmetic_of(kernel), 1 if alone else threads)
        for kernel, alone in zip(kernels, on_one_thread(kernels), strict=True)
    ]


def operator_of(kernel: Kernel) -> str:
    """The family of operators it belongs to; products, and what no reader has named, are ``plain``."""
    if kernel.macs:
        return "plain"
    op = "" if kernel.op == "expand_copy" else kernel.op.lower()
    found = next((name for name, words in _OPERATORS if any(word in op for word in words)), "plain")
    return "table" if found in _TABLES and kernel.precision == "int8" else found


def likeness(
    traits: Sequence[tuple[str, str, str]],
    shapes: Sequence[Sequence[float]],
    settings: Sequence[tuple[str, str, int]],
) -> Likeness:
    """Rows of (class, operator, who), shape and (runtime, arithmetic, threads), as arrays."""
    codes = [
        (
            CLASSES.index(cls) if cls in CLASSES else -1,
            _code(operator),
            _code(_SAME_KERNELS.get(runtime, runtime)),
            _code(arithmetic),
            _code(who),
            int(threads > 1),
        )
        for (cls, operator, who), (runtime, arithmetic, threads) in zip(traits, settings, strict=True)
    ]
    sizes = np.array(shapes, dtype=float).reshape(-1, 6)
    channels = sizes[:, 1:3]
    filled = channels / (np.ceil(channels / _LANES) * _LANES)
    return Likeness(np.array(codes, dtype=np.int64).reshape(-1, 6), np.log(np.hstack([sizes, filled])))


def _code(word: str) -> int:
    return int.from_bytes(word.encode()[:7], "big")


def covariance(a: Likeness, b: Likeness) -> np.ndarray:
    """How much each kernel of ``a`` tells on each of ``b``."""
    same = {
        letter: a.codes[:, None, index] == b.codes[None, :, index] for index, letter in enumerate(_LETTERS)
    }
    scaled_a, scaled_b = a.shapes / _LENGTHS, b.shapes / _LENGTHS
    squared = (scaled_a**2).sum(1)[:, None] + (scaled_b**2).sum(1)[None, :] - 2 * scaled_a @ scaled_b.T
    squared = np.maximum(squared, 0.0)
    near = {width: np.exp(-0.5 * squared / width**2) for *_, width in COMPONENTS if width is not None}
    total = np.zeros((len(a), len(b)))
    for shared, deviation, width in COMPONENTS:
        part = 1.0 if width is None else near[width]
        for letter in shared:
            part = part * same[letter]
        total += deviation**2 * part
    return total


def bounded(corrections: np.ndarray) -> np.ndarray:
    """Corrections bent smoothly so that they stay within a factor of e³ either way."""
    return _MOST * np.tanh(corrections / _MOST)


def slope(corrections: np.ndarray) -> np.ndarray:
    """The derivative of :func:`bounded`."""
    return 1 - np.tanh(corrections / _MOST) ** 2


@dataclass(frozen=True)
class Corrections:
    """A profile's calibration, ready for use."""

    anchors: Likeness
    weights: np.ndarray
    call_ms: dict[tuple[str, int], float]
    start_ms: dict[str, float]
    threads: tuple[int, ...]
    runtimes: frozenset[str]
    band: tuple[float, float]
    basis: str

    @classmethod
    def of(cls, calibration: Calibration) -> Corrections:
        """From the table of a profile."""
        settings = [_setting(text) for text in calibration.settings]
        traits, shapes, where, weights = [], [], [], []
        for anchor in calibration.anchors:
            shape = (
                anchor.work,
                anchor.inputs,
                anchor.outputs,
                anchor.positions,
                anchor.kernel,
                anchor.stride,
            )
            for setting, weight in zip(settings, anchor.weights, strict=True):
                if weight:
                    traits.append((anchor.cls, anchor.op, anchor.where))
                    shapes.append(shape)
                    where.append(setting)
                    weights.append(weight)
        calls = {}
        for text, ms in calibration.call_ms.items():
            runtime, _, threads = text.partition(" ")
            calls[runtime, int(threads)] = ms
        versions = ", ".join(f"{name} {version}" for name, version in calibration.runtimes.items())
        return cls(
            anchors=likeness(traits, shapes, where),
            weights=np.array(weights),
            call_ms=calls,
            start_ms=calibration.start_ms,
            threads=calibration.threads,
            runtimes=frozenset(calibration.runtimes),
            band=calibration.band,
            basis=f"{calibration.measurements} latencies measured on {calibration.device} on "
            f"{calibration.date[:10]} with {versions}",
        )

    def covers(self, runtime: str) -> bool:
        """Whether this runtime, or one with its kernels, was measured."""
        return _SAME_KERNELS.get(runtime, runtime) in self.runtimes

    def factors(self, kernels: Sequence[Kernel], runtime: str, threads: int) -> np.ndarray:
        """What the formula's time of each kernel is multiplied with."""
        asked = likeness(
            [traits_of(kernel) for kernel in kernels],
            [shape_of(kernel) for kernel in kernels],
            settings_of(kernels, runtime, threads),
        )
        if not len(self.anchors):
            return np.ones(len(kernels))
        return np.exp(bounded(covariance(asked, self.anchors) @ self.weights))

    def call(self, runtime: str, threads: int) -> float:
        """What an inference costs beside its kernels, ms: as with the nearest number of threads measured."""
        name = _SAME_KERNELS.get(runtime, runtime)
        measured = [count for found, count in self.call_ms if found == name]
        if not measured:
            return 0.0
        return self.call_ms[name, min(measured, key=lambda count: abs(count - threads))]

    def start(self, runtime: str) -> float | None:
        """What starting a kernel takes, ms; None where operators weren't timed."""
        return self.start_ms.get(_SAME_KERNELS.get(runtime, runtime))


def _setting(text: str) -> tuple[str, str, int]:
    runtime, arithmetic, threads = text.split(" ")
    return runtime, arithmetic, int(threads)
