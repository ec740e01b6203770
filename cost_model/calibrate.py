"""From latencies measured on a device to the corrections that its profile carries.

Two steps. First the formula's own factors (compute, caches and memory, overhead, families, and what a call costs) are
found by least squares with a prior, SciPy's. Then what is left is explained kernel by kernel: the
corrections are a Gaussian process over kernels (:mod:`.corrections`, :mod:`.kernel_process`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .analytic import GROUPS
from .constants import Constants
from .kernel_process import KernelProcess
from .kernels import check_kernels
from .machine import machine_of
from .observed import Observation, Parts, starts_of

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile
    from .machine import Machine

LEAST_NETWORKS = 5
SHORT_MS = 0.05
# What others leave of the last-level cache (natural logarithms of a share), and how sure one is that it's all.
_LLC, _LLC_PRIOR = (0.0, -0.35, -0.7, -1.05, -1.4), 0.7
# Factors that are learned → standard deviation of the logarithm before anything is measured.
_PRIORS = {"compute": 1.5, "memory": 0.7, "past_l2": 1.5, "dram": 0.7, "overhead": 1.5, "int8": 1.0} | {
    f"group_{name}": 0.4 for name in GROUPS
}
_CALL_MS, _CALL_PRIOR = 0.01, 1.0


@dataclass(frozen=True)
class Fit:
    """What was learned (the fields of a profile's calibration), and how well it holds.

    Attributes:
        errors: for each observation, the logarithm of measured over predicted with its network left out.
        residuals: the same with nothing left out.
        before: the same for the profile without calibration.
        timed: which of them take long enough to say something of models (:data:`SHORT_MS`).
    """

    factors: dict[str, float]
    call_ms: dict[str, float]
    start_ms: dict[str, float]
    settings: tuple[str, ...]
    anchors: tuple[dict[str, Any], ...]
    errors: np.ndarray
    residuals: np.ndarray
    before: np.ndarray
    timed: np.ndarray

    @property
    def band(self) -> tuple[float, float]:
        """10th and 90th percentile of measured over predicted, networks left out; without those too short to
        time well, which are no models."""
        low, high = np.quantile(np.exp(self.errors[self.timed]), (0.1, 0.9))
        return min(1.0, float(low)), max(1.0, float(high))

    def within(self, share: float) -> float:
        """Share of the left-out latencies that were predicted within ±``share``."""
        return share_within(self.errors[self.timed], share)

    @property
    def median_error(self) -> float:
        """Of the left-out latencies, relative."""
        return float(np.median(np.abs(np.exp(-self.errors[self.timed]) - 1)))


def share_within(errors: np.ndarray, share: float) -> float:
    """Share of logarithms of measured over predicted where the prediction is within ±``share``."""
    return float((np.abs(np.exp(-errors) - 1) <= share).mean())


def fit_device(
    observations: Sequence[Observation], profile: DeviceProfile, *, constants: Constants | None = None
) -> Fit:
    """Learn a device's factors and corrections.

    Args:
        profile: the device, without the calibration that it may have.

    Raises:
        InputError: too few networks, a latency that can't be, or a runtime that nothing is known of.
    """
    networks = {each.network for each in observations}
    if len(networks) < LEAST_NETWORKS:
        raise InputError(
            f"a calibration needs latencies of {LEAST_NETWORKS} networks or more; there are {len(networks)}."
        )
    for each in observations:
        if not (np.isfinite(each.ms) and each.ms > 0):
            raise InputError(f"{each.network} was measured at {each.ms} ms, which no inference can take.")
        check_kernels(each.kernels)
        if each.kernel_ms and len(each.kernel_ms) != len(each.kernels):
            raise InputError(
                f"{each.network} has {len(each.kernel_ms)} kernel times for {len(each.kernels)} kernels."
            )
    machine = machine_of(profile.model_copy(update={"calibration": None}))
    start_ms = starts_of(observations)
    parts, factors, calls = _fit_machine(observations, machine, constants, start_ms)
    process = KernelProcess.fit(parts, factors, calls)
    settings, anchors = process.table()
    uncalibrated = Parts.of(observations, machine, constants, {})
    totals = uncalibrated.totals({})
    before = uncalibrated.measured - np.log(uncalibrated.sums(totals) + uncalibrated.waking(totals))
    return Fit(
        factors={name: round(value, 5) for name, value in (factors | {"pause": process.pause}).items()},
        call_ms={f"{runtime} {threads}": float(f"{ms:.4g}") for (runtime, threads), ms in calls.items()},
        start_ms={runtime: float(f"{ms:.4g}") for runtime, ms in start_ms.items()},
        settings=settings,
        anchors=anchors,
        errors=process.left_out(),
        residuals=process.residuals(),
        before=before,
        timed=_timed(observations),
    )


def _timed(observations: Sequence[Observation]) -> np.ndarray:
    times = np.array([each.ms for each in observations])
    # Where all are that short, all must do.
    return times > min(SHORT_MS, float(np.median(times)) - 1e-12)


def _fit_machine(
    observations: Sequence[Observation],
    machine: Machine,
    constants: Constants | None,
    start_ms: Mapping[str, float],
) -> tuple[Parts, dict[str, float], dict[tuple[str, int], float]]:
    """The parts with the share of the last-level cache that explains the latencies best, and their factors."""
    best: tuple[float, Parts, dict[str, float], dict[tuple[str, int], float]] | None = None
    for share in _LLC if machine.llc_kib else _LLC[:1]:
        parts = Parts.of(observations, machine.with_llc(share), constants, start_ms)
        factors, calls, cost = _fit_factors(parts)
        cost += (share / _LLC_PRIOR) ** 2 / 2
        if best is None or cost < best[0]:
            best = cost, parts, factors | {"llc": share}, calls
    assert best is not None
    return best[1:]


def _fit_factors(parts: Parts) -> tuple[dict[str, float], dict[tuple[str, int], float], float]:
    """(factors, what calls cost, how ill they fit)."""
    from scipy.optimize import least_squares

    names = list(_PRIORS)
    where = sorted({(each.runtime, each.threads) for each in parts.observations})
    priors = np.array([*_PRIORS.values(), *[_CALL_PRIOR] * len(where)])

    def read(values: np.ndarray) -> tuple[dict[str, float], dict[tuple[str, int], float]]:
        factors = dict(zip(names, values[: len(names)].tolist(), strict=True))
        logs = values[len(names) :].tolist()
        return factors, {key: _CALL_MS * float(np.exp(v)) for key, v in zip(where, logs, strict=True)}

    def misfit(values: np.ndarray) -> np.ndarray:
        factors, calls = read(values)
        totals = parts.totals(factors)
        predicted = np.log(parts.sums(totals) + parts.waking(totals) + parts.calls(calls))
        return np.concatenate([(predicted - parts.measured) / 0.2, values / priors])

    found = least_squares(misfit, np.zeros(len(priors)), bounds=(-4.9, 4.9), loss="soft_l1", max_nfev=60)
    return (*read(found.x), float(found.cost))
