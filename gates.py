"""What an artefact must fulfil, and what is said about it without failing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .converters.checks import CheckResult, Checks
from .errors import InputError

# An "int8" file that keeps more than half of its weights in float isn't what its name says.
_MIN_QUANTIZED_WEIGHTS = 0.5
# Fewer elements than this are indices and tables of an operator, not weights that anyone would shrink.
_FEW_WEIGHTS = 1000
# A float16 file should be half of a float32 one; a quarter of slack is for what is no weight.
_HALF_SIZE_RATIO = 0.75
_FULL_SIZE_RATIO = 0.95

# What --recipe auto lets a task metric fall by before it takes the next recipe, where no gate says otherwise.
AUTO_ACCURACY_DROP = 0.01


class MadeFile(Protocol):
    """What the gates look at: a finished file, from whatever framework."""

    @property
    def path(self) -> Path | None: ...

    @property
    def precision(self) -> str: ...

    @property
    def report(self) -> dict[str, Any]: ...

    @property
    def checks(self) -> CheckResult | None: ...


@dataclass(frozen=True)
class Gates:
    """The gates of an export besides parity, which always holds.

    Attributes:
        max_accuracy_drop: how far the metric may fall: an absolute difference for metrics between 0 and 1
            (0.01 is one percentage point), else a share of the source model's value.
    """

    max_accuracy_drop: float | None = None
    require_full_delegation: bool = False
    strict: bool = False

    def check(self, has_evaluation: bool) -> None:
        """Refuse gates that nothing could decide.

        Raises:
            InputError: an accuracy gate without an evaluation.
        """
        if self.max_accuracy_drop is None:
            return
        if not has_evaluation:
            raise InputError("--max-accuracy-drop needs a metric: give --eval module:function or FILE.npz.")
        if not 0 <= self.max_accuracy_drop <= 1:
            raise InputError(
                f"--max-accuracy-drop must be between 0% and 100%, not {self.max_accuracy_drop:.0%}."
            )


def parse_percent(text: str, option: str) -> float:
    """``1%``, ``1pp`` or ``0.01`` as 0.01.

    Raises:
        InputError: it is none of these.
    """
    word = text.strip()
    number = word.removesuffix("%").removesuffix("pp")
    try:
        value = float(number)
    except ValueError:
        raise InputError(
            f"{option} {text!r} must be a percentage such as 1% or a fraction such as 0.01."
        ) from None
    return value / 100 if number != word else value


def artifact_failures(item: MadeFile, checks: Checks, gates: Gates) -> list[str]:
    """Every gate this artefact fails, in words; none means it is verified."""
    assert item.checks is not None
    failures = [f"output {p.output!r}: {p.reason}" for p in item.checks.parity if not p.passed]
    if gates.max_accuracy_drop is not None:
        failures += accuracy_failures(item, checks, gates.max_accuracy_drop)
    left = item.report.get("left_behind") or {}
    if gates.require_full_delegation and left:
        ops = ", ".join(f"{count}× {op}" for op, count in list(left.items())[:5])
        failures.append(f"{sum(left.values())} operators are left to the runtime's own kernels ({ops})")
    return failures


def accuracy_failures(item: MadeFile, checks: Checks, allowed: float) -> list[str]:
    """That the metric of a file fell by more than ``allowed``, in words; empty when it didn't or isn't known."""
    metric = item.checks.metric if item.checks is not None else None
    drop = accuracy_drop(checks.baseline, metric)
    if drop is None or drop <= allowed:
        return []
    name = checks.evaluation.metric if checks.evaluation else "the metric"
    return [f"{name} fell from {checks.baseline:.4f} to {metric:.4f}, more than the {allowed:.2%} allowed"]


def accuracy_drop(baseline: float | None, metric: float | None) -> float | None:
    """How far a metric fell: absolute between 0 and 1, else as a share of the baseline; None without one."""
    if baseline is None or metric is None:
        return None
    drop = baseline - metric
    return drop if 0 <= abs(baseline) <= 1 else drop / abs(baseline)


def artifact_warnings(item: MadeFile, size_budget_mib: float | None) -> list[str]:
    """What a user would want to hear about a file that passed.

    Args:
        size_budget_mib: the profile's budget for a model file.
    """
    report, precision = item.report, item.precision
    in_litert = item.path is not None and item.path.suffix == ".tflite"
    warnings = []
    size_mib = item.path.stat().st_size / 2**20 if item.path and size_budget_mib is not None else 0.0
    if size_budget_mib is not None and size_mib > size_budget_mib:
        warnings.append(
            f"{size_mib:,.3g} MiB is over the {size_budget_mib:,.3g} MiB that the profile allows a model"
        )
    quantized = report.get("quantized_weights_ratio", 0.0)
    elements = sum(report.get("weights", {}).values())
    if precision.startswith("int8") and elements > _FEW_WEIGHTS and quantized < _MIN_QUANTIZED_WEIGHTS:
        some = quantized >= 0.005
        share, rest = (f"only {quantized:.0%}", "the rest") if some else ("none", "they")
        warnings.append(f"{share} of the weights are int8; {rest} stayed float, so the file hardly shrinks")
    computed = report.get("quantized_macs_ratio")
    if (
        precision.startswith("int8")
        and quantized >= _MIN_QUANTIZED_WEIGHTS
        and computed is not None
        and computed < 0.5
    ):
        some = computed >= 0.0005
        share, rest = (f"only {computed:.1%}", "the others") if some else ("none", "all of them")
        # LiteRT keeps int8 weights of layers that it computes in float; ExecuTorch's have float weights.
        how = "expand their int8 weights to float" if in_litert else "are computed in float"
        warnings.append(
            f"{share} of the multiply-accumulates are computed in integers; {rest} {how}: smaller, not faster"
        )
    if precision == "fp16" and elements > 10_000 and report["weight_bytes"] > _HALF_SIZE_RATIO * 4 * elements:
        every = report["weight_bytes"] > _FULL_SIZE_RATIO * 4 * elements
        which, so = (
            ("the weights", "is not smaller") if every else ("most weights", "shrinks less than by half")
        )
        arithmetic = "float32" if in_litert else "float16"
        warnings.append(f"{which} are stored in float32, so the file {so}; arithmetic is {arithmetic}")
    ratio = report.get("delegated_macs_ratio")
    if ratio is not None and ratio < 0.95:
        left = ", ".join(f"{count}× {op}" for op, count in list(report["left_behind"].items())[:4])
        warnings.append(f"only {ratio:.0%} of the multiply-accumulates are delegated; left behind: {left}")
    return warnings
