"""What one inference executed: counts by class of instruction, multiply-accumulates, bytes, cache misses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import EdgeoptError

# The instruction mix as it is shown: each group sums the plugin's classes (counter/decode.h).
GROUPS: dict[str, tuple[str, ...]] = {
    "loads": ("load", "load_pair", "load_simd", "load_simd_q", "load_simd_pair", "load_simd_multi",
              "load_simd_lane", "sve_load"),
    "stores": ("store", "store_pair", "store_simd", "store_simd_q", "store_simd_pair", "store_simd_multi",
               "sve_store"),
    "branches": ("branch",),
    "scalar": ("int_alu", "int_mul", "int_div", "fp_scalar", "fp_scalar_fma", "fp_div_sqrt"),
    "fp32_fma": ("fp32_fma", "fp32_fma_d"),
    "fp16_fma": ("fp16_fma",),
    "int8_widening": ("int8_widening_mac", "int16_widening_mac"),
    "dotprod": ("dotprod", "dotprod_d"),
    "i8mm": ("i8mm",),
    "sve": ("sve_fp_mac", "sve_int_mac", "sve_other"),
    "other_simd": ("fp_int_move", "fp32_arith", "fp64_fma", "fp16_arith", "bf16_mac", "simd_mul", "simd_int",
                   "simd_shift", "simd_permute", "simd_convert", "simd_reduce", "crypto"),
    "other": ("system", "atomic", "prefetch", "unknown"),
}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Counts of one phase: the load, one inference, or one operator of it.

    ``macs`` counts lanes that were multiplied and added, by kind of element; padding that a kernel
    computes and throws away is in it. ``misses`` holds ``l1d``, ``l2``, ``l3`` and, of each, the part that
    belongs to a sequential stream (``l1d_stream``, ...). Bytes and misses of the load are not counted.
    """

    instructions: int
    classes: dict[str, int]
    macs: dict[str, int]
    bytes_loaded: int
    bytes_stored: int
    misses: dict[str, int] = field(default_factory=dict)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of every kind."""
        return sum(self.macs.values())

    def mix(self) -> dict[str, int]:
        """Instructions by group, in a fixed order."""
        return {group: sum(self.classes.get(name, 0) for name in names) for group, names in GROUPS.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "instructions": self.instructions,
            "mix": self.mix(),
            "classes": dict(self.classes),
            "macs": dict(self.macs),
            "bytes_loaded": self.bytes_loaded,
            "bytes_stored": self.bytes_stored,
            "cache_misses": dict(self.misses),
        }


@dataclass(frozen=True)
class Phases:
    """All that the plugin wrote: the load, each inference, and the sections of the last inference."""

    load: Counts
    runs: tuple[Counts, ...]
    sections: tuple[Counts, ...]


def read_phases(path: Path) -> Phases:
    """Parse the plugin's lines.

    Raises:
        EdgeoptError: the guest ended before a whole inference was counted.
    """
    load: Counts | None = None
    runs: list[Counts] = []
    sections: list[tuple[int, Counts]] = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        counts = _counts(row)
        if row["phase"] == "load":
            load = counts
        elif row["phase"] == "run":
            runs.append(counts)
        else:
            sections.append((row["run"], counts))
    if load is None or not runs:
        raise EdgeoptError("the emulated run ended before one inference was counted")
    last = max((run for run, _ in sections), default=0)
    return Phases(load, tuple(runs), tuple(counts for run, counts in sections if run == last))


def _counts(row: dict[str, Any]) -> Counts:
    misses = {name.replace("_misses", ""): value for name, value in row.items() if name.endswith("_misses")}
    return Counts(
        instructions=row["instructions"],
        classes=row["classes"],
        macs=row["macs"],
        bytes_loaded=row["bytes_loaded"],
        bytes_stored=row["bytes_stored"],
        misses=misses,
    )
