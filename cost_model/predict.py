"""From kernels and a machine to milliseconds, with a band and with what bounds each kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .analytic import Place, Terms, Work, paths_of, place_of, terms, work_of
from .constants import Constants, device_factors, library_of, load_constants
from .kernels import Kernel, Precision, check_kernels, on_one_thread
from .machine import Machine, core_table, machine_of
from .pauses import PAUSE_MS, Pauses

if TYPE_CHECKING:
    from ..device_profiles import DeviceProfile

_PARTS = ("compute", "memory", "llc", "dram", "dispatch", "total")
_RUNTIME = ("dispatch_cycles", "split", "wake_us", "parallel", "parallel_memory", "static")
_SHARED = ("l2_cycles", "llc_cycles", "dram_core", "dram_chip")


@dataclass(frozen=True)
class KernelEstimate:
    """One kernel's share: ``bound`` is the largest of its parts (compute, memory, dispatch)."""

    kernel: Kernel
    latency_ms: float
    compute_ms: float
    memory_ms: float
    dispatch_ms: float
    bound: str
    path: str


@dataclass(frozen=True)
class Estimate:
    """Predicted latency of one inference.

    Attributes:
        latency_ms: median.
        low_ms, high_ms: 80% band, from held-out published latencies, or from what calibration left out.
        grade: "predicted", "transferred" (published rows of this chip are in the constants) or "calibrated".
        basis: in words, what the grade rests on.
        kernels: in the order of the model.
        call_ms: what an inference costs beside its kernels, where a calibration tells.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    grade: str
    basis: str
    runtime: str
    num_threads: int
    kernels: tuple[KernelEstimate, ...]
    call_ms: float = 0.0

    @property
    def bounds(self) -> dict[str, float]:
        """Share of the time by what bounds it, largest first."""
        found: dict[str, float] = {}
        for each in self.kernels:
            found[each.bound] = found.get(each.bound, 0.0) + each.latency_ms / self.latency_ms
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class _At:
    """A place with the peak of one path: what the formula asks for."""

    place: Place
    peak: float

    def __getattr__(self, name: str) -> float:
        value: float = getattr(self.place, name)
        return value


def predict(
    kernels: Sequence[Kernel],
    profile: DeviceProfile | Machine,
    *,
    runtime: str = "executorch",
    precision: Precision | None = None,
    num_threads: int = 1,
    constants: Constants | None = None,
) -> Estimate:
    """Latency of one inference of ``kernels`` on the fastest ``num_threads`` cores of ``profile``.

    Args:
        runtime: executorch, litert, tflite_runtime (all XNNPACK's kernels), ncnn, ...
        precision: compute every kernel in it; None keeps each kernel's own.
        constants: other learned constants than those that ship.

    Raises:
        InputError: no kernels, impossible figures, more threads than cores, an unknown runtime or precision.
    """
    learned = constants or load_constants()
    library = library_of(runtime, learned)
    machine = machine_of(profile)
    wanted = [kernel.at(precision) for kernel in kernels] if precision else list(kernels)
    check_kernels(wanted)
    parts, paths = kernel_terms(wanted, machine, library, num_threads, learned)
    call_ms, pause = 0.0, PAUSE_MS * math.exp(machine.factors.get("pause", 0.0))
    if machine.corrections is not None and machine.corrections.covers(runtime):
        parts = _scaled(
            parts,
            machine.corrections.factors(wanted, runtime, num_threads),
            machine.corrections.start(runtime),
        )
        call_ms = machine.corrections.call(runtime, num_threads)
    parts = _with_pauses(parts, Pauses.of([(wanted, num_threads)]), pause)
    estimates = tuple(
        KernelEstimate(
            kernel=kernel,
            latency_ms=float(parts.total[i]),
            compute_ms=float(parts.compute[i]),
            memory_ms=float(parts.memory[i]),
            dispatch_ms=float(parts.dispatch[i]),
            bound=_bound(parts, i),
            path=paths[i],
        )
        for i, kernel in enumerate(wanted)
    )
    latency_ms = float(parts.total.sum()) + call_ms
    if not math.isfinite(latency_ms):
        raise AssertionError("the cost model's constants gave no finite latency")
    grade, basis, (low, high) = _standing(machine, learned, runtime)
    return Estimate(
        latency_ms,
        latency_ms * low,
        latency_ms * high,
        grade,
        basis,
        runtime,
        num_threads,
        estimates,
        call_ms,
    )


def _scaled(parts: Terms, factors: np.ndarray, start_ms: float | None) -> Terms:
    """What starting a kernel takes is no kernel's own: corrections leave it alone, and where it was measured that is it."""
    scaled = {name: getattr(parts, name) * factors for name in ("compute", "memory", "llc", "dram")}
    running = parts.total - parts.dispatch
    dispatch = parts.dispatch if start_ms is None else np.full(len(running), start_ms)
    return Terms(**scaled, dispatch=dispatch, total=running * factors + dispatch)


def _with_pauses(parts: Terms, pauses: Pauses, pause_ms: float) -> Terms:
    """The kernels before which threads are woken take as much longer."""
    waking = np.zeros(len(parts.total))
    waking[pauses.before] = pause_ms * pauses.sleeping(parts.total)
    return replace(parts, dispatch=parts.dispatch + waking, total=parts.total + waking)


def kernel_terms(
    kernels: Sequence[Kernel], machine: Machine, library: str, threads: int, constants: Constants
) -> tuple[Terms, list[str]]:
    """The parts of each kernel's time (ms, arrays in order) and the instruction path it takes."""
    together, paths = _with_threads(kernels, machine, library, threads, constants)
    single = np.array(on_one_thread(kernels))
    if threads == 1 or library != "xnnpack" or not single.any():
        return together, paths
    alone, _ = _with_threads(kernels, machine, library, 1, constants)
    parts = (np.where(single, getattr(alone, name), getattr(together, name)) for name in _PARTS)
    return Terms(*parts), paths


def _with_threads(
    kernels: Sequence[Kernel], machine: Machine, library: str, threads: int, constants: Constants
) -> tuple[Terms, list[str]]:
    place = place_of(machine, threads, lambda core: constants.core_factors(core).get("compute", 0.0))
    core = machine.chosen(1)[0][0].design
    columns = work_of(kernels)
    # A library computes a precision with the widest instructions that it finds, as in the fit.
    paths = [paths_of(place, kernel.precision)[-1] for kernel in kernels]
    found = {
        path: _on_path(columns, place, core, path, machine, library, constants) for path in sorted(set(paths))
    }
    chosen = np.array(paths)
    parts = [
        np.select([chosen == path for path in found], [getattr(each, name) for each in found.values()])
        for name in _PARTS
    ]
    return Terms(*parts), paths


def _on_path(
    columns: Work, place: Place, core: str, path: str, machine: Machine, library: str, constants: Constants
) -> Terms:
    runtime, shared = constants.runtimes[library], constants.shared
    compute, rest = device_factors(constants, machine, core, path=path)
    edges = constants.edge_columns(library, path)[columns.cls]
    traffic = constants.traffic_columns(library)[columns.cls]
    overlap = "overlap_in_order" if place.in_order else "overlap_out_of_order"
    named = {
        "efficiency": constants.log_efficiency(library, path)[columns.cls],
        "edge_input": edges[:, 0],
        "edge_output": edges[:, 1],
        "edge_position": edges[:, 2],
        "traffic_activations": traffic[:, 0],
        "traffic_weights": traffic[:, 1],
        "overlap": shared[overlap],
        **{name: shared[name] for name in _SHARED},
        **{name: runtime[name] for name in _RUNTIME},
        "compute": compute[columns.cls],
        **rest,
    }
    found = terms(columns, _At(place, place.peaks[path]), named, np.exp)
    dispatch = np.broadcast_to(found.dispatch, len(columns))
    return Terms(found.compute, found.memory, found.llc, found.dram, dispatch, found.total)


def _bound(parts: Terms, index: int) -> str:
    each = {name: float(getattr(parts, name)[index]) for name in ("compute", "memory", "dispatch")}
    return max(each, key=lambda name: each[name])


def _standing(machine: Machine, constants: Constants, runtime: str) -> tuple[str, str, tuple[float, float]]:
    """(grade, basis in words, band) of an estimate for ``machine``."""
    if machine.corrections is not None and machine.corrections.covers(runtime):
        return "calibrated", machine.corrections.basis, machine.corrections.band
    grade, basis, situation = _known(machine, constants)
    if library_of(runtime, constants) == "xnnpack":
        basis += ", with counts of XNNPACK's kernels on emulated cores"
    return grade, basis, constants.bands[situation]


def _known(machine: Machine, constants: Constants) -> tuple[str, str, str]:
    """(grade, basis in words, whose band) by what is known of the core and the chip."""
    core = machine.chosen(1)[0][0].core
    chip = constants.chip_factors(machine.chip)
    if chip is not None:
        return "transferred", f"published latencies of the {chip[0]}", "known_chip"
    if core in constants.provenance.get("measured_cores", ()):
        return "predicted", f"latencies measured on another machine with {core} cores", "known_core"
    if core in constants.cores:
        return "predicted", f"published latencies of other chips with {core} cores", "known_core"
    if core in core_table():
        return "predicted", f"the data of {core} and published latencies of other cores", "unknown_core"
    return "predicted", f"a stand-in for {core}, which the cost model doesn't know", "unknown_core"
