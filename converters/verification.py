"""Parity: how far a file's outputs are from the source model's, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..optimizers.precision import LEAST_STEP, PRECISIONS

# An exact match has no noise at all; JSON has no infinity.
_EXACT_SNR_DB = 200.0
# Whole-number outputs (class ids, masks) either agree or don't.
_MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.99}
_MIN_AGREEMENT_QUANTIZED = 0.9


def least_agreement(precision: str) -> float:
    """Share of equal values that a whole-number output must reach in ``precision``."""
    return _MIN_AGREEMENT.get(precision, _MIN_AGREEMENT_QUANTIZED)


@dataclass(frozen=True)
class Parity:
    """Agreement of one output over all samples.

    Attributes:
        snr_db: 10·log10(Σ reference² / Σ (reference − found)²), in dB; None of whole numbers, whose distance means
            nothing (class ids, positions).
        cosine: cosine similarity of all values taken as one vector.
        top1_agreement: share of rows with the same largest entry, where the output looks like logits;
            share of equal values where it holds whole numbers; else None.
    """

    output: str
    samples: int
    max_abs_error: float
    snr_db: float | None
    cosine: float
    top1_agreement: float | None
    min_snr_db: float
    passed: bool
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for the manifest."""
        return asdict(self)


def compare(
    reference: Sequence[Sequence[np.ndarray]],
    found: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    precision: str,
    *,
    min_snr_db: float | None = None,
) -> list[Parity]:
    """Parity of each output.

    Args:
        reference: per sample, the source model's outputs.
        found: per sample, the file's outputs in the same order.
        names: the outputs' names.
        precision: decides the tolerance unless ``min_snr_db`` is given.
    """
    return [
        _compare_output(
            name,
            [np.asarray(sample[index]) for sample in reference],
            [np.asarray(sample[index]) for sample in found],
            precision,
            min_snr_db,
        )
        for index, name in enumerate(names)
    ]


def _compare_output(
    name: str, reference: list[np.ndarray], found: list[np.ndarray], precision: str, min_snr_db: float | None
) -> Parity:
    rule = PRECISIONS[precision]
    least = rule.min_snr_db if min_snr_db is None else min_snr_db
    shapes = [(r.shape, f.shape) for r, f in zip(reference, found, strict=True) if r.shape != f.shape]
    if shapes:
        reason = f"the file gives shape {list(shapes[0][1])}, the source model {list(shapes[0][0])}"
        return Parity(name, len(reference), float("inf"), 0.0, 0.0, None, least, False, reason)
    wanted, got = _flat(reference), _flat(found)
    if reference[0].dtype.kind in "iub":
        return _compare_whole_numbers(name, wanted, got, precision, len(reference))
    odd = ~np.isfinite(wanted)
    if not np.array_equal(~np.isfinite(got), odd):
        reason = "the file gives NaN or infinite values where the source model doesn't"
        return Parity(name, len(reference), float("inf"), 0.0, 0.0, None, least, False, reason)
    wanted, got = wanted[~odd], got[~odd]
    snr, cosine = snr_db(wanted, got), cosine_similarity(wanted, got)
    # A bound of the user's own on the noise stands for both rules.
    near = min_snr_db is not None or cosine >= rule.min_cosine
    reason = ""
    if snr < least:
        reason = f"SNR {snr:.1f} dB is below the {least:.0f} dB that {precision} must keep"
        peak = float(np.abs(wanted).max(initial=0.0))
        if rule.needs_calibration and peak < LEAST_STEP / 2:
            reason += (
                f": the model's values stay below {peak:.2g}, and static int8 has no step below {LEAST_STEP:.1g} "
                "(load trained weights, or scale this output up)"
            )
    elif not near:
        reason = f"cosine similarity {cosine:.4f} is below the {rule.min_cosine} that {precision} must keep"
    error = float(np.abs(wanted - got).max()) if wanted.size else 0.0
    top1 = _top1(reference, found)
    return Parity(name, len(reference), error, snr, cosine, top1, least, not reason, reason)


def _compare_whole_numbers(
    name: str, wanted: np.ndarray, got: np.ndarray, precision: str, samples: int
) -> Parity:
    share = float(np.mean(wanted == got)) if wanted.size else 1.0
    least = least_agreement(precision)
    reason = "" if share >= least else f"{share:.1%} of the values agree, {least:.1%} must"
    error = float(np.abs(wanted - got).max()) if wanted.size else 0.0
    return Parity(
        name,
        samples,
        error,
        None,
        cosine_similarity(wanted, got),
        share,
        0.0,
        not reason,
        reason,
    )


def snr_db(reference: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, between -200 and 200 (an exact match)."""
    noise = float(np.sum((reference - found) ** 2))
    signal = float(np.sum(reference**2))
    if noise == 0.0:
        return _EXACT_SNR_DB
    if signal == 0.0:
        return -_EXACT_SNR_DB
    return float(np.clip(10.0 * np.log10(signal / noise), -_EXACT_SNR_DB, _EXACT_SNR_DB))


def cosine_similarity(reference: np.ndarray, found: np.ndarray) -> float:
    """Cosine of the angle between two vectors; 1 when both are zero."""
    norms = float(np.linalg.norm(reference) * np.linalg.norm(found))
    if norms == 0.0:
        return 1.0 if np.array_equal(reference, found) else 0.0
    return float(np.clip(np.dot(reference, found) / norms, -1.0, 1.0))


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.astype(np.float64).ravel() for array in arrays])


def _top1(reference: list[np.ndarray], found: list[np.ndarray]) -> float | None:
    """Logits are taken to be what has one row a sample and two columns or more."""
    if reference[0].ndim != 2 or reference[0].shape[1] < 2:
        return None
    same = [r.argmax(axis=1) == f.argmax(axis=1) for r, f in zip(reference, found, strict=True)]
    return float(np.mean(np.concatenate(same)))
