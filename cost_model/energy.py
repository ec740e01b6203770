"""Energy of one inference: the power of the cores that work, the memory they read, and the idle device.

The figures of power are the profile's own (an energy model or a power profile that its maker ships, see its
``sources``); they hold for a heavy load at the highest clock. Nothing here was fitted on a measurement of
energy: docs/estimate.md says what it was checked against, and what it could not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .kernels import Kernel
from .machine import machine_of
from .predict import Estimate

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile

# An estimate for LPDDR4X and LPDDR5 with controller and interface: 4 to 10 pJ a bit are published for them.
DRAM_PJ_PER_BYTE = 60.0


@dataclass(frozen=True)
class EnergyEstimate:
    """Of one inference, in mJ.

    Attributes:
        cores_mj: what the working cores add while it runs.
        memory_mj: of what comes from DRAM.
        idle_mj: what the idle device draws in that time anyway; None when the profile doesn't say.
        power_mw: mean power above idle while it runs.
    """

    cores_mj: float
    memory_mj: float
    idle_mj: float | None
    power_mw: float

    @property
    def dynamic_mj(self) -> float:
        """Above idle: what ``bench --power`` measures."""
        return self.cores_mj + self.memory_mj

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON."""
        return {
            "energy_mj": self.dynamic_mj,
            "cores_mj": self.cores_mj,
            "memory_mj": self.memory_mj,
            "idle_mj": self.idle_mj,
            "power_mw": self.power_mw,
        }


def estimate_energy(estimate: Estimate, profile: DeviceProfile) -> EnergyEstimate | None:
    """Energy of an inference that takes as long as ``estimate`` says; None where the profile has no power.

    A thread keeps its core busy from the first kernel to the last: XNNPACK's threads spin for their work.
    """
    per_core = profile.power.active_mw_per_core
    if per_core is None:
        return None
    machine = machine_of(profile)
    active_mw = sum(
        per_core[machine.clusters.index(cluster)] * take
        for cluster, take in machine.chosen(estimate.num_threads)
    )
    latency_s = estimate.latency_ms * 1e-3
    kernels = [each.kernel for each in estimate.kernels]
    cache = (machine.llc_kib + sum(c.l2_kib for c, _ in machine.chosen(estimate.num_threads))) * 1024.0
    memory_mj = dram_bytes(kernels, cache) * DRAM_PJ_PER_BYTE * 1e-9
    cores_mj = active_mw * latency_s
    idle = profile.power.idle_mw
    return EnergyEstimate(
        cores_mj=cores_mj,
        memory_mj=memory_mj,
        idle_mj=None if idle is None else idle * latency_s,
        power_mw=(cores_mj + memory_mj) / latency_s,
    )


def dram_bytes(kernels: Sequence[Kernel], cache_bytes: float) -> float:
    """Bytes of one inference that come from DRAM: weights where all of them don't fit the caches at once,
    activations where one kernel's own don't."""
    largest = max(kernel.bytes_in + kernel.bytes_out for kernel in kernels)
    footprint = sum(kernel.bytes_weights for kernel in kernels) + largest
    weights = sum(kernel.bytes_weights for kernel in kernels) * _beyond(footprint, cache_bytes)
    moved = [kernel.bytes_in + kernel.bytes_out for kernel in kernels]
    return weights + sum(size * _beyond(size, cache_bytes) for size in moved)


def _beyond(size: float, capacity: float) -> float:
    """Share of ``size`` that a cache of ``capacity`` can't hold; rises without a step."""
    fourth = (size / (capacity + 1.0)) ** 4
    return fourth / (1 + fourth)
