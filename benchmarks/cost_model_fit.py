"""The fit of the cost model: published rows as columns of figures, the prior, the optimiser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from architectures import kernels as architecture_kernels
from published_rows import Row, devices

from edgeopt.cost_model import constants as constants_module
from edgeopt.cost_model.analytic import CLASSES, GROUP_OF_CLASS, GROUPS, paths_of, place_of, terms, work_of
from edgeopt.cost_model.constants import COMPONENTS, Constants
from edgeopt.cost_model.machine import PATH_NAMES

LIBRARIES = ("ncnn", "xnnpack", "tflite_2019", "paddle_lite", "mnn")
# Where the fit starts and what it is held to: (share of the peak for float32) of each class.
EFFICIENCY = {
    "conv_3x3": 1.0, "conv_other": 0.45, "pointwise": 0.55, "depthwise": 0.2, "depthwise_big": 0.25,
    "grouped": 0.25, "linear": 0.4, "matmul": 0.4, "pool": 0.05, "elementwise": 0.15, "softmax": 0.01,
    "norm": 0.05, "layout": 0.15, "other": 0.05,
}  # fmt: skip
# Of that, what is left on each path: the wider the path, the harder to feed.
PATH_SHARE = {"fp32": 1.0, "fp16": 0.8, "int8": 0.6, "dot": 0.4, "i8mm": 0.3}
EDGE = 4.0  # channels or positions whose work is lost at the edges
SHARED = {  # constant → (start, spread of its logarithm)
    "overlap_in_order": (1.0, 0.4), "overlap_out_of_order": (1.0, 0.4), "l2_cycles": (0.06, 0.6),
    "llc_cycles": (0.1, 0.6), "dram_core": (1.0, 0.5), "dram_chip": (1.5, 0.4),
}  # fmt: skip
RUNTIME = {"dispatch_cycles": (4000.0, 0.7), "wake_us": (1.5, 0.7), "parallel": (0.03, 0.7)}
# Spreads of the logarithms of what may deviate: by component.
CORE_SPREAD = {"compute": 0.35, "memory": 0.35, "overhead": 0.35, "fp16": 0.2, "int8": 0.25}
CHIP_SPREAD = {"compute": 0.12, "memory": 0.3, "overhead": 0.3, "fp16": 0.1, "int8": 0.2}
GROUP_SPREAD = {"core": 0.15, "chip": 0.12}
CONFIG_SPREAD = {"compute": 0.08, "memory": 0.15, "overhead": 0.2}
NOISE = 0.08  # of a published row: versions, governors, temperature


class Problem:
    """Rows as flat columns: one entry a (row, distinct kernel)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.chips = sorted({row.chip for row in rows})
        self.cores = sorted({_core(row) for row in rows})
        self.configs = sorted({row.config for row in rows})
        self.observed = torch.tensor(np.log([row.latency_ms for row in rows]))
        columns: dict[str, list[Any]] = {}
        places: dict[str, list[float]] = {}
        index: dict[str, list[int]] = {}
        cache: dict[tuple[str, str], Any] = {}
        for row in rows:
            key = (row.architecture, row.precision)
            if key not in cache:
                cache[key] = work_of(
                    [kernel.at(row.precision) for kernel in architecture_kernels(row.architecture)],  # type: ignore[arg-type]
                    merge=True,
                )
            work = cache[key]
            for name in (
                "cls",
                "work",
                "per_input",
                "per_output",
                "per_position",
                "activations",
                "weights",
                "count",
            ):
                columns.setdefault(name, []).append(getattr(work, name))
            columns.setdefault("footprint", []).append(np.full(len(work), work.footprint))
            place = place_of(row.machine, row.threads)
            path = paths_of(place, row.precision)[-1]
            index.setdefault("length", []).append(len(work))
            for name, value in {**vars(place), "peak": place.peaks[path]}.items():
                if name != "peaks":
                    places.setdefault(name, []).append(float(value))
            for name, value in {
                "path": PATH_NAMES.index(path), "library": LIBRARIES.index(row.library),
                "core": self.cores.index(_core(row)), "chip": self.chips.index(row.chip),
                "config": self.configs.index(row.config),
            }.items():  # fmt: skip
                index.setdefault(name, []).append(value)
        lengths = torch.tensor(index.pop("length"))
        self.row = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        self.work = SimpleNamespace(**{n: torch.tensor(np.concatenate(v)) for n, v in columns.items()})
        self.place_rows = {n: torch.tensor(v) for n, v in places.items()}
        self.index = {n: torch.tensor(v) for n, v in index.items()}
        self.flat = SimpleNamespace(**{n: v[self.row] for n, v in self.place_rows.items()})
        self.flat_index = {n: v[self.row] for n, v in self.index.items()}


def _core(row: Row) -> str:
    return row.machine.chosen(1)[0][0].core


