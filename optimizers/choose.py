"""The default recipe of a profile, with the reasons in words.

The rules rest on what the kernels of XNNPACK are known to do on each instruction set, not on a
measurement of this model: the reasons say so, and ``edgeopt bench`` gives the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..device_profiles import DeviceProfile
from ..models.workload import Workload
from .recipe import Recipe, named_recipe


@dataclass(frozen=True)
class Choice:
    """A recipe, why it was chosen, and what to fall back on when its accuracy fails."""

    recipe: Recipe
    reasons: tuple[str, ...]
    fallbacks: tuple[Recipe, ...] = ()


def choose_recipe(profile: DeviceProfile, work: Workload, *, calibrated: bool) -> Choice:
    """The recipe that should pay on ``profile`` for a model of this kind.

    Args:
        calibrated: whether calibration data is at hand.
    """
    core = profile.big_cluster.core
    has_fp16 = profile.has_isa("fp16")
    int8_isa = next((isa for isa in ("i8mm", "dotprod", "vnni") if profile.has_isa(isa)), None)
    half = named_recipe("fp16" if has_fp16 else "fp32")
    float32 = named_recipe("fp32")
    half_reason = (
        f"{core} computes in float16 natively: half the bytes and up to twice the lanes of float32"
        if has_fp16
        else f"{core} has no float16 arithmetic, so float16 would save bytes and no time"
    )
    kind_reason = (
        f"the model is a {work.kind} one ({work.macs / 1e6:,.1f} M multiply-accumulates)"
        if work.macs
        else "the model multiplies no weights, so int8 would gain nothing"
    )
    if work.kind in ("transformer", "linear", "recurrent") and int8_isa:
        return Choice(
            named_recipe("int8-dynamic"),
            (
                kind_reason,
                f"{core} has {int8_isa}, which dynamic int8 uses for linear layers",
                "it needs no calibrated ranges, which transformers and recurrent nets often don't survive",
            ),
            (half, float32),
        )
    if work.kind == "convolutional" and int8_isa and calibrated:
        return Choice(
            named_recipe("int8-static"),
            (
                kind_reason,
                f"{core} has {int8_isa}, which static int8 convolutions use",
                "calibration data is given",
            ),
            (half, float32),
        )
    if work.kind == "convolutional" and int8_isa:
        return Choice(
            half,
            (kind_reason, "no calibration data is given, which static int8 needs", half_reason),
            (float32,),
        )
    without = (
        f"{core} has no int8 dot product, so int8 may well be slower than float there; ask for it by name "
        "and measure it"
    )
    return Choice(half, (kind_reason, half_reason if int8_isa else without), (float32,))
