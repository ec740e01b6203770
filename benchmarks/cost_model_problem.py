"""Published, emulated and measured rows as flat columns of figures, which the cost model's fit reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from architectures import kernels as architecture_kernels
from published_rows import Row

from edgeopt.cost_model import Kernel
from edgeopt.cost_model.analytic import CLASSES, Place, Work, paths_of, place_of, work_of
from edgeopt.cost_model.machine import PATH_NAMES, core_alias, core_kind

LIBRARIES = ("ncnn", "xnnpack", "xnnpack_32bit", "tflite_2019", "paddle_lite", "mnn")
ERAS = ("2020", "2021", "2023")  # of ncnn; the last is what the constants are for


class Problem:
    """Rows as flat columns: one entry a (row, distinct kernel)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.chips = sorted({row.chip for row in rows if row.origin == "published"})
        self.core_of_row = [_core(row) for row in rows]
        self.cores = sorted({_core(row) for row in rows if row.origin != "emulated"})
        self.configs = sorted({row.config for row in rows})
        self.aliases = sorted({core_alias(core) for core in self.cores})
        self.kinds = sorted({core_kind(core) for core in self.cores})
        self.observed = np.log([row.latency_ms for row in rows])
        self.noise = np.array([row.noise for row in rows])
        self.unequal = [
            i for i, row in enumerate(rows) if len({c.core for c, _ in row.machine.chosen(row.threads)}) > 1
        ]
        columns: dict[str, list[Any]] = {}
        places: dict[str, list[float]] = {}
        index: dict[str, list[int]] = {}
        cache: dict[Any, dict[str, Work]] = {}
        for number, row in enumerate(rows):
            place = place_of(row.machine, row.threads)
            for path, work in _parts(row, place, cache).items():
                for name in _WORK:
                    columns.setdefault(name, []).append(getattr(work, name))
                columns.setdefault("footprint", []).append(np.full(len(work), work.footprint))
                for name, value in {**vars(place), "peak": place.peaks[path]}.items():
                    if name != "peaks":
                        places.setdefault(name, []).append(float(value))
                for name, value in {
                    "length": len(work), "row": number,
                    "path": PATH_NAMES.index(path), "library": LIBRARIES.index(row.library),
                    **self._levels(row), "config": self.configs.index(row.config),
                    "kind": self.kinds.index(core_kind(_core(row))), "era": ERAS.index(row.era or ERAS[-1]),
                }.items():  # fmt: skip
                    index.setdefault(name, []).append(value)
        lengths = np.array(index.pop("length"))
        part = np.repeat(np.arange(len(lengths)), lengths)
        # Places and indices have one entry a part: the kernels of a row that take one path.
        self.index = {n: np.array(v) for n, v in index.items()}
        self.place_parts = {n: np.array(v) for n, v in places.items()}
        self.row = torch.tensor(self.index["row"][part])
        self.work = SimpleNamespace(**{n: torch.tensor(np.concatenate(v)) for n, v in columns.items()})
        self.flat = SimpleNamespace(**{n: torch.tensor(v[part]) for n, v in self.place_parts.items()})
        # A cell is a part × class: entries of one cell share all constants.
        cells, cell = np.unique(part * len(CLASSES) + self.work.cls.numpy(), return_inverse=True)
        self.cell = torch.tensor(cell)
        self.cell_part, self.cell_class = np.divmod(cells, len(CLASSES))
        self.cell_row = self.index["row"][self.cell_part]

    def _levels(self, row: Row) -> dict[str, int]:
        """Core design, core and chip of a row; -1 for emulated ones, which tell nothing of the real ones.

        Measured ones have no chip: a virtual machine doesn't name it.
        """
        if row.origin == "emulated":
            return dict.fromkeys(("alias", "core", "chip"), -1)
        core = _core(row)
        return {
            "alias": self.aliases.index(core_alias(core)),
            "core": self.cores.index(core),
            "chip": self.chips.index(row.chip) if row.origin == "published" else -1,
        }


_WORK = (
    "cls", "work", "per_input", "per_output", "per_position", "activations", "weights", "splits", "count",
)  # fmt: skip


def _parts(row: Row, place: Place, cache: dict[Any, dict[str, Work]]) -> dict[str, Work]:
    """Path → columns of the kernels of ``row`` that take it; ``cache`` is filled with what rows have in common."""
    key = (row.architecture, row.precision, tuple(place.peaks))
    if key not in cache:
        kernels = row.kernels or [
            kernel.at(row.precision)  # type: ignore[arg-type]
            for kernel in architecture_kernels(row.architecture)
        ]
        sorted_out: dict[str, list[Kernel]] = {}
        for kernel in kernels:
            sorted_out.setdefault(paths_of(place, kernel.precision)[-1], []).append(kernel)
        whole = work_of(kernels, merge=True).footprint
        cache[key] = {
            path: replace(work_of(each, merge=True), footprint=whole) for path, each in sorted_out.items()
        }
    return cache[key]


def _core(row: Row) -> str:
    return row.machine.chosen(1)[0][0].core
