"""What it costs to wake a delegate's threads after the runtime's own kernels.

The delegate's other threads wait for work without sleeping for some microseconds only;
after a longer run of own kernels the first kernel of the next delegated part has to wake them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .analytic import beyond
from .kernels import Kernel, on_one_thread

# Measured with ExecuTorch 1.5 on two Zen 5 cores of a virtual machine, from op profiles with one and two threads: the
# first kernel after 22 to 88 µs of layer normalisation took 13 to 17 µs longer than its like, after 5 µs 1 µs.
PAUSE_MS = 0.016
_AWAKE_MS = 0.012


@dataclass(frozen=True)
class Pauses:
    """The runs of own kernels that a delegated kernel follows, in the kernels of one or several networks.

    Attributes:
        run: of each kernel, which run it belongs to; -1 for those in none.
        before: of each run, the kernel that follows it.
    """

    run: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, networks: Sequence[tuple[Sequence[Kernel], int]]) -> Pauses:
        """Of networks (kernels, threads), one after the other; with one thread nobody sleeps."""
        run: list[int] = []
        before: list[int] = []
        for kernels, threads in networks:
            alone: list[int] = []
            for single in on_one_thread(kernels):
                index = len(run)
                run.append(-1)
                if single:
                    alone.append(index)
                elif alone and threads > 1:
                    for each in alone:
                        run[each] = len(before)
                    before.append(index)
                    alone = []
        return cls(np.array(run, dtype=np.int64), np.array(before, dtype=np.int64))

    def sleeping(self, total_ms: np.ndarray) -> np.ndarray:
        """Of each run, how likely the other threads are asleep at its end (0 to 1), by the kernels' times."""
        inside = self.run >= 0
        lasted = np.bincount(self.run[inside], total_ms[inside], len(self.before))[: len(self.before)]
        found: np.ndarray = beyond(lasted / _AWAKE_MS)
        return found
