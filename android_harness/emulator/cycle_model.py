"""From counts to an estimated latency: throughput bounds of a core plus what its caches miss.

The core's time is bounded by each of its resources (front end, integer, load/store, ASIMD, branch). A core
overlaps them, never completely: they are joined by a p-norm whose exponent says how well (1 = one after the
other, large = perfectly). Misses add the part of their latency that the core cannot hide; streams that the
prefetcher finds cost bandwidth instead. Two exponents, two exposed shares and one parallel overhead are
fitted against published latencies (benchmarks/cycle_model_validation.py writes cycle_fit.toml); all else
comes from cores.toml. The result is an estimate of grade "emulated", with the band of that validation.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from .counts import Counts

_HERE = Path(__file__).resolve().parent
_LINE_BYTES = 64
# DRAM latency of phones and boards, load to use: order of magnitude for all of them.
_DRAM_NS = 120.0
# Width of the paths between the levels, bytes a cycle (the cores' technical reference manuals).
_OLD_L2_BYTES_A_CYCLE = 16.0
_L2_BYTES_A_CYCLE = 32.0
_L3_BYTES_A_CYCLE = 16.0
_NARROW = 8.0  # bytes of a 64-bit ASIMD load
_QUAD = 16.0


@dataclass(frozen=True)
class Core:
    """One core's throughputs; see the head of cores.toml for the meaning and the unit of each."""

    in_order: bool
    width: float
    int_alu: float
    int_mul: float
    int_div: float
    branch: float
    load: float
    store: float
    load_d: float
    load_q: float
    store_q: float
    simd: float
    fma_q: float
    mul_long: float
    dot: float
    i8mm: float
    fp_div: float
    cross: float
    l2_cycles: float
    l3_cycles: float
    bandwidth_gb_s: float
    source: str


@dataclass(frozen=True)
class Fit:
    """The fitted constants, and how far the estimates they give were from published latencies.

    ``low`` and ``high`` are the 10th and the 90th percentile of published over estimated latency, each
    device left out of its own fit.
    """

    overlap_out_of_order: float
    overlap_in_order: float
    exposed_out_of_order: float
    exposed_in_order: float
    parallel_overhead: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Estimate:
    """Cycles and milliseconds of one inference, with the band ``(low, high)`` of the validation."""

    cycles: float
    latency_ms: float
    low_ms: float
    high_ms: float
    bounds: dict[str, float]
    stall_cycles: float
    warnings: tuple[str, ...] = ()


@cache
def core_names() -> tuple[str, ...]:
    """Cores the model has figures for."""
    return tuple(sorted(_table()))


@cache
def _table() -> dict[str, Any]:
    with (_HERE / "cores.toml").open("rb") as stream:
        return tomllib.load(stream)


def core(name: str) -> Core:
    """The figures of a core.

    Raises:
        InputError: the model has none for it.
    """
    table = _table()
    entry = table.get(name)
    if entry is None:
        raise InputError(f"the cycle model has no figures for {name}; it knows {', '.join(core_names())}")
    if "like" in entry:
        entry = {**table[entry["like"]], "source": entry["source"]}
    return Core(**entry)


@cache
def load_fit() -> Fit:
    """The constants written by the validation script."""
    with (_HERE / "cycle_fit.toml").open("rb") as stream:
        data = tomllib.load(stream)
    return Fit(**{field.name: data[field.name] for field in fields(Fit)})


def bounds(counts: Counts, figures: Core) -> dict[str, float]:
    """Cycles each resource of the core needs for itself."""
    n = counts.classes.get
    wide = max(_wide_transfers(counts), float(n("load_simd_multi", 0) + n("load_simd_lane", 0)))
    # Cores with two 64-bit pipes do a 64-bit operation in half the time of a 128-bit one.
    half = 0.5 if figures.fma_q >= 1.0 else 1.0
    fma: float = n("fp32_fma", 0) + n("fp16_fma", 0) + n("fp64_fma", 0) + n("bf16_mac", 0)
    fma += half * (n("fp32_fma_d", 0) + n("fp_scalar_fma", 0)) + n("sve_fp_mac", 0)
    other_simd = sum(
        n(name, 0)
        for name in ("fp32_arith", "fp16_arith", "simd_int", "simd_shift", "simd_permute", "simd_convert",
                     "simd_reduce", "crypto", "sve_other")
    )  # fmt: skip
    long_multiplies = n("int8_widening_mac", 0) + n("int16_widening_mac", 0) + n("simd_mul", 0)
    dots = n("dotprod", 0) + half * n("dotprod_d", 0) + n("sve_int_mac", 0)
    simd = fma * figures.fma_q + (other_simd + half * n("fp_scalar", 0)) * figures.simd
    simd += long_multiplies * figures.mul_long + dots * (figures.dot or figures.fma_q)
    simd += n("i8mm", 0) * (figures.i8mm or figures.fma_q) + n("fp_div_sqrt", 0) * figures.fp_div
    simd += n("fp_int_move", 0) * figures.cross
    loads = (n("load", 0) + n("atomic", 0) + n("prefetch", 0)) * figures.load
    loads += n("load_pair", 0) * figures.load_q + n("load_simd", 0) * figures.load_d
    loads += (n("load_simd_q", 0) + 2 * n("load_simd_pair", 0) + wide + n("sve_load", 0)) * figures.load_q
    stores = n("store", 0) * figures.store + n("store_simd", 0) * figures.store
    stores += (n("store_pair", 0) + n("store_simd_q", 0) + n("sve_store", 0)) * figures.store_q
    stores += 2 * (n("store_simd_pair", 0) + n("store_simd_multi", 0)) * figures.store_q
    scalar = n("int_alu", 0) * figures.int_alu + n("int_mul", 0) * figures.int_mul
    scalar += n("int_div", 0) * figures.int_div + n("system", 0)
    return {
        "front_end": (counts.instructions + max(0.0, wide - n("load_simd_multi", 0))) / figures.width,
        "scalar": scalar,
        "load_store": loads + stores,
        "simd": simd,
        "branch": n("branch", 0) * figures.branch,
    }


