"""Validation of the cost model: models and chips held out, beside what one ratio of two devices would give."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cost_model_fit import EMULATED, Fit
from cost_model_problem import Problem
from published_rows import Row

# Names of the same network in different tables, and its widths and resolutions: held out together.
_FAMILIES = (
    (r"mobilenet(_v1.*)?$", "mobilenet_v1"), (r"mobilenet_v2", "mobilenet_v2"), (r"mobilenet_v3", "mobilenet_v3"),
    (r"efficientnet_lite", "efficientnet_lite"), (r"resnet50", "resnet50"), (r"vgg", "vgg"),
    (r"squeezenet(_1\..)?$", "squeezenet"), (r"(googlenet|inception_v1)$", "googlenet"),
    (r"efficientnet_?v2", "efficientnet_v2"), (r"(deeplabv3|fcn)_resnet", "dilated_resnet"),
    (r"(ssdlite320|lraspp|deeplabv3)_mobilenet_v3", "mobilenet_v3"),
)  # fmt: skip
PARTS = 16  # of the networks of each chip, for leaving a network out of its chip only
_EVALUATIONS = 16  # of a fold, which starts from the fit of all rows


@dataclass(frozen=True)
class Held:
    """Logarithms of predicted over published latency of rows that the prediction never saw; NaN where none is.

    ``model``: the network left out of all devices; ``model_here``: left out of its chip only, so that other chips
    tell of it (what :func:`ratio_floor` knows too); ``model_chip``: as ``model``, without what its run showed (cores of a
    device differ in governor and version); ``chip``: the chip left out; ``ratio`` and ``datasheet``:
    the floors (:func:`ratio_floor`, :func:`datasheet_floor`), one entry a pair of devices.
    """

    model: np.ndarray
    model_here: np.ndarray
    model_chip: np.ndarray
    chip: np.ndarray
    core_known: np.ndarray
    ratio: tuple[np.ndarray, np.ndarray]
    datasheet: tuple[np.ndarray, np.ndarray]


def family(architecture: str) -> str:
    """What is held out together with an architecture."""
    for pattern, name in _FAMILIES:
        if re.match(pattern, architecture):
            return name
    return architecture


def validate(problem: Problem, fit: Fit, folds: int = 0, jobs: int = 1) -> Held:
    """Every row predicted by fits that left out its model, its model on its chip, and its chip.

    ``folds`` groups of models and of chips (0 = one by one), ``jobs`` of them at once.
    """
    # Other rows stay in every fold: they are of networks and cores that no published row is of.
    rows = [row for row in problem.rows if row.origin == "published"]
    models, here, models_chip, chips = (np.full(len(rows), np.nan) for _ in range(4))
    core_known = np.zeros(len(rows), dtype=bool)
    seen = [f"{row.config}|{row.precision}" for row in rows]
    for out, errors, without_run in _held_out(
        fit, _groups([family(r.architecture) for r in rows], folds), jobs
    ):
        there = _run_known(seen, out)
        models[there] = errors[there]
        models_chip[there] = without_run[there]
    for out, errors, _ in _held_out(fit, _groups(_parts(rows), PARTS), jobs):
        there = _run_known(seen, out)
        here[there] = errors[there]
    cores = np.array(problem.core_of_row[: len(rows)])
    for out, errors, _ in _held_out(fit, _groups([row.chip for row in rows], folds), jobs):
        chips[out] = errors[out]
        core_known[out] = np.isin(cores[out], cores[~out])
    return Held(models, here, models_chip, chips, core_known, ratio_floor(rows), datasheet_floor(rows))


def _run_known(seen: Sequence[str], out: np.ndarray) -> np.ndarray:
    """Rows of ``out`` whose run and precision other models were seen in, as the goal says."""
    known = {seen[i] for i in np.flatnonzero(~out)}
    return out & np.array([name in known for name in seen])


def _parts(rows: Sequence[Row]) -> list[str]:
    """A part for each row, such that a part holds of each chip one network in ``PARTS``, of every chip other ones."""
    random = np.random.default_rng(0)
    part: dict[tuple[str, str], int] = {}
    for chip in sorted({row.chip for row in rows}):
        names = sorted({family(row.architecture) for row in rows if row.chip == chip})
        first = random.integers(PARTS)
        for i, j in enumerate(random.permutation(len(names))):
            part[chip, names[j]] = (first + i) % PARTS
    return [f"{part[row.chip, family(row.architecture)]:02d}" for row in rows]


def _held_out(
    fit: Fit, groups: Iterable[np.ndarray], jobs: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows left out, errors of all published rows by the fit without them, the same without what runs showed)."""
    _FITS[:] = [fit]  # forked processes find it here; it would take long to send
    if jobs == 1:
        yield from map(_fold, groups)
        return
    with multiprocessing.get_context("fork").Pool(jobs, initializer=_one_thread) as pool:
        yield from pool.imap(_fold, groups)