def _spreads(kind: Mapping[str, float], group: float) -> list[float]:
    return [kind.get(name, group) for name in COMPONENTS]


@dataclass
class Block:
    """One array of constants: its start, and the spread of its prior around that."""

    start: np.ndarray
    spread: np.ndarray
    slice: Any = None


def blocks(problem: Problem) -> dict[str, Block]:
    """Every array that is learned."""
    c, p, n = len(CLASSES), len(PATH_NAMES), len(LIBRARIES)
    base = np.log([[EFFICIENCY[cls] * PATH_SHARE[path] for path in PATH_NAMES] for cls in CLASSES])

    def around(start: np.ndarray, spread: Any) -> Block:
        return Block(start, np.broadcast_to(np.asarray(spread, dtype=float), start.shape).copy())

    found = {
        "efficiency": around(base, 0.5),
        "edges": around(np.full((c, 3), np.log(EDGE)), 0.6),
        "shared": around(np.log([v for v, _ in SHARED.values()]), [s for _, s in SHARED.values()]),
        "runtime_class": around(np.zeros((n, c)), 0.35),
        "runtime_path": around(np.zeros((n, p)), 0.3),
        "runtime_class_path": around(np.zeros((n, c, p)), 0.15),
        "runtime": around(np.log([[v for v, _ in RUNTIME.values()]] * n), [s for _, s in RUNTIME.values()]),
        "static": around(np.zeros(n), 1.0),
        "core": around(np.zeros((len(problem.cores), len(COMPONENTS))), _spreads(CORE_SPREAD, GROUP_SPREAD["core"])),
        "chip": around(np.zeros((len(problem.chips), len(COMPONENTS))), _spreads(CHIP_SPREAD, GROUP_SPREAD["chip"])),
        "config": around(np.zeros((len(problem.configs), 3)), list(CONFIG_SPREAD.values())),
    }  # fmt: skip
    position = 0
    for block in found.values():
        block.slice = slice(position, position + block.start.size)
        position += block.start.size
    return found


