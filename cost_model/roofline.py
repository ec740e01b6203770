"""Where each kernel stands under the roofs of a device: operations a byte against attained speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .machine import machine_of
from .predict import Estimate

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile


@dataclass(frozen=True)
class Point:
    """A kernel: multiply-accumulates a byte moved, 10^9 a second attained, and its share of the time."""

    name: str
    kind: str
    bound: str
    macs_per_byte: float
    gmacs_per_s: float
    share: float


@dataclass(frozen=True)
class Roofline:
    """The points of an estimate and the ceilings over them.

    Attributes:
        peaks: instruction path → 10^9 multiply-accumulates a second of all threads together.
        bandwidth_gb_s: what the chosen cores read from memory together.
    """

    title: str
    points: tuple[Point, ...]
    peaks: dict[str, float]
    bandwidth_gb_s: float


def roofline(estimate: Estimate, profile: DeviceProfile, title: str) -> Roofline:
    """The :class:`Roofline` of an estimate; kernels without multiply-accumulates have no place in it."""
    machine = machine_of(profile)
    chosen = machine.chosen(estimate.num_threads)
    paths = {each.path for each in estimate.kernels if each.kernel.macs}
    peaks = {
        path: sum(cluster.peaks.get(path, 0.0) * cluster.mhz * take for cluster, take in chosen) / 1e3
        for path in sorted(paths)
    }
    stream = sum(cluster.stream_gb_s * take for cluster, take in chosen)
    points = tuple(
        Point(
            name=each.kernel.name,
            kind=each.kernel.kind,
            bound=each.bound,
            macs_per_byte=each.kernel.macs / each.kernel.bytes_moved,
            gmacs_per_s=each.kernel.macs / each.latency_ms * 1e-6,
            share=each.latency_ms / estimate.latency_ms,
        )
        for each in estimate.kernels
        if each.kernel.macs and each.kernel.bytes_moved and each.latency_ms
    )
    return Roofline(title, points, peaks, min(stream, machine.bandwidth_gb_s))