def _wide_transfers(counts: Counts) -> float:
    """128-bit transfers of the multi-register loads: the bytes that no other class accounts for."""
    n = counts.classes.get
    known = 6.0 * n("load", 0) + 16.0 * n("load_pair", 0) + _NARROW * n("load_simd", 0)
    known += _QUAD * n("load_simd_q", 0) + 2 * _QUAD * n("load_simd_pair", 0) + 4.0 * n("load_simd_lane", 0)
    return max(0.0, counts.bytes_loaded - known) / _QUAD


def stalls(counts: Counts, figures: Core, mhz: float, threads: int, bandwidth_gb_s: float | None) -> float:
    """Cycles that misses would add if nothing hid them, for one of ``threads`` cores.

    A miss outside any stream pays its level's latency; one inside a stream was fetched ahead and pays the
    transfer of its line only.
    """
    misses = counts.misses
    random1 = misses.get("l1d", 0) - misses.get("l1d_stream", 0)
    random2 = misses.get("l2", 0) - misses.get("l2_stream", 0)
    last = "l3" if "l3" in misses else "l2"
    to_dram, to_dram_stream = misses.get(last, 0), misses.get(f"{last}_stream", 0)
    # Cores in DynamIQ clusters, those with a third level, have the wider path from the second.
    from_l2 = _LINE_BYTES / (_L2_BYTES_A_CYCLE if figures.l3_cycles else _OLD_L2_BYTES_A_CYCLE)
    cycles = random1 * figures.l2_cycles + misses.get("l1d_stream", 0) * from_l2
    if last == "l3":
        cycles += random2 * (figures.l3_cycles or 40.0)
        cycles += misses.get("l2_stream", 0) * _LINE_BYTES / _L3_BYTES_A_CYCLE
    dram_cycles = _DRAM_NS * 1e-3 * mhz
    # One core's own limit, and its share of what the memory gives to all of them.
    share = (
        figures.bandwidth_gb_s
        if bandwidth_gb_s is None
        else min(figures.bandwidth_gb_s, 0.6 * bandwidth_gb_s / threads)
    )
    line_cycles = _LINE_BYTES / (share * 1e3) * mhz
    cycles += (to_dram - to_dram_stream) * dram_cycles + to_dram_stream * line_cycles
    return cycles / threads


def estimate(
    counts: Counts,
    core_name: str,
    mhz: float,
    *,
    threads: int = 1,
    bandwidth_gb_s: float | None = None,
    fit: Fit | None = None,
) -> Estimate:
    """Estimated latency of one inference on ``threads`` cores of a kind at ``mhz``.

    Args:
        counts: of one inference on one thread, counted with that core's caches.
        bandwidth_gb_s: the memory's theoretical bandwidth (10^9 bytes/s) when known.

    Raises:
        InputError: the model has no figures for the core.
    """
    figures = core(core_name)
    constants = fit or load_fit()
    each = bounds(counts, figures)
    exponent = constants.overlap_in_order if figures.in_order else constants.overlap_out_of_order
    exposed = constants.exposed_in_order if figures.in_order else constants.exposed_out_of_order
    busy = sum(value**exponent for value in each.values()) ** (1.0 / exponent)
    busy *= (1.0 + constants.parallel_overhead * (threads - 1)) / threads
    stalled = exposed * stalls(counts, figures, mhz, threads, bandwidth_gb_s)
    cycles = busy + stalled
    latency_ms = cycles / (mhz * 1e3)
    return Estimate(
        cycles=cycles,
        latency_ms=latency_ms,
        low_ms=latency_ms * constants.low,
        high_ms=latency_ms * constants.high,
        bounds=each,
        stall_cycles=stalled,
    )
