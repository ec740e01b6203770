"""What the emulator's cycle model says of XNNPACK's kernels, as rows for the cost model's fit.

emulated_counts.json.gz (written by emulated_counts.py) has the kernels of each file and the instructions, bytes and cache
misses that one inference executes on each emulated core. The cycle model turns counts into a latency; its own error
against published latencies of XNNPACK is the noise of these rows, and what it gets wrong of a whole core is left to
that core's run. They say which kernels in which precision cost how much beside each other, where no published row of
XNNPACK does: int8 with dot products and i8mm, half precision, transformers.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from published_rows import Row

from edgeopt.android_harness.emulator import cycle_model
from edgeopt.android_harness.emulator.counts import Counts
from edgeopt.cost_model import Kernel
from edgeopt.cost_model.machine import Machine, machine_of
from edgeopt.device_profiles import load_profile

HERE = Path(__file__).resolve().parent
DATA = HERE / "emulated_counts.json.gz"
# The median error of the cycle model against published rows is 14% (docs/emulator.md); errors of networks on one core
# have much in common, and there are many small ones.
NOISE = 0.25


def emulated_rows() -> list[Row]:
    """A row for each file and core that was counted."""
    from emulated_counts import CORES

    machines = {core: _machine(core, *where) for core, where in CORES.items()}
    return list(_rows(json.loads(gzip.decompress(DATA.read_bytes())), machines))


def _machine(core: str, profile: str, cluster: int) -> Machine:
    """The one cluster of a profile that was emulated."""
    whole = machine_of(load_profile(profile))
    assert whole.clusters[cluster].core == core
    return replace(whole, name=f"emulated {core}", clusters=(whole.clusters[cluster],))


def _rows(data: dict[str, Any], machines: dict[str, Machine]) -> Iterator[Row]:
    for key, entry in data.items():
        kernels = tuple(Kernel(name=str(i), **fields) for i, fields in enumerate(entry["kernels"]))
        name, precision = key.rsplit(" ", 1)
        for core, counts in entry["counts"].items():
            machine = machines[core]
            guess = cycle_model.estimate(
                Counts(**counts), core, machine.clusters[0].mhz, bandwidth_gb_s=machine.bandwidth_gb_s
            )
            yield Row(
                library="xnnpack", model=name, architecture=key, precision=precision.split("-")[0], threads=1,
                device=machine.name, chip=machine.name, family="emulated", config=machine.name, machine=machine,
                latency_ms=guess.latency_ms, source=DATA.name, era="", noise=NOISE, kernels=kernels,
                origin="emulated",
            )  # fmt: skip
