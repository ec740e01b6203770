"""Precision names: one canonical name each, and the names other ecosystems use for the same thing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import InputError

# The least step between two int8 values of an activation: XNNPACK takes no scale below this for the product of two;
# torchao's quantizer has it so too.
LEAST_STEP = 2**-12
# Of a weight, which has a scale a channel: XNNPACK's quantizer has the activations' least step for it too, which left
# fewer than 8 bits to channels whose weights are all below 0.03.
LEAST_WEIGHT_STEP = 2**-16


@dataclass(frozen=True)
class Precision:
    """One numeric precision of a whole model.

    Attributes:
        name: canonical name; also the name of the recipe that makes it.
        aliases: what users of PyTorch, LiteRT and ONNX call it.
        min_snr_db: least signal-to-noise ratio of an output against the source model's, in dB. int8 at 15 dB
            carries 3% of the signal's power as noise, about where classifiers begin to lose points; four bits round
            16 times as coarsely, and 8 dB only says that the file isn't broken.
        min_cosine: least cosine similarity of an output with the source model's.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    min_snr_db: float
    min_cosine: float
    needs_calibration: bool = False


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "float32", ("float32", "float", "f32", "none"), 60.0, 0.99999),
        Precision("fp16", "float16", ("float16", "half", "f16"), 35.0, 0.9995),
        Precision(
            "int8-dynamic",
            "int8 weights, activations quantised at run time",
            ("dynamic_wi8_afp32", "dynamic-int8", "dynamic", "8da8w", "int8_dynamic"),
            15.0,
            0.98,
        ),
        Precision(
            "int8-weights",
            "int8 weights, arithmetic in float32",
            ("weight_only_wi8_afp32", "int8-weight-only", "weight-only", "w8a32", "int8_weights"),
            15.0,
            0.98,
        ),
        Precision(
            "int4-dynamic",
            "int4 weights of linear layers in groups, activations quantised to int8 at run time",
            ("dynamic_wi4_afp32", "8da4w", "int4", "w4a8", "int4_dynamic"),
            8.0,
            0.92,
        ),
        Precision(
            "int4-weights",
            "int4 weights of linear layers, arithmetic in float32",
            ("weight_only_wi4_afp32", "int4-weight-only", "w4a32", "int4_weights"),
            8.0,
            0.92,
        ),
        Precision(
            "int8-static",
            "int8 weights and activations, calibrated",
            ("static_wi8_ai8", "w8a8", "int8", "static-int8", "static", "int8_static"),
            15.0,
            0.98,
            needs_calibration=True,
        ),
        Precision(
            "w8a16",
            "int8 weights, int16 activations, calibrated",
            ("static_wi8_ai16", "16x8", "int16", "a16w8"),
            20.0,
            0.99,
            needs_calibration=True,
        ),
        Precision(
            "mixed",
            "int8 calibrated, with the layers in float32 that need it",
            ("mixed-int8", "int8-mixed", "mixed_precision", "mixed-precision"),
            15.0,
            0.98,
            needs_calibration=True,
        ),
    )
}

_BY_ALIAS = {
    alias: precision for precision in PRECISIONS.values() for alias in (precision.name, *precision.aliases)
}


def parse_precision(text: str) -> Precision:
    """The precision of this name or alias.

    Raises:
        InputError: an unknown name, with the nearest ones.
    """
    word = text.strip().lower()
    if word in _BY_ALIAS:
        return _BY_ALIAS[word]
    near = difflib.get_close_matches(word, list(_BY_ALIAS), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(PRECISIONS)}."
    raise InputError(f"unknown precision {text!r}; {hint}")


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Comma-separated precisions, each once, in the order given.

    Raises:
        InputError: an unknown name, or none at all.
    """
    found = dict.fromkeys(parse_precision(word) for word in text.split(",") if word.strip())
    if not found:
        raise InputError(f"no precision in {text!r}; use one or more of {', '.join(PRECISIONS)}.")
    return tuple(found)
