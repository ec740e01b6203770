"""From latencies measured on a device to the corrections that its profile carries.

Two steps. First the formula's own factors (compute, caches and memory, overhead, families, and what a call costs) are
found by least squares with a prior, SciPy's. Then what is left is explained kernel by kernel: the
corrections are a Gaussian process over kernels (:mod:`.corrections`), seen only through the sums that whole
networks are; a few Gauss-Newton steps take care of the logarithm of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .analytic import GROUP_OF_CLASS, GROUPS, place_of
from .constants import Constants, library_of, load_constants
from .corrections import bounded, covariance, likeness, settings_of, shape_of, slope, traits_of
from .kernels import Kernel, check_kernels
from .machine import machine_of
from .pauses import PAUSE_MS, Pauses
from .predict import kernel_terms

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile
    from .machine import Machine

LEAST_NETWORKS = 5
SHORT_MS = 0.05
# Of a measured latency, and what formula and kernels' likeness can't know of a network (relative): 0.04 predicts the
# suite's left-out networks worse, 0.08 is also where their marginal likelihood is highest.
_NOISE = 0.08
_TIMER_MS = 1e-3
_STEPS = 40
# What others leave of the last-level cache (natural logarithms of a share), and how sure one is that it's all.
_LLC, _LLC_PRIOR = (0.0, -0.35, -0.7, -1.05, -1.4), 0.7
# Factors that are learned → standard deviation of the logarithm before anything is measured.
_PRIORS = {"compute": 1.5, "memory": 0.7, "dram": 0.7, "overhead": 1.5, "int8": 1.0} | {
    f"group_{name}": 0.4 for name in GROUPS
}
_CALL_MS, _CALL_PRIOR = 0.01, 1.0
_PAUSE_PRIOR = 0.5


@dataclass(frozen=True)
class Observation:
    """One measured latency: of which network, by which runtime, with how many threads; ``noise`` relative."""

    network: str
    runtime: str
    threads: int
    kernels: tuple[Kernel, ...]
    ms: float
    noise: float = 0.0


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
    machine = machine_of(profile.model_copy(update={"calibration": None}))
    uncalibrated = _Parts.of(observations, machine, constants)
    parts, factors, calls = _fit_machine(uncalibrated, machine, constants)
    process = _Process.fit(parts, factors, calls)
    settings, anchors = process.table()
    totals = uncalibrated.totals({})
    before = parts.measured - np.log(uncalibrated.sums(totals) + uncalibrated.waking(totals))
    return Fit(
        factors={name: round(value, 5) for name, value in (factors | {"pause": process.pause}).items()},
        call_ms={f"{runtime} {threads}": float(f"{ms:.4g}") for (runtime, threads), ms in calls.items()},
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


@dataclass(frozen=True)
class _Parts:
    """All kernels of all observations as columns, with the parts of their time by the formula alone (ms)."""

    observations: tuple[Observation, ...]
    kernels: tuple[Kernel, ...]
    owner: np.ndarray
    compute: np.ndarray
    caches: np.ndarray
    dram: np.ndarray
    dispatch: np.ndarray
    group: np.ndarray
    int8: np.ndarray
    pauses: Pauses
    power: float
    measured: np.ndarray

    @classmethod
    def of(cls, observations: Sequence[Observation], machine: Machine, constants: Constants | None) -> _Parts:
        learned = constants or load_constants()
        overlap = "in_order" if place_of(machine, 1).in_order else "out_of_order"
        columns: list[tuple[np.ndarray, ...]] = []
        for index, each in enumerate(observations):
            library = library_of(each.runtime, learned)
            found, paths = kernel_terms(each.kernels, machine, library, each.threads, learned)
            classes = likeness(
                [traits_of(k) for k in each.kernels],
                [shape_of(k) for k in each.kernels],
                [("", "", 1)] * len(each.kernels),
            ).codes[:, 0]
            narrow = np.array([path in ("int8", "dot", "i8mm") for path in paths])
            columns.append((
                np.full(len(paths), index), found.compute, found.memory - found.dram, found.dram, found.dispatch,
                GROUP_OF_CLASS[classes], narrow,
            ))  # fmt: skip
        owner, compute, caches, dram, dispatch, group, int8 = (
            np.concatenate(c) for c in zip(*columns, strict=True)
        )
        return cls(
            observations=tuple(observations),
            kernels=tuple(kernel for each in observations for kernel in each.kernels),
            owner=owner, compute=compute, caches=caches, dram=dram, dispatch=dispatch, group=group, int8=int8,
            pauses=Pauses.of([(each.kernels, each.threads) for each in observations]),
            power=1 + float(np.exp(learned.shared[f"overlap_{overlap}"])),
            measured=np.log(np.array([each.ms for each in observations])),
        )  # fmt: skip

    def totals(self, factors: dict[str, float]) -> np.ndarray:
        """Time of each kernel under ``factors``, as the formula has it."""
        groups = np.array([factors.get(f"group_{name}", 0.0) for name in GROUPS])
        scale = factors.get("compute", 0.0) + groups[self.group] + factors.get("int8", 0.0) * self.int8
        compute = self.compute * np.exp(scale)
        memory = (self.caches + self.dram * np.exp(factors.get("dram", 0.0))) * np.exp(
            factors.get("memory", 0.0)
        )
        both = (compute**self.power + memory**self.power) ** (1 / self.power)
        return both + self.dispatch * np.exp(factors.get("overhead", 0.0))

    def sums(self, totals: np.ndarray) -> np.ndarray:
        """Of each observation."""
        return np.bincount(self.owner, totals, len(self.observations))

    def waking(self, totals: np.ndarray, pause: float = 0.0) -> np.ndarray:
        """What waking threads costs each observation, by its kernels' times; ``pause`` is its factor's logarithm."""
        each = PAUSE_MS * np.exp(pause) * self.pauses.sleeping(totals)
        return np.bincount(self.owner[self.pauses.before], each, len(self.observations))

    def calls(self, calls: dict[tuple[str, int], float]) -> np.ndarray:
        """What the call of each observation costs."""
        return np.array([calls.get((each.runtime, each.threads), 0.0) for each in self.observations])


def _fit_machine(
    parts: _Parts, machine: Machine, constants: Constants | None
) -> tuple[_Parts, dict[str, float], dict[tuple[str, int], float]]:
    """The parts with the share of the last-level cache that explains the latencies best, and their factors."""
    best: tuple[float, _Parts, dict[str, float], dict[tuple[str, int], float]] | None = None
    for share in _LLC if machine.llc_kib else _LLC[:1]:
        if share:
            parts = _Parts.of(parts.observations, machine.with_llc(share), constants)
        factors, calls, cost = _fit_factors(parts)
        cost += (share / _LLC_PRIOR) ** 2 / 2
        if best is None or cost < best[0]:
            best = cost, parts, factors | {"llc": share}, calls
    assert best is not None
    return best[1:]


def _fit_factors(parts: _Parts) -> tuple[dict[str, float], dict[tuple[str, int], float], float]:
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


@dataclass(frozen=True)
class _Process:
    """The Gaussian process after the last step: A = W K Wᵀ + noise in its inverse, the data it explains."""

    parts: _Parts
    rows: tuple[tuple[tuple[str, str, str], tuple[float, ...], tuple[str, str, int]], ...]
    weights: np.ndarray
    pause: float
    inverse: np.ndarray
    target: np.ndarray
    final: np.ndarray

    @classmethod
    def fit(cls, parts: _Parts, factors: dict[str, float], calls: dict[tuple[str, int], float]) -> _Process:
        keys = [
            (traits_of(kernel), shape_of(kernel), setting)
            for each in parts.observations
            for kernel, setting in zip(
                each.kernels, settings_of(each.kernels, each.runtime, each.threads), strict=True
            )
        ]
        rows = tuple(dict.fromkeys(keys))
        place = {key: position for position, key in enumerate(rows)}
        column = np.array([place[key] for key in keys])
        like = likeness(*(list(x) for x in zip(*rows, strict=True)))  # type: ignore[arg-type]
        # Behind the kernels stands what waking threads costs, beside its usual price.
        prior = np.pad(covariance(like, like), (0, 1))
        prior[-1, -1] = _PAUSE_PRIOR**2
        base, call = parts.totals(factors), parts.calls(calls)
        noise = np.array(
            [_NOISE**2 + (_TIMER_MS / o.ms) ** 2 + (o.noise / 2) ** 2 for o in parts.observations]
        )

        def times(latent: np.ndarray) -> np.ndarray:
            return base * np.exp(bounded(latent)[column])

        def wakes(latent: np.ndarray, each: np.ndarray) -> np.ndarray:
            return parts.waking(each, float(bounded(latent)[-1]))

        def misfit(weights: np.ndarray, latent: np.ndarray) -> tuple[np.ndarray, float]:
            each = times(latent)
            left = parts.measured - np.log(parts.sums(each) + wakes(latent, each) + call)
            return left, float((left**2 / noise).sum() + weights @ latent)

        weights = latent = np.zeros(len(prior))
        left, cost = misfit(weights, latent)
        for _ in range(_STEPS):
            each = times(latent)
            waking = wakes(latent, each)
            total = parts.sums(each) + waking + call
            shares = np.zeros((len(total), len(prior)))
            np.add.at(shares, (parts.owner, column), each / total[parts.owner] * slope(latent)[column])
            shares[:, -1] = waking / total * slope(latent)[-1]
            target = left + shares @ latent
            inverse = np.linalg.inv(shares @ prior @ shares.T + np.diag(noise))
            wanted = shares.T @ (inverse @ target)
            wanted_latent = prior @ wanted
            for step in (1.0, 0.5, 0.25, 0.1, 0.03):
                tried = weights + step * (wanted - weights), latent + step * (wanted_latent - latent)
                left_there, cost_there = misfit(*tried)
                if cost_there < cost:
                    break
            else:
                break
            gain = cost - cost_there
            (weights, latent), left, cost = tried, left_there, cost_there
            if gain < 1e-3 * cost:
                break
        return cls(parts, rows, weights[:-1], float(bounded(latent)[-1]), inverse, target, left)

    def residuals(self) -> np.ndarray:
        """Logarithm of measured over predicted."""
        return self.final

    def left_out(self) -> np.ndarray:
        """The same, each network predicted from the others (in the linear form of the last step)."""
        errors = np.zeros(len(self.target))
        explained = self.inverse @ self.target
        networks = np.array([each.network for each in self.parts.observations])
        for name in np.unique(networks):
            block = np.flatnonzero(networks == name)
            errors[block] = np.linalg.solve(self.inverse[np.ix_(block, block)], explained[block])
        return errors

    def table(self) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
        """(settings, anchors) as a profile keeps them."""
        settings = tuple(sorted({row[2] for row in self.rows}))
        anchors: dict[Any, dict[str, Any]] = {}
        for (traits, shape, setting), weight in zip(self.rows, self.weights, strict=True):
            anchor = anchors.setdefault(
                (traits, shape),
                {
                    "cls": traits[0], "op": traits[1], "where": traits[2],
                    **dict(zip(("work", "inputs", "outputs", "positions", "kernel", "stride"), shape, strict=True)),
                    "weights": [0.0] * len(settings),
                },
            )  # fmt: skip
            anchor["weights"][settings.index(setting)] = float(f"{weight:.6g}")
        return tuple(" ".join(map(str, setting)) for setting in settings), tuple(anchors.values())
