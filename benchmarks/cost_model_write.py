"""What was learned, as the file that the cost model loads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cost_model_fit import EMULATED, RUNTIME, SHARED, Fit, blocks
from cost_model_problem import LIBRARIES, Problem
from published_rows import devices

from edgeopt.cost_model import constants as constants_module
from edgeopt.cost_model.analytic import CLASSES
from edgeopt.cost_model.constants import ALL, COMPONENTS, Constants
from edgeopt.cost_model.machine import PATH_NAMES, core_alias, core_kind

_WAYS = (ALL, EMULATED)


def constants_of(fit: Fit, bands: Mapping[str, tuple[float, float]]) -> Constants:
    """What the cost model loads."""
    return _constants(fit.problem, fit.unpack(), bands)


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

    return Constants(
        efficiency={
            cls: {path: float(values["efficiency"][i, j]) for j, path in enumerate(PATH_NAMES)}
            for i, cls in enumerate(CLASSES)
        },
        edges={
            name: {
                **{cls: _floats(values["edges"][at, i]) for i, cls in enumerate(CLASSES)},
                **{path: _floats(values["edges_path"][at, i]) for i, path in enumerate(PATH_NAMES)},
            }
            for at, name in enumerate(_WAYS)
        },
        traffic={
            name: {cls: _floats(values["traffic"][at, i]) for i, cls in enumerate(CLASSES)}
            for at, name in enumerate(_WAYS)
        },
        shared={name: float(value) for name, value in zip(SHARED, values["shared"], strict=True)},
        runtimes=runtimes,
        cores=_cores(problem, values),
        chips={
            chip: (tuple(patterns[chip]), _deviations(values["chip"][i]))
            for i, chip in enumerate(problem.chips)
        },
        bands=dict(bands),
    )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _deviations(array: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(COMPONENTS, array, strict=True)}


def _cores(problem: Problem, values: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Core, design and instruction set → what it deviates by, all levels above it included."""
    found = {f"kind:{kind}": _deviations(values["kind"][i]) for i, kind in enumerate(problem.kinds)}
    designs = {}
    for i, alias in enumerate(problem.aliases):
        designs[alias] = values["alias"][i] + values["kind"][problem.kinds.index(core_kind(alias))]
        found[f"like:{alias}"] = _deviations(designs[alias])
    for i, core in enumerate(problem.cores):
        found[core] = _deviations(values["core"][i] + designs[core_alias(core)])
    return found


def prior_constants() -> Constants:
    """The constants before any row was seen."""
    empty = SimpleNamespace(cores=[], chips=[], configs=[], aliases=[], kinds=[])
    found = blocks(empty)  # type: ignore[arg-type]
    wide = dict.fromkeys(("calibrated", "known_chip", "known_core", "unknown_core"), (0.5, 2.0))
    return _constants(empty, {name: block.start for name, block in found.items()}, wide)  # type: ignore[arg-type]


def write_parts(
    constants: Constants, cores: Iterable[str], provenance: Mapping[str, Any], *, library: bool = False
) -> None:
    """Put a part of what was learned into cost_model/fitted.json, and leave the rest as it is.

    Args:
        cores: what these cores and their designs deviate by.
        library: also what is :data:`EMULATED`'s own.
    """
    kept = constants_module.load_constants()
    names = {name for core in cores for name in (core, f"like:{core_alias(core)}")}
    changed: dict[str, Any] = {
        "cores": dict(kept.cores) | {name: constants.cores[name] for name in sorted(names)}
    }
    if library:
        for part in ("runtimes", "edges", "traffic"):
            changed[part] = dict(getattr(kept, part)) | {EMULATED: getattr(constants, part)[EMULATED]}
    write_constants(replace(kept, **changed), dict(kept.provenance) | dict(provenance))


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
