"""What the formula leaves of measured latencies, explained kernel by kernel by a Gaussian process.

It sees whole networks, which are sums of kernels, and single kernels where a run has timed them; a few
Gauss-Newton steps take care of the logarithm of a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .corrections import bounded, covariance, likeness, settings_of, shape_of, slope, traits_of
from .observed import Parts

# Of a measured latency, and what formula and kernels' likeness can't know of a network (relative): 0.04 predicts the
# suite's left-out networks worse, 0.08 is also where their marginal likelihood is highest.
_NOISE = 0.08
_TIMER_MS = 1e-3
# The same of a kernel's own time: 0.2 predicts the suite's left-out networks better than 0.1 and 0.35. Profilers count
# whole microseconds, so that means of many runs are that fine, and shorter kernels aren't told.
_KERNEL_NOISE, _KERNEL_TIMER_MS, _LEAST_KERNEL_MS = 0.2, 4e-4, 1.5e-3
# Operators can't take longer than their network, however much the profiler or others slow that run down. Where they
# take less, the rest is partly what no operator is: they are lengthened no further than this.
_LONGEST = 1.15
_STEPS = 40
_PAUSE_PRIOR = 0.5

# (class, operator, who), shape, (runtime, arithmetic, threads)
Row = tuple[tuple[str, str, str], tuple[float, ...], tuple[str, str, int]]


@dataclass(frozen=True)
class KernelTimes:
    """Kernels that were timed on their own.

    Attributes:
        rows: which ones.
        logs: logarithm of their time over what the formula says, without the start.
        noise: variance of that.
        networks: those that each was seen in.
    """

    rows: np.ndarray
    logs: np.ndarray
    noise: np.ndarray
    networks: tuple[frozenset[str], ...]

    @classmethod
    def of(
        cls, parts: Parts, column: np.ndarray, calls: dict[tuple[str, int], float], running: np.ndarray
    ) -> KernelTimes:
        """From the observations' kernel times, the mean of each kernel's; ``column`` is the row of each."""
        known = parts.kernel_ms * _slowed(parts, calls)[parts.owner]
        with np.errstate(invalid="ignore"):
            told = np.flatnonzero(known > _LEAST_KERNEL_MS)
        rows, where = np.unique(column[told], return_inverse=True)
        seen = np.bincount(where)
        logs = np.bincount(where, np.log(known[told] / running[told])) / seen
        ms = np.bincount(where, known[told]) / seen
        networks: list[set[str]] = [set() for _ in rows]
        for index, owner in zip(where, parts.owner[told], strict=True):
            networks[index].add(parts.observations[owner].network)
        return cls(
            rows, logs, _KERNEL_NOISE**2 + (_KERNEL_TIMER_MS / ms) ** 2, tuple(frozenset(n) for n in networks)
        )

    def of_network(self, name: str) -> np.ndarray:
        """Those seen in this network."""
        return np.array([i for i, seen in enumerate(self.networks) if name in seen], dtype=np.int64)


def _slowed(parts: Parts, calls: dict[tuple[str, int], float]) -> np.ndarray:
    """What the kernel times of each observation are multiplied with to come to its latency: another run took them."""
    total = np.bincount(parts.owner, parts.kernel_ms, len(parts.observations))
    ms = np.exp(parts.measured)
    left = ms - np.minimum(parts.calls(calls), 0.3 * ms)
    # Where a kernel's time is unknown the others' sum says nothing.
    scale = np.where(np.isfinite(total) & (total > 0), left / np.where(total > 0, total, 1.0), 1.0)
    return np.minimum(scale, _LONGEST)


def _rows_of(parts: Parts) -> tuple[tuple[Row, ...], np.ndarray]:
    """Kernels that differ, and which of them each kernel of the observations is."""
    keys = [
        (traits_of(kernel), shape_of(kernel), setting)
        for each in parts.observations
        for kernel, setting in zip(
            each.kernels, settings_of(each.kernels, each.runtime, each.threads), strict=True
        )
    ]
    rows = tuple(dict.fromkeys(keys))
    place = {key: position for position, key in enumerate(rows)}
    return rows, np.array([place[key] for key in keys])


@dataclass(frozen=True)
class _Problem:
    """The data as functions of the corrections before they are bounded (``latent``): networks first, kernels behind."""

    parts: Parts
    column: np.ndarray
    running: np.ndarray
    starting: np.ndarray
    call: np.ndarray
    times: KernelTimes

    @property
    def noise(self) -> np.ndarray:
        """Variance of each datum."""
        of_networks = [
            _NOISE**2 + (_TIMER_MS / o.ms) ** 2 + (o.noise / 2) ** 2 for o in self.parts.observations
        ]
        return np.concatenate([of_networks, self.times.noise])

    def misfit(self, weights: np.ndarray, latent: np.ndarray) -> tuple[np.ndarray, float]:
        """(what is left of each datum, what the process finds minimal)."""
        *_, total = self._totals(latent)
        of_networks = self.parts.measured - np.log(total)
        left = np.concatenate([of_networks, self.times.logs - bounded(latent)[self.times.rows]])
        return left, float((left**2 / self.noise).sum() + weights @ latent)

    def shares(self, latent: np.ndarray) -> Any:
        """The derivative of what is predicted by ``latent``, a sparse matrix."""
        from scipy.sparse import csr_matrix

        running, waking, total = self._totals(latent)
        steep, networks, owner = slope(latent), np.arange(len(total)), self.parts.owner
        entries = (
            (owner, self.column, running / total[owner] * steep[self.column]),
            (networks, np.full(len(total), len(latent) - 1), waking / total * steep[-1]),
            (
                len(total) + np.arange(len(self.times.rows)), self.times.rows, steep[self.times.rows],
            ),
        )  # fmt: skip
        row, column, value = (np.concatenate(x) for x in zip(*entries, strict=True))
        return csr_matrix((value, (row, column)), shape=(len(total) + len(self.times.rows), len(latent)))

    def _totals(self, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(what each kernel runs, what waking threads costs, and all of each network) under ``latent``."""
        corrections = bounded(latent)
        running = self.running * np.exp(corrections[self.column])
        each = running + self.starting
        waking = self.parts.waking(each, float(corrections[-1]))
        return running, waking, self.parts.sums(each) + waking + self.call


