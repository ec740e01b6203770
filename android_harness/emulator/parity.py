"""Three-way agreement: the emulated board, this machine, and the source model's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .rounding import FLOAT_TOLERANCE, HALF_TOLERANCE

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Agreement:
    """How two sets of outputs agree; ``relative`` is ``max_abs`` over the largest value."""

    bit_equal: bool
    max_abs: float
    relative: float
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "bit_equal": self.bit_equal,
            "max_abs": self.max_abs,
            "relative": self.relative,
            "cosine": self.cosine,
        }


@dataclass(frozen=True)
class Parity:
    """The emulated board against the host's run of the same file, and against the source model."""

    with_host: Agreement | None
    with_reference: Agreement | None
    tolerance: float
    words: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether arm64 kernels and host kernels agree within the rounding of the outputs' type."""
        return self.with_host is None or self.with_host.relative <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "ok": self.ok,
            "tolerance": self.tolerance,
            "with_host": self.with_host.to_dict() if self.with_host else None,
            "with_reference": self.with_reference.to_dict() if self.with_reference else None,
            "words": list(self.words),
        }


def agreement(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Agreement:
    """Compare two lists of outputs, in order, in float64; a shape that differs counts as no agreement."""
    import numpy as np

    if len(left) != len(right) or any(a.size != b.size for a, b in zip(left, right, strict=True)):
        return Agreement(False, float("inf"), float("inf"), 0.0)
    a = np.concatenate([np.asarray(array, np.float64).ravel() for array in left]) if left else np.zeros(0)
    b = np.concatenate([np.asarray(array, np.float64).ravel() for array in right]) if right else np.zeros(0)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Agreement(bool(np.array_equal(a, b, equal_nan=True)), float("inf"), float("inf"), 0.0)
    largest = float(np.abs(b).max(initial=0.0))
    max_abs = float(np.abs(a - b).max(initial=0.0))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Agreement(
        bit_equal=bool(np.array_equal(a, b)),
        max_abs=max_abs,
        relative=max_abs / largest if largest else max_abs,
        cosine=float(a @ b) / norms if norms else float(np.array_equal(a, b)),
    )


def check_parity(
    emulated: Sequence[np.ndarray],
    host: Sequence[np.ndarray] | None = None,
    reference: Sequence[np.ndarray] | None = None,
    *,
    tolerance: float | None = None,
) -> Parity:
    """Three-way comparison of one inference's outputs.

    Args:
        emulated: outputs of the emulated board.
        host: outputs of the same file on this machine (``runtimes.run_isolated``).
        reference: outputs of the source model.
        tolerance: largest difference from the host, relative to the largest output: ``rounding.tolerance_of``
            the file. When left out, a constant for the type of the outputs.
    """
    with_host = agreement(emulated, host) if host is not None else None
    with_reference = agreement(emulated, reference) if reference is not None else None
    if tolerance is None:
        half = any(str(array.dtype) == "float16" for array in emulated)
        tolerance = HALF_TOLERANCE if half else FLOAT_TOLERANCE
    words = []
    if with_host is not None:
        if with_host.bit_equal:
            words.append("arm64 and host kernels agree bit for bit")
        elif with_host.relative <= tolerance:
            words.append(
                f"arm64 and host kernels differ by {with_host.relative:.1e} of the largest output, "
                f"within the {tolerance:.1e} that rounding explains"
            )
        else:
            words.append(
                f"arm64 and host kernels DIFFER by {with_host.relative:.1e} of the largest output, "
                f"more than the {tolerance:.1e} that rounding explains: "
                "trust the arm64 outputs for a device"
            )
    if with_reference is not None:
        words.append(f"cosine with the source model {with_reference.cosine:.6f}")
    return Parity(with_host, with_reference, tolerance, tuple(words))
