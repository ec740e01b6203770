"""What was measured on a device, and its kernels as the formula sees them: what a calibration learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .analytic import GROUP_OF_CLASS, GROUPS, place_of
from .constants import Constants, library_of, load_constants
from .corrections import likeness, shape_of, traits_of
from .kernels import Kernel
from .pauses import PAUSE_MS, Pauses
from .predict import kernel_terms

if TYPE_CHECKING:
    from .machine import Machine

# Operators and latency are of different runs: how far these differ (relative, and ms).
_RUNS_DIFFER, _RUNS_DIFFER_MS = 0.04, 5e-4
# Files whose operators were timed, to tell what starting one takes.
_LEAST_TIMED = 20


@dataclass(frozen=True)
class Observation:
    """One measured latency: of which network, by which runtime, with how many threads; ``noise`` relative.

    ``kernel_ms``: what each kernel took in a run that timed the operators, NaN where that is unknown; empty
    where there was no such run.
    """

    network: str
    runtime: str
    threads: int
    kernels: tuple[Kernel, ...]
    ms: float
    noise: float = 0.0
    kernel_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Parts:
    """All kernels of all observations as columns, with the parts of their time by the formula alone (ms).

    ``measured`` is the logarithm of each observation's latency, ``kernel_ms`` what each kernel took and ``starts``
    what its runtime needs to start one, where these were measured (else NaN).
    """

    observations: tuple[Observation, ...]
    kernels: tuple[Kernel, ...]
    owner: np.ndarray
    compute: np.ndarray
    caches: np.ndarray
    llc: np.ndarray
    dram: np.ndarray
    dispatch: np.ndarray
    group: np.ndarray
    int8: np.ndarray
    pauses: Pauses
    power: float
    measured: np.ndarray
    kernel_ms: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(
        cls,
        observations: Sequence[Observation],
        machine: Machine,
        constants: Constants | None,
        start_ms: Mapping[str, float],
    ) -> Parts:
        """Of ``observations`` on ``machine``; ``start_ms`` is what :func:`starts_of` found, or nothing."""
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
                np.full(len(paths), index), found.compute, found.memory - found.llc - found.dram, found.llc, found.dram,
                found.dispatch, GROUP_OF_CLASS[classes], narrow, np.full(len(paths), start_ms.get(each.runtime, np.nan)),
            ))  # fmt: skip
        owner, compute, caches, llc, dram, dispatch, group, int8, starts = (
            np.concatenate(c) for c in zip(*columns, strict=True)
        )
        return cls(
            observations=tuple(observations),
            kernels=tuple(kernel for each in observations for kernel in each.kernels),
            owner=owner, compute=compute, caches=caches, llc=llc, dram=dram, dispatch=dispatch, group=group, int8=int8,
            pauses=Pauses.of([(each.kernels, each.threads) for each in observations]),
            power=1 + float(np.exp(learned.shared[f"overlap_{overlap}"])),
            measured=np.log(np.array([each.ms for each in observations])),
            kernel_ms=np.concatenate([each.kernel_ms or [np.nan] * len(each.kernels) for each in observations]),
            starts=starts,
        )  # fmt: skip

    def totals(self, factors: dict[str, float]) -> np.ndarray:
        """Time of each kernel under ``factors``, as the formula has it."""
        return self.running(factors) + self.starting(factors)

    def starting(self, factors: dict[str, float]) -> np.ndarray:
        """What of it is needed before a kernel runs."""
        by_formula = self.dispatch * np.exp(factors.get("overhead", 0.0))
        return np.where(np.isnan(self.starts), by_formula, self.starts)

    def running(self, factors: dict[str, float]) -> np.ndarray:
        """The rest of it."""
        groups = np.array([factors.get(f"group_{name}", 0.0) for name in GROUPS])
        scale = factors.get("compute", 0.0) + groups[self.group] + factors.get("int8", 0.0) * self.int8
        compute = self.compute * np.exp(scale)
        past_l2 = self.llc * np.exp(factors.get("past_l2", 0.0)) + self.dram * np.exp(
            factors.get("dram", 0.0)
        )
        memory = (self.caches + past_l2) * np.exp(factors.get("memory", 0.0))
        both: np.ndarray = (compute**self.power + memory**self.power) ** (1 / self.power)
        return both

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


def starts_of(observations: Sequence[Observation]) -> dict[str, float]:
    """Runtime → what it takes to start a kernel (ms), where operators were timed: what these leave of a latency rises
    with their number. Of one thread: with more, operators' times hold the threads' waiting for each other.
    """
    from scipy.optimize import least_squares

    found = {}
    for runtime in sorted({each.runtime for each in observations}):
        rows = [
            (len(each.kernels), each.ms - sum(each.kernel_ms), each.ms)
            for each in observations
            if each.runtime == runtime and each.threads == 1 and np.isfinite(each.kernel_ms or np.nan).all()
        ]
        if len(rows) < _LEAST_TIMED:
            continue
        count, left, ms = np.array(rows).T
        sure = np.hypot(_RUNS_DIFFER * ms, _RUNS_DIFFER_MS)
        best = least_squares(
            _unexplained, (2e-3, 1e-4), bounds=(0.0, 1.0), loss="soft_l1", args=(count, left, sure)
        )
        found[runtime] = float(best.x[1])
    return found


def _unexplained(
    call_and_start: np.ndarray, count: np.ndarray, left: np.ndarray, sure: np.ndarray
) -> np.ndarray:
    call, start = call_and_start
    return (call + start * count - left) / sure