class Fit:
    """Constants fitted to the rows that ``weights`` leaves (all by default)."""

    def __init__(self, problem: Problem, start: np.ndarray | None = None) -> None:
        self.problem = problem
        self.blocks = blocks(problem)
        self.middle = np.concatenate([block.start.ravel() for block in self.blocks.values()])
        self.spread = np.concatenate([block.spread.ravel() for block in self.blocks.values()])
        self.values = self.middle.copy() if start is None else start.copy()

    def unpack(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The arrays in a vector of all constants."""
        return {name: flat[block.slice].reshape(block.start.shape) for name, block in self.blocks.items()}

    def log_latency(self, flat: torch.Tensor) -> torch.Tensor:
        """Logarithm of the predicted latency of each row."""
        problem, values, at = self.problem, self.unpack(flat), self.problem.flat_index
        rows = problem.index
        shared = dict(zip(SHARED, values["shared"], strict=True))
        cls = problem.work.cls
        group = torch.tensor(GROUP_OF_CLASS)[cls]
        known = values["core"][rows["core"]] + values["chip"][rows["chip"]]
        config = values["config"][rows["config"]]
        path = rows["path"]
        compute = known[:, COMPONENTS.index("compute")] + config[:, 0]
        compute = compute + torch.where(
            path == PATH_NAMES.index("fp16"), known[:, COMPONENTS.index("fp16")], 0.0
        )
        compute = compute + torch.where(
            path >= PATH_NAMES.index("int8"), known[:, COMPONENTS.index("int8")], 0.0
        )
        grouped = known[:, len(COMPONENTS) - len(GROUPS) :]
        library, paths = at["library"], at["path"]
        efficiency = (
            values["efficiency"][cls, paths] + values["runtime_class"][library, cls]
            + values["runtime_path"][library, paths] + values["runtime_class_path"][library, cls, paths]
        )  # fmt: skip
        edges = values["edges"][cls]
        runtime = values["runtime"][library]
        named = {
            "efficiency": efficiency,
            "edge_input": edges[:, 0], "edge_output": edges[:, 1], "edge_position": edges[:, 2],
            "overlap": torch.where(problem.flat.in_order > 0, shared["overlap_in_order"], shared["overlap_out_of_order"]),
            **{name: shared[name] for name in ("l2_cycles", "llc_cycles", "dram_core", "dram_chip")},
            **{name: runtime[:, i] for i, name in enumerate(RUNTIME)},
            "static": torch.sigmoid(values["static"])[library],
            "compute": compute[problem.row] + grouped[problem.row, group],
            "memory": (known[:, COMPONENTS.index("memory")] + config[:, 1])[problem.row],
            "overhead": (known[:, COMPONENTS.index("overhead")] + config[:, 2])[problem.row],
        }  # fmt: skip
        total = terms(problem.work, problem.flat, named, torch.exp).total * problem.work.count
        summed = torch.zeros(len(problem.rows), dtype=total.dtype).index_add(0, problem.row, total)
        return torch.log(summed)

    def solve(self, iterations: int, weights: np.ndarray | None = None) -> None:
        """Maximum a posteriori with a robust loss (soft L1), rows weighted by ``weights`` (0 leaves one out)."""
        from scipy.optimize import minimize

        chosen = torch.ones(len(self.problem.rows)) if weights is None else torch.tensor(weights)
        middle, spread = torch.tensor(self.middle), torch.tensor(self.spread)

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            flat = torch.tensor(x, requires_grad=True)
            residual = (self.log_latency(flat) - self.problem.observed) / NOISE
            data = (chosen * (torch.sqrt(1 + residual**2 / 2) - 1) * 2).sum()
            loss = data + 0.5 * (((flat - middle) / spread) ** 2).sum()
            loss.backward()
            assert flat.grad is not None
            return float(loss.detach()), flat.grad.numpy().copy()

        done = minimize(
            objective, self.values, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 30}
        )
        self.values = done.x

    def log_errors(self) -> np.ndarray:
        """Logarithm of predicted over published of every row."""
        with torch.no_grad():
            found = self.log_latency(torch.tensor(self.values)) - self.problem.observed
        return np.asarray(found)

    def constants(self, bands: Mapping[str, tuple[float, float]]) -> Constants:
        """What the cost model loads."""
        values = {name: array.numpy() for name, array in self.unpack(torch.tensor(self.values)).items()}
        return _constants(self.problem, values, bands)


def _constants(
    problem: Problem, values: Mapping[str, np.ndarray], bands: Mapping[str, tuple[float, float]]
) -> Constants:
    runtimes = {}
    for i, library in enumerate(LIBRARIES):
        named = {f"class.{cls}": values["runtime_class"][i, j] for j, cls in enumerate(CLASSES)}
        named |= {f"path.{path}": values["runtime_path"][i, j] for j, path in enumerate(PATH_NAMES)}
        named |= {
            f"class_path.{cls}.{path}": values["runtime_class_path"][i, j, k]
            for j, cls in enumerate(CLASSES)
            for k, path in enumerate(PATH_NAMES)
            if abs(values["runtime_class_path"][i, j, k]) > 1e-4
        }
        named |= {name: values["runtime"][i, j] for j, name in enumerate(RUNTIME)}
        named["static"] = 1 / (1 + np.exp(-values["static"][i]))
        runtimes[library] = {name: float(value) for name, value in named.items()}
    patterns: dict[str, list[str]] = {}
    for entry in devices().values():
        patterns.setdefault(entry["chip"], []).extend(
            p for p in entry.get("match", []) if p not in patterns.get(entry["chip"], [])
        )

    def deviations(array: np.ndarray) -> dict[str, float]:
        return {name: float(value) for name, value in zip(COMPONENTS, array, strict=True)}

    return Constants(
        efficiency={
            cls: {path: float(values["efficiency"][i, j]) for j, path in enumerate(PATH_NAMES)}
            for i, cls in enumerate(CLASSES)
        },
        edges={cls: tuple(float(v) for v in values["edges"][i]) for i, cls in enumerate(CLASSES)},  # type: ignore[misc]
        shared={name: float(value) for name, value in zip(SHARED, values["shared"], strict=True)},
        runtimes=runtimes,
        cores={core: deviations(values["core"][i]) for i, core in enumerate(problem.cores)},
        chips={
            chip: (tuple(patterns[chip]), deviations(values["chip"][i]))
            for i, chip in enumerate(problem.chips)
        },
        bands=dict(bands),
    )


def prior_constants() -> Constants:
    """The constants before any row was seen."""
    empty = SimpleNamespace(cores=[], chips=[], configs=[])
    found = blocks(empty)  # type: ignore[arg-type]
    wide = dict.fromkeys(("calibrated", "known_chip", "known_core", "unknown_core"), (0.5, 2.0))
    return _constants(empty, {name: block.start for name, block in found.items()}, wide)  # type: ignore[arg-type]


def write_constants(constants: Constants, provenance: Mapping[str, Any]) -> None:
    """Write cost_model/fitted.json, atomically."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 5)
        if isinstance(value, Mapping):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(item) for item in value]
        return value

    data = {
        name: rounded(value) for name, value in vars(constants).items() if name not in ("provenance", "chips")
    }
    data["chips"] = {
        name: {"match": list(match), "factors": rounded(factors)}
        for name, (match, factors) in constants.chips.items()
    }
    text = json.dumps({"schema_version": 1, "provenance": dict(provenance), **data}, indent=1)
    # One line for each list of plain figures keeps the file readable in a diff.
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    target = Path(constants_module.__file__).with_name("fitted.json")
    part = target.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(target)