_FITS: list[Fit] = []


def _one_thread() -> None:
    # The threads that the fit of all rows left behind aren't in a forked process: it would wait for them for ever.
    torch.set_num_threads(1)


def _fold(out: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = _without(_FITS[0], out)
    return out, left.log_errors()[: len(out)], left.log_errors(runs=False)[: len(out)]


def _groups(names: Sequence[str], folds: int) -> Iterable[np.ndarray]:
    """Masks of the rows to leave out, one a fold."""
    distinct = sorted(set(names))
    count = folds or len(distinct)
    order = np.random.default_rng(0).permutation(len(distinct))
    fold_of = {distinct[j]: i % count for i, j in enumerate(order)}
    each = np.array([fold_of[name] for name in names])
    for i in range(count):
        print(f"\r  fold {i + 1} of {count} ", end="", file=sys.stderr, flush=True)
        yield each == i
    print(file=sys.stderr)


def _without(fit: Fit, out: np.ndarray) -> Fit:
    """The fit of all other rows; what only the rows left out had shaped falls back to its prior first."""
    left = Fit(fit.problem, fit.values)
    every = np.zeros(len(fit.problem.rows), dtype=bool)
    every[: len(out)] = out
    left.forget(every)
    # What other libraries show doesn't depend on this one's own constants.
    own = any(row.library == EMULATED for row, there in zip(fit.problem.rows, every, strict=True) if there)
    left.solve(_EVALUATIONS, (~every).astype(float), rounds=2, own=own)
    return left


def _table(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, list[Row]]:
    """(log latency of run × (model, precision), row number there, one row of each run); NaN and -1 where none."""
    runs = sorted({(row.library, row.config) for row in rows})
    models = sorted({(row.architecture, row.precision) for row in rows})
    values = np.full((len(runs), len(models)), np.nan)
    numbers = np.full(values.shape, -1)
    first: dict[tuple[str, str], Row] = {}
    at_run, at_model = {run: i for i, run in enumerate(runs)}, {model: i for i, model in enumerate(models)}
    for number, row in enumerate(rows):
        where = at_run[row.library, row.config], at_model[row.architecture, row.precision]
        values[where] = np.log(row.latency_ms)
        numbers[where] = number
        first.setdefault((row.library, row.config), row)
    return values, numbers, [first[run] for run in runs]


def ratio_floor(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Another device's figure times one ratio, which the other models of that precision tell (their median).

    Every pair of runs of one library with as many threads on different chips; at least five other models.
    """
    return _floor(rows, datasheet=False)


def datasheet_floor(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Another device's figure times the ratio of the two peaks (cores × clock × multiply-accumulates)."""
    return _floor(rows, datasheet=True)


def _floor(rows: Sequence[Row], *, datasheet: bool) -> tuple[np.ndarray, np.ndarray]:
    errors, numbers = [], []
    for precision in sorted({row.precision for row in rows}):
        values, at, runs = _table([row for row in rows if row.precision == precision])
        original = np.flatnonzero([row.precision == precision for row in rows])
        for i, target in enumerate(runs):
            for j, other in enumerate(runs):
                if (
                    target.chip == other.chip
                    or target.library != other.library
                    or target.threads != other.threads
                ):
                    continue
                step = values[i] - values[j]
                both = np.flatnonzero(~np.isnan(step))
                if len(both) < (1 if datasheet else 6):
                    continue
                if datasheet:
                    found = _peak(other, precision) - _peak(target, precision) - step[both]
                else:
                    found = np.array(
                        [np.median(np.delete(step[both], k)) - step[both[k]] for k in range(len(both))]
                    )
                errors.append(found)
                numbers.append(original[at[i, both]])
    return np.concatenate(errors), np.concatenate(numbers)


def _peak(row: Row, precision: str) -> float:
    from edgeopt.cost_model.analytic import paths_of, place_of

    place = place_of(row.machine, row.threads)
    return float(np.log(place.peaks[paths_of(place, precision)[-1]] * place.ghz * place.speed_sum))
