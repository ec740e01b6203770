"""The fit of the cost model: the prior, and the optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cost_model_problem import ERAS, LIBRARIES, Problem
from scipy import sparse

from edgeopt.cost_model.analytic import (
    CLASSES,
    GROUP_OF_CLASS,
    GROUPS,
    place_of,
    terms,
)
from edgeopt.cost_model.constants import COMPONENTS
from edgeopt.cost_model.machine import PATH_NAMES, core_alias, core_kind

EMULATED = "xnnpack"  # the library that emulated rows are of
# Where the fit starts and what it is held to: (share of the peak for float32) of each class.
EFFICIENCY = {
    "conv_3x3": 1.0, "conv_other": 0.45, "pointwise": 0.55, "depthwise": 0.2, "depthwise_big": 0.25,
    "grouped": 0.25, "linear": 0.4, "matmul": 0.4, "pool": 0.05, "elementwise": 0.15, "softmax": 0.01,
    "norm": 0.05, "layout": 0.15, "other": 0.05,
}  # fmt: skip
# Of that, what is left on each path: the wider the path, the harder to feed.
PATH_SHARE = {"fp32": 1.0, "fp16": 0.8, "int8": 0.6, "dot": 0.4, "i8mm": 0.3}
EDGE = 4.0  # channels or positions whose work is lost at the edges
# Spread of the logarithms of bytes moved for each byte of activations and of weights; Winograd's and unrolled
# convolutions make several of one. XNNPACK's copies read and write once: instructions counted on emulated cores,
# which are all that is known of them, can't tell otherwise.
TRAFFIC = {"conv_3x3": 0.6, "conv_other": 0.6}
OWN_TRAFFIC = TRAFFIC | {"layout": 0.02}
SHARED = {  # constant → (start, spread of its logarithm)
    "overlap_in_order": (1.0, 0.4), "overlap_out_of_order": (1.0, 0.4), "l2_cycles": (0.06, 0.6),
    "llc_cycles": (0.1, 0.6), "dram_core": (1.0, 0.5), "dram_chip": (1.5, 0.4),
}  # fmt: skip
RUNTIME = {
    "dispatch_cycles": (4000.0, 0.7),
    "split": (0.1, 1.0),
    "wake_us": (1.5, 0.7),
    "parallel": (0.03, 0.7),
    "parallel_memory": (0.1, 1.0),
}
# Spreads of the logarithms of what a device may deviate by, level by level: component → spread ("group" for
# each group of kernel classes).
LEVELS = {
    "kind": {"compute": 0.4, "memory": 0.3, "overhead": 0.4, "fp16": 0.2, "int8": 0.6, "group": 0.2},
    "alias": {"compute": 0.25, "memory": 0.25, "overhead": 0.25, "fp16": 0.15, "int8": 0.25, "group": 0.12},
    "core": {"compute": 0.15, "memory": 0.2, "overhead": 0.2, "fp16": 0.1, "int8": 0.15, "group": 0.08},
    "chip": {"compute": 0.12, "memory": 0.2, "overhead": 0.2, "fp16": 0.1, "int8": 0.2, "group": 0.12},
    "config": {"compute": 0.15, "memory": 0.25, "overhead": 0.25, "fp16": 0.1, "int8": 0.12, "group": 0.12},
}
# Levels where a few are far off (a throttled board, a busy phone): Student's t with so many degrees.
TAILED, TAIL = ("chip", "config"), 3.0
ERA_SPREAD = 0.3


def _spreads(level: str) -> list[float]:
    return [LEVELS[level].get(name, LEVELS[level]["group"]) for name in COMPONENTS]


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

    # Enough is known of this library that it may go its own way.
    own = np.where(np.array(LIBRARIES) == EMULATED, 2.0, 1.0)

    def around(start: np.ndarray, spread: Any) -> Block:
        return Block(start, np.broadcast_to(np.asarray(spread, dtype=float), start.shape).copy())

    found = {
        "efficiency": around(base, 0.5),
        # First what other libraries have in common, then that one's own.
        "edges": around(np.full((2, c, 3), np.log(EDGE)), 0.6),
        "edges_path": around(np.zeros((2, p, 3)), 0.4),
        "shared": around(np.log([v for v, _ in SHARED.values()]), [s for _, s in SHARED.values()]),
        "runtime_class": around(np.zeros((n, c)), 0.35 * own[:, None]),
        "runtime_path": around(np.zeros((n, p)), 0.3),
        "runtime_class_path": around(np.zeros((n, c, p)), 0.15 * own[:, None, None]),
        "runtime": around(np.log([[v for v, _ in RUNTIME.values()]] * n), [s for _, s in RUNTIME.values()]),
        "static": around(np.zeros(n), 1.0),
        **{
            level: around(np.zeros((len(names), len(COMPONENTS))), _spreads(level))
            for level, names in (
                ("kind", problem.kinds), ("alias", problem.aliases), ("core", problem.cores), ("chip", problem.chips),
                ("config", problem.configs),
            )
        },
        "traffic": around(
            np.zeros((2, c, 2)), [[[t.get(cls, 0.3)] * 2 for cls in CLASSES] for t in (TRAFFIC, OWN_TRAFFIC)]
        ),
        # Classes in float and in int8, of the years before the last.
        "era": around(np.zeros((len(ERAS) - 1, 2, c)), ERA_SPREAD),
    }  # fmt: skip
    position = 0
    for block in found.values():
        block.slice = slice(position, position + block.start.size)
        position += block.start.size
    return found


class Fit:
    """Constants fitted to the rows that ``weights`` leaves (all by default).

    Values are kept as distances from the prior's middle in units of its spread, so that one ridge of 1 is the prior.
    """

    def __init__(self, problem: Problem, start: np.ndarray | None = None) -> None:
        self.problem = problem
        self.blocks = blocks(problem)
        self.middle = np.concatenate([block.start.ravel() for block in self.blocks.values()])
        self.spread = np.concatenate([block.spread.ravel() for block in self.blocks.values()])
        self.values = self.middle.copy() if start is None else start.copy()
        self.indices = self._indices()
        self.flat = SimpleNamespace(**vars(problem.flat))
        self.flat.speed_sum, self.flat.speed_min = (
            problem.flat.speed_sum.clone(),
            problem.flat.speed_min.clone(),
        )

    def _at(self, block: str, *where: Any) -> np.ndarray:
        """Positions of ``block[where]`` in the vector of all constants; -1 where an index is -1 (none)."""
        shape = self.blocks[block].start.shape
        first: int = self.blocks[block].slice.start
        indices = np.broadcast_arrays(*where)
        there = np.all([index >= 0 for index in indices], axis=0)
        found = first + np.ravel_multi_index([np.maximum(index, 0) for index in indices], shape)
        return np.where(there, found, -1)

    def _indices(self) -> dict[str, list[np.ndarray]]:
        """Term of the formula → positions of the constants that add up to it, for each cell (row × class)."""
        problem = self.problem
        part, cls = problem.cell_part, problem.cell_class
        rows = {name: array[part] for name, array in problem.index.items()}
        library, path = rows["library"], rows["path"]
        own = (library == LIBRARIES.index(EMULATED)).astype(int)
        named: dict[str, list[np.ndarray]] = {
            "efficiency": [
                self._at("efficiency", cls, path), self._at("runtime_class", library, cls),
                self._at("runtime_path", library, path), self._at("runtime_class_path", library, cls, path),
            ],
            **{f"edge_{name}": [self._at("edges", own, cls, i), self._at("edges_path", own, path, i)] for i, name in enumerate(("input", "output", "position"))},
            **{f"traffic_{name}": [self._at("traffic", own, cls, i)] for i, name in enumerate(("activations", "weights"))},
            "static": [self._at("static", library)],
        }  # fmt: skip
        in_order = problem.place_parts["in_order"][part] > 0
        overlap = [list(SHARED).index(f"overlap_{name}") for name in ("in_order", "out_of_order")]
        named["overlap"] = [self._at("shared", np.where(in_order, *overlap))]
        for name in ("l2_cycles", "llc_cycles", "dram_core", "dram_chip"):
            named[name] = [self._at("shared", np.full(len(part), list(SHARED).index(name)))]
        for i, name in enumerate(RUNTIME):
            named[name] = [self._at("runtime", library, i)]
        group = len(COMPONENTS) - len(GROUPS) + GROUP_OF_CLASS[cls]
        fp16, int8 = path == PATH_NAMES.index("fp16"), path >= PATH_NAMES.index("int8")
        named |= {"compute": [], "memory": [], "overhead": []}
        for level in LEVELS:
            where = rows[level]
            for name in ("compute", "memory", "overhead"):
                named[name].append(self._at(level, where, COMPONENTS.index(name)))
            named["compute"].append(self._at(level, where, group))
            for name, applies in (("fp16", fp16), ("int8", int8)):
                named["compute"].append(np.where(applies, self._at(level, where, COMPONENTS.index(name)), -1))
        early = rows["era"] < len(ERAS) - 1
        era = self._at("era", np.minimum(rows["era"], len(ERAS) - 2), int8.astype(int), cls)
        named["compute"].append(np.where(early, era, -1))
        return named

    def _share_out(self) -> None:
        """Give unequal cores the shares of the work that their compute, as known by now, makes of it."""
        problem, found = self.problem, self.unpack()
        compute = COMPONENTS.index("compute")

        def slower(core: str) -> float:
            total = 0.0
            for level, names, name in (
                ("kind", problem.kinds, core_kind(core)), ("alias", problem.aliases, core_alias(core)),
                ("core", problem.cores, core),
            ):  # fmt: skip
                if name in names:
                    total += float(found[level][names.index(name), compute])
            return total

        for number in problem.unequal:
            row = problem.rows[number]
            place = place_of(row.machine, row.threads, slower)
            mine = problem.row == number
            self.flat.speed_sum[mine] = place.speed_sum
            self.flat.speed_min[mine] = place.speed_min

    def _evaluate(self, values: np.ndarray, *, slopes: bool) -> tuple[np.ndarray, Any]:
        """Logarithm of each row's predicted latency; its slopes as a sparse matrix."""
        problem = self.problem
        padded = np.append(values, 0.0)
        columns = {}
        for name, places in self.indices.items():
            total = sum(padded[place] for place in places)
            columns[name] = torch.tensor(total, requires_grad=slopes)
        named = {name: column[problem.cell] for name, column in columns.items()}
        named["static"] = torch.sigmoid(named["static"])
        total = terms(problem.work, self.flat, named, torch.exp).total * problem.work.count
        summed = torch.zeros(len(problem.rows), dtype=total.dtype).index_add(0, problem.row, total)
        logs = torch.log(summed)
        if not slopes:
            return logs.detach().numpy(), None
        logs.sum().backward()
        rows, positions, slope = [], [], []
        for name, places in self.indices.items():
            grad = columns[name].grad
            assert grad is not None
            for place in places:
                keep = place >= 0
                rows.append(problem.cell_row[keep])
                positions.append(place[keep])
                slope.append(grad.numpy()[keep])
        matrix = sparse.coo_matrix(
            (np.concatenate(slope), (np.concatenate(rows), np.concatenate(positions))),
            shape=(len(problem.rows), len(values)),
        )
        return logs.detach().numpy(), matrix.tocsr()

    def solve(
        self, evaluations: int, weights: np.ndarray | None = None, rounds: int = 4, *, own: bool = True
    ) -> None:
        """Maximum a posteriori with a robust loss (soft L1), rows weighted by ``weights`` (0 leaves one out).

        First from the published rows. Then what is XNNPACK's own (and the emulated runs') from its rows and the
        emulated ones, with all that libraries share held: many emulated rows must not speak for other libraries.
        ``own=False`` leaves that second step out.
        """
        origins = np.array([row.origin for row in self.problem.rows])
        chosen = np.ones(len(origins)) if weights is None else weights
        self._solve(
            evaluations, chosen * (origins == "published"), rounds, np.ones(len(self.values), dtype=bool)
        )
        if own and (origins == "emulated").any():
            of_library = np.array([row.library == EMULATED for row in self.problem.rows])
            self._solve(evaluations, chosen * (of_library & (origins != "measured")), 1, self._own())

    def learn_measured(self, evaluations: int) -> None:
        """What the cores of measured rows deviate by, with all else held: many such rows must not speak for others."""
        measured = np.array([row.origin == "measured" for row in self.problem.rows])
        if measured.any():
            self._solve(evaluations, measured.astype(float), 1, self._told_by(measured))

    def _told_by(self, rows: np.ndarray) -> np.ndarray:
        """Which constants of cores, their designs and runs no other rows tell of."""
        free = np.zeros(len(self.values), dtype=bool)
        for name in ("alias", "core", "config"):
            index = self.problem.index[name]
            mine = np.isin(self.problem.index["row"], np.flatnonzero(rows))
            own = np.setdiff1d(index[mine], index[~mine])
            free[self._at(name, own[:, None], np.arange(len(COMPONENTS)))] = True
        return free

    def _own(self) -> np.ndarray:
        """Which constants are :data:`EMULATED`'s alone, or an emulated run's."""
        own = np.zeros(len(self.values), dtype=bool)
        library = LIBRARIES.index(EMULATED)
        for name in ("edges", "edges_path", "traffic"):
            own[self.blocks[name].slice] = (
                np.arange(self.blocks[name].start.size) >= self.blocks[name].start.size // 2
            )
        for name in ("runtime_class", "runtime_path", "runtime_class_path"):
            own[
                self._at(name, library, *np.ogrid[tuple(slice(n) for n in self.blocks[name].start.shape[1:])])
            ] = True
        # What starting a kernel takes shows in counts of networks of many small ones, and in no published row of it.
        own[self._at("runtime", library, list(RUNTIME).index("dispatch_cycles"))] = True
        runs = [i for i, name in enumerate(self.problem.configs) if name.startswith("emulated ")]
        own[self._at("config", np.array(runs)[:, None], np.arange(len(COMPONENTS)))] = True
        return own

    def _solve(self, evaluations: int, weights: np.ndarray, rounds: int, free: np.ndarray) -> None:
        """Where a few may be far off (``TAILED``) the prior is Student's t: each round weighs its squares anew."""
        for _ in range(rounds):
            self._share_out()
            distance = (self.values - self.middle) / self.spread
            hold = np.ones(len(distance))
            for name in TAILED:
                part = self.blocks[name].slice
                hold[part] = (1 + 1 / TAIL) / (1 + distance[part] ** 2 / TAIL)
            self._least_squares(max(3, evaluations // rounds), weights, np.sqrt(hold), free)

    def _least_squares(
        self, evaluations: int, weights: np.ndarray, hold: np.ndarray, free: np.ndarray
    ) -> None:
        from scipy.optimize import least_squares

        problem = self.problem
        observed = problem.observed
        scale = np.sqrt(weights) / problem.noise
        count = len(observed)
        ridge = sparse.diags(hold[free], format="csr")
        widen = sparse.diags(self.spread[free])

        def values(z: np.ndarray) -> np.ndarray:
            found = self.values.copy()
            found[free] = self.middle[free] + self.spread[free] * z
            return found

        def residuals(z: np.ndarray) -> np.ndarray:
            logs, _ = self._evaluate(values(z), slopes=False)
            return np.concatenate([(logs - observed) * scale, hold[free] * z])

        def jacobian(z: np.ndarray) -> Any:
            _, matrix = self._evaluate(values(z), slopes=True)
            return sparse.vstack([sparse.diags(scale) @ matrix[:, free] @ widen, ridge], format="csr")

        def loss(squares: np.ndarray) -> np.ndarray:
            """Soft L1 for the rows, squares for the prior."""
            rho = np.array([squares, np.ones_like(squares), np.zeros_like(squares)])
            root = np.sqrt(1 + squares[:count] / 2)
            rho[:, :count] = 4 * (root - 1), 1 / root, -0.25 / root**3
            return rho

        done = least_squares(
            residuals, ((self.values - self.middle) / self.spread)[free], jac=jacobian, loss=loss, method="trf",
            tr_solver="lsmr", max_nfev=evaluations, ftol=1e-5, xtol=1e-6, gtol=1e-6,
        )  # fmt: skip
        self.values = values(done.x)

    def forget(self, out: np.ndarray) -> None:
        """Put every constant that only the rows ``out`` tell of back to the middle of its prior."""
        used = np.zeros(len(self.values) + 1, dtype=bool)
        told = ~out[self.problem.cell_row]
        for places in self.indices.values():
            for place in places:
                used[place[told]] = True
        self.values = np.where(used[:-1], self.values, self.middle)

    def log_errors(self, *, runs: bool = True) -> np.ndarray:
        """Logarithm of predicted over published of every row; ``runs=False`` leaves out what its run showed."""
        values = self.values.copy()
        self._share_out()
        if not runs:
            values[self.blocks["config"].slice] = 0.0
        return self._evaluate(values, slopes=False)[0] - self.problem.observed

    def unpack(self) -> dict[str, np.ndarray]:
        """The arrays in the vector of all constants."""
        return {
            name: self.values[block.slice].reshape(block.start.shape) for name, block in self.blocks.items()
        }