@dataclass(frozen=True)
class KernelProcess:
    """The Gaussian process after the last step: A = W K Wᵀ + noise in its inverse, the data it explains."""

    parts: Parts
    rows: tuple[Row, ...]
    times: KernelTimes
    weights: np.ndarray
    pause: float
    inverse: np.ndarray
    target: np.ndarray
    final: np.ndarray

    @classmethod
    def fit(
        cls, parts: Parts, factors: dict[str, float], calls: dict[tuple[str, int], float]
    ) -> KernelProcess:
        """Explain what ``factors`` and ``calls`` leave."""
        from scipy.linalg import cho_factor, cho_solve

        rows, column = _rows_of(parts)
        like = likeness(*(list(x) for x in zip(*rows, strict=True)))  # type: ignore[arg-type]
        # Behind the kernels stands what waking threads costs, beside its usual price.
        prior = np.pad(covariance(like, like), (0, 1))
        prior[-1, -1] = _PAUSE_PRIOR**2
        running = parts.running(factors)
        times = KernelTimes.of(parts, column, calls, running)
        problem = _Problem(parts, column, running, parts.starting(factors), parts.calls(calls), times)
        weights = latent = np.zeros(len(prior))
        left, cost = problem.misfit(weights, latent)
        for _ in range(_STEPS):
            shares = problem.shares(latent)
            target = left + shares @ latent
            matrix = shares @ (shares @ prior).T
            matrix[np.diag_indices_from(matrix)] += problem.noise
            factor = cho_factor(matrix)
            wanted = shares.T @ cho_solve(factor, target)
            wanted_latent = prior @ wanted
            for step in (1.0, 0.5, 0.25, 0.1, 0.03):
                tried = weights + step * (wanted - weights), latent + step * (wanted_latent - latent)
                left_there, cost_there = problem.misfit(*tried)
                if cost_there < cost:
                    break
            else:
                break
            gain = cost - cost_there
            (weights, latent), left, cost = tried, left_there, cost_there
            if gain < 1e-3 * cost:
                break
        inverse = cho_solve(factor, np.eye(len(matrix)), overwrite_b=True)
        pause = float(bounded(latent)[-1])
        return cls(parts, rows, problem.times, weights[:-1], pause, inverse, target, left)

    def residuals(self) -> np.ndarray:
        """Logarithm of measured over predicted, of each observation."""
        return self.final[: len(self.parts.observations)]

    def left_out(self) -> np.ndarray:
        """The same, each network predicted from the others (in the linear form of the last step): without its latencies
        and without the times of kernels that it has."""
        errors = np.zeros(len(self.parts.observations))
        explained = self.inverse @ self.target
        networks = np.array([each.network for each in self.parts.observations])
        for name in np.unique(networks):
            latencies = np.flatnonzero(networks == name)
            block = np.concatenate([latencies, len(networks) + self.times.of_network(name)])
            alone = np.linalg.solve(self.inverse[np.ix_(block, block)], explained[block])
            errors[latencies] = alone[: len(latencies)]
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
