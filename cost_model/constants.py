"""The learned constants: a data file written by benchmarks/fit_cost_model.py, and how it is looked up."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .analytic import CLASSES, GROUP_OF_CLASS, GROUPS
from .machine import Machine, core_alias, core_kin, core_kind

ALL = "all"  # libraries without edges and traffic of their own
# What is known of a core, a chip or a calibrated device: logarithms of factors on time.
COMPONENTS = ("compute", "memory", "overhead", "fp16", "int8", *(f"group_{name}" for name in GROUPS))
# Runtimes that share their kernels.
KERNELS_OF = {
    "executorch": "xnnpack", "litert": "xnnpack", "tflite_runtime": "xnnpack", "xnnpack": "xnnpack",
    "ncnn": "ncnn", "tflite_2019": "tflite_2019", "paddle_lite": "paddle_lite", "mnn": "mnn",
}  # fmt: skip
_INT8_PATHS = ("int8", "dot", "i8mm")


@dataclass(frozen=True)
class Constants:
    """All that was learned; every figure is a natural logarithm unless its name says otherwise.

    Attributes:
        efficiency: class → path → share of the peak.
        edges: kernel library (:data:`ALL` for those without an entry) → class → (input, output, position), and
            path → what is added to those.
        traffic: likewise → class → (activations, weights): bytes that move for each byte of the tensors.
        shared: the memory's and the overlap's constants; ``overlap_in_order`` and ``overlap_out_of_order``.
        runtimes: kernel library → ``class.<c>``, ``path.<p>``, ``class_path.<c>.<p>``, ``dispatch_cycles``,
            ``split``, ``wake_us``, ``parallel``, ``parallel_memory``, ``static`` (0 to 1).
        cores: core (or ``like:`` a design, or ``kind:`` an instruction set) → component → factor on time.
        chips: chip → (patterns, component → factor on time).
        bands: situation → (low, high): the 10th and 90th percentile of published over predicted latency.
        provenance: what it was learned from.
    """

    efficiency: Mapping[str, Mapping[str, float]]
    edges: Mapping[str, Mapping[str, Sequence[float]]]
    traffic: Mapping[str, Mapping[str, Sequence[float]]]
    shared: Mapping[str, float]
    runtimes: Mapping[str, Mapping[str, float]]
    cores: Mapping[str, Mapping[str, float]]
    chips: Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]]
    bands: Mapping[str, tuple[float, float]]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Of all learned figures (not the bands): a calibration corrects those it was fitted on top of, no others."""
        figures = (
            self.efficiency, self.edges, self.traffic, self.shared, self.runtimes, self.cores, self.chips
        )  # fmt: skip
        return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()[:16]

    def log_efficiency(self, library: str, path: str) -> np.ndarray:
        """Share of the peak of each class on ``path`` with the kernels of ``library`` (logarithms)."""
        learned = self.runtimes[library]
        return np.array(
            [
                self.efficiency[name][path]
                + learned.get(f"class.{name}", 0.0)
                + learned.get(f"path.{path}", 0.0)
                + learned.get(f"class_path.{name}.{path}", 0.0)
                for name in CLASSES
            ]
        )

    def edge_columns(self, library: str, path: str) -> np.ndarray:
        """(class, 3) array of the edges' logarithms with the kernels of ``library`` on ``path``."""
        edges = self.edges.get(library, self.edges[ALL])
        return np.array([edges[name] for name in CLASSES]) + np.array(edges.get(path, (0.0, 0.0, 0.0)))

    def traffic_columns(self, library: str) -> np.ndarray:
        """(class, 2) array: what is added to the logarithms of the bytes of activations and weights."""
        traffic = self.traffic.get(library, self.traffic[ALL])
        return np.array([traffic[name] for name in CLASSES])

    def core_factors(self, core: str) -> Mapping[str, float]:
        """What is known of a core, else of the cores of its design, of a design like it, of its instruction set."""
        for name in (core, f"like:{core_alias(core)}", f"like:{core_kin(core)}", f"kind:{core_kind(core)}"):
            if name in self.cores:
                return self.cores[name]
        return {}

    def chip_factors(self, chip: str) -> tuple[str, Mapping[str, float]] | None:
        """(name, factors) of the published chip that a profile's ``soc`` names, or None."""
        for name, (patterns, factors) in self.chips.items():
            if any(re.search(pattern, chip, re.IGNORECASE) for pattern in patterns):
                return name, factors
        return None


def device_factors(
    constants: Constants, machine: Machine, core: str, *, path: str
) -> tuple[np.ndarray, dict[str, float]]:
    """What is known of core, chip and device for one path: (factor of each class, what it has for memory and overhead)."""
    total = dict.fromkeys(COMPONENTS, 0.0)
    chip = constants.chip_factors(machine.chip)
    for source in (constants.core_factors(core), chip[1] if chip else {}, machine.factors):
        for name, value in source.items():
            if name in total:
                total[name] += value
    compute = total["compute"]
    if path == "fp16":
        compute += total["fp16"]
    if path in _INT8_PATHS:
        compute += total["int8"]
    groups = np.array([total[f"group_{name}"] for name in GROUPS])
    rest = {
        "memory": total["memory"],
        # Published latencies don't tell memory from caches; a calibration with large networks does.
        "past_l2": machine.factors.get("past_l2", 0.0),
        "dram": machine.factors.get("dram", 0.0),
        "overhead": total["overhead"],
    }
    return compute + groups[GROUP_OF_CLASS], rest


@cache
def load_constants(path: Path | None = None) -> Constants:
    """The constants that ship with edgeopt, or those of another file of the same form.

    Raises:
        InputError: the file is missing or of another form.
    """
    source = path or Path(__file__).with_name("fitted.json")
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        return Constants(
            efficiency=data["efficiency"],
            edges=data["edges"],
            traffic=data["traffic"],
            shared=data["shared"],
            runtimes=data["runtimes"],
            cores=data["cores"],
            chips={name: (tuple(entry["match"]), entry["factors"]) for name, entry in data["chips"].items()},
            bands={name: (low, high) for name, (low, high) in data["bands"].items()},
            provenance=data["provenance"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{source} holds no constants of the cost model ({type(error).__name__}: {error}); write it with "
            "benchmarks/fit_cost_model.py."
        ) from error


def library_of(runtime: str, constants: Constants) -> str:
    """The kernel library behind a runtime.

    Raises:
        InputError: a runtime that nothing was learned of.
    """
    library = KERNELS_OF.get(runtime)
    if library is None or library not in constants.runtimes:
        known = ", ".join(name for name, kernels in KERNELS_OF.items() if kernels in constants.runtimes)
        raise InputError(f"no latency can be estimated for runtime {runtime!r}; known: {known}.")
    return library
