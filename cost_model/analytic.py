"""The formula: what a kernel costs on a core, in terms that numpy arrays and torch tensors both compute.

For each kernel (all logarithms natural, all times in ms):

    compute  = work / (peak of the instructions used × efficiency × clock × speed-up of the threads)
    memory   = bytes × what a byte costs at every level it has to come through
    time     = (compute^p + memory^p)^(1/p) + dispatch + waking the threads

``work`` is the multiply-accumulates plus what is lost at the edges: with c input channels a share a/c of the
work is overhead, likewise for output channels and positions (Amdahl's argument for tiles). ``bytes`` are those
of the tensors times what the algorithm makes of them (the weights of Winograd's 3×3 are several times as large,
an unrolled convolution reads its input more than once). A byte costs cycles at the second level, more cycles at
the third, nanoseconds from memory; what doesn't fit a level comes from the next, in proportion. Activations were
just written; before a kernel's weights are read again, the whole network has gone through the caches. All
coefficients are positive, so that more work, more bytes, a slower clock, a narrower unit or a smaller cache
can never make an estimate faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import ACTIVATION_BYTES, Kernel
from .machine import PATHS, CoreCluster, Machine

# Families that share an efficiency.
CLASSES = (
    "conv_3x3", "conv_other", "pointwise", "depthwise", "depthwise_big", "grouped", "linear", "matmul", "pool",
    "elementwise", "softmax", "norm", "layout", "other",
)  # fmt: skip
# Families that a device may favour or not, as a group.
GROUPS = ("conv", "conv_3x3", "pointwise", "depthwise", "linear", "light")
_GROUP_OF = {
    "conv_3x3": "conv_3x3", "conv_other": "conv", "grouped": "conv", "pointwise": "pointwise",
    "depthwise": "depthwise", "depthwise_big": "depthwise", "linear": "linear", "matmul": "linear",
}  # fmt: skip
GROUP_OF_CLASS = np.array([GROUPS.index(_GROUP_OF.get(name, "light")) for name in CLASSES])
_KIND_CLASS = {
    "pointwise": "pointwise", "grouped": "grouped", "linear": "linear", "recurrent": "linear",
    "matmul": "matmul", "pool": "pool", "elementwise": "elementwise", "softmax": "softmax", "norm": "norm",
    "layout": "layout", "embedding": "layout", "other": "other",
}  # fmt: skip
_KIB = 1024.0


def kernel_class(kernel: Kernel) -> str:
    """The efficiency family of a kernel (:data:`CLASSES`)."""
    if kernel.kind == "conv":
        # Where fast algorithms (Winograd) exist: 3×3, stride 1, more than an image's channels.
        fast = kernel.kernel_size == 3 and kernel.stride == 1 and kernel.in_channels >= 8
        return "conv_3x3" if fast else "conv_other"
    if kernel.kind == "depthwise":
        return "depthwise" if kernel.kernel_size <= 3 else "depthwise_big"
    return _KIND_CLASS[kernel.kind]


@dataclass(frozen=True)
class Work:
    """Kernels as columns of figures, one entry a kernel (``count`` equal ones are one entry)."""

    cls: Any
    work: Any
    per_input: Any
    per_output: Any
    per_position: Any
    activations: Any
    weights: Any
    splits: Any
    count: Any
    footprint: float

    def __len__(self) -> int:
        return len(self.cls)


def work_of(kernels: Sequence[Kernel], *, merge: bool = False) -> Work:
    """Columns of ``kernels``; ``merge`` makes one entry of equal ones.

    ``footprint`` (bytes) is what one inference goes through: all weights and the largest activations.
    """
    rows: dict[tuple[float, ...] | int, list[float]] = {}
    for index, kernel in enumerate(kernels):
        work = float(kernel.macs) if kernel.macs else kernel.elements_out
        line = (
            float(CLASSES.index(kernel_class(kernel))),
            work,
            work / kernel.in_channels,
            work / kernel.out_channels,
            work / kernel.spatial,
            kernel.bytes_in + kernel.bytes_out,
            kernel.bytes_weights,
            _splits(kernel),
        )
        key: tuple[float, ...] | int = line if merge else index
        if key in rows:
            rows[key][-1] += 1
        else:
            rows[key] = [*line, 1.0]
    table = np.array(list(rows.values()), dtype=np.float64)
    largest = max(kernel.bytes_in + kernel.bytes_out for kernel in kernels)
    footprint = sum(kernel.bytes_weights for kernel in kernels) + largest
    work, per_input, per_output, per_position, activations, weights, splits, count = table.T[1:]
    return Work(
        cls=table[:, 0].astype(np.int64),
        work=work,
        per_input=per_input,
        per_output=per_output,
        per_position=per_position,
        activations=activations,
        weights=weights,
        splits=splits,
        count=count,
        footprint=float(footprint),
    )


def _splits(kernel: Kernel) -> float:
    """Into how many kernels more a grouped convolution may be taken apart."""
    if kernel.kind != "grouped":
        return 0.0
    channels = kernel.bytes_in / ACTIVATION_BYTES[kernel.precision] / (kernel.spatial * kernel.stride**2)
    return max(0.0, channels / kernel.in_channels - 1)


@dataclass(frozen=True)
class Place:
    """Where kernels run: figures of the chosen cores.

    ``speed_sum`` and ``speed_min`` are relative to one of the fastest cores: the sum over all threads, and
    threads × the slowest (what static shares of work come to), by peak, clock and what is known of how much of
    its peak each core reaches.
    """

    ghz: float
    peaks: dict[str, float]
    in_order: float
    threads: int
    speed_sum: float
    speed_min: float
    l2_bytes: float
    llc_bytes: float
    stream_gb_s: float
    bandwidth_gb_s: float


def place_of(machine: Machine, threads: int, compute: Callable[[str], float] | None = None) -> Place:
    """The :class:`Place` of ``threads`` threads on the fastest cores of ``machine``.

    ``compute``: core (its ``design``) → logarithm of what its compute takes longer than its peak says.
    """
    chosen = machine.chosen(threads)
    first: CoreCluster = chosen[0][0]
    reached = {c.design: math.exp(-compute(c.design)) if compute else 1.0 for c, _ in chosen}
    speeds = [
        cluster.speed / first.speed * (reached[cluster.design] / reached[first.design])
        for cluster, take in chosen
        for _ in range(take)
    ]
    l2 = sum(cluster.l2_kib * (1 if cluster.l2_shared else take) for cluster, take in chosen)
    return Place(
        ghz=first.mhz / 1e3,
        peaks=first.peaks,
        in_order=float(first.in_order),
        threads=threads,
        speed_sum=sum(speeds),
        speed_min=threads * min(speeds),
        l2_bytes=l2 * _KIB,
        llc_bytes=(l2 + machine.llc_kib) * _KIB,
        stream_gb_s=sum(cluster.stream_gb_s * take for cluster, take in chosen),
        bandwidth_gb_s=machine.bandwidth_gb_s,
    )


def paths_of(place: Place, precision: str) -> list[str]:
    """The instruction paths that can compute ``precision`` there."""
    return [path for path in PATHS[precision] if path in place.peaks]


@dataclass(frozen=True)
class Terms:
    """What a kernel costs, ms: the parts and the whole; ``llc`` and ``dram`` are the parts of ``memory`` that come from
    the last-level cache and from memory."""

    compute: Any
    memory: Any
    llc: Any
    dram: Any
    dispatch: Any
    total: Any


def terms(work: Any, place: Any, constants: Mapping[str, Any], exp: Any) -> Terms:
    """The formula of the module's head.

    Args:
        work: columns as in :class:`Work`, with ``footprint``.
        place: figures as in :class:`Place` with ``peak`` (multiply-accumulates a cycle); scalars or columns.
        constants: logarithms, each a scalar or a column: ``efficiency`` (of the class on that path),
            ``edge_input``, ``edge_output``, ``edge_position``, ``traffic_activations``, ``traffic_weights``, ``overlap``, ``l2_cycles``, ``llc_cycles``,
            ``dram_core``, ``dram_chip``, ``dispatch_cycles``, ``split`` (of it, for each part of a grouped
            convolution), ``wake_us``, ``parallel`` and ``parallel_memory`` (what each thread more takes of the speed
            of compute and of the caches, which cores share); and ``static``
            (0 to 1: how far work is shared out before it starts); and what is known of the device:
            ``compute``, ``memory``, ``overhead``, and of a calibrated one ``past_l2`` and ``dram``, on top of
            ``memory``, for what comes from the last-level cache and from memory.
        exp: numpy's or torch's.
    """
    c = constants
    together = (1 - c["static"]) * place.speed_sum + c["static"] * place.speed_min
    speed = together / (1 + exp(c["parallel"]) * (place.threads - 1))
    cache_speed = together / (1 + exp(c["parallel_memory"]) * (place.threads - 1))
    amount = (
        work.work
        + exp(c["edge_input"]) * work.per_input
        + exp(c["edge_output"]) * work.per_output
        + exp(c["edge_position"]) * work.per_position
    )
    cycles = amount / place.peak * exp(c["compute"] - c["efficiency"])
    compute = cycles / (place.ghz * 1e6) / speed
    activations = work.activations * exp(c["traffic_activations"])
    weights = work.weights * exp(c["traffic_weights"])
    moved = activations + weights
    past_l2 = activations * _spilled(moved, place.l2_bytes) + weights * _spilled(
        work.footprint, place.l2_bytes
    )
    past_llc = activations * _spilled(activations, place.llc_bytes) + weights * _spilled(
        work.footprint, place.llc_bytes
    )
    cycle_ms = exp(c["memory"]) / (place.ghz * 1e6) / cache_speed
    llc = past_l2 * exp(c["llc_cycles"] + c.get("past_l2", 0.0)) * cycle_ms
    nanoseconds = past_llc * (
        exp(c["dram_core"]) / place.stream_gb_s + exp(c["dram_chip"]) / place.bandwidth_gb_s
    )
    dram = nanoseconds * 1e-6 * exp(c["memory"] + c.get("dram", 0.0))
    memory = moved * exp(c["l2_cycles"]) * cycle_ms + llc + dram
    dispatch = exp(c["dispatch_cycles"]) * (1 + exp(c["split"]) * work.splits) / (place.ghz * 1e6)
    waking = exp(c["wake_us"]) * 1e-3 * (place.threads - 1) / place.ghz
    overhead = (dispatch + waking) * exp(c["overhead"])
    power = 1 + exp(c["overlap"])
    total = (compute**power + memory**power) ** (1 / power) + overhead
    return Terms(compute, memory, llc, dram, overhead, total)


def _spilled(size: Any, capacity: Any) -> Any:
    """Share of ``size`` bytes that a cache of ``capacity`` can't hold: 0 until it is full, rising smoothly."""
    return beyond(size / (capacity + 1.0))


def beyond(ratio: Any) -> Any:
    """How far ``ratio`` is past 1, from 0 to 1: x⁴/(1+x⁴) rises without a kink and is a half at 1."""
    fourth = ratio**4
    return fourth / (1 + fourth)
