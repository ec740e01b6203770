"""Report of the cost model's validation: shares, tables, bands, provenance, the plot."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cost_model_validation import Held
from published_rows import Row

COMMAND = "python benchmarks/fit_cost_model.py CSV --write --report docs/cost_model_tables.md --plot docs/cost_model.png"
_LIMITS = (10, 20, 30)


def shares(errors: np.ndarray) -> str:
    """Median error and shares within ±10, ±20 and ±30% of logarithms of predicted over published."""
    found = _figures(errors)
    within = ", ".join(f"±{limit}%: {100 * found[f'within_{limit}']:.0f}%" for limit in _LIMITS)
    return f"median {100 * found['median']:.1f}%, {within} (n = {found['rows']})"


def _figures(errors: np.ndarray) -> dict[str, float]:
    errors = errors[~np.isnan(errors)]
    off = np.abs(np.exp(errors) - 1)
    return {
        "rows": len(off),
        "median": float(np.median(off)),
        **{f"within_{limit}": float(np.mean(off <= limit / 100)) for limit in _LIMITS},
    }


def tables(rows: Sequence[Row], held: Held, left_out: Counter[tuple[str, str]]) -> str:
    """The tables in Markdown."""
    found = [
        "# Tables of the cost model's validation",
        "",
        "Written by benchmarks/fit_cost_model.py; docs/cost_model.md says what they mean. Grade: predicted, against",
        "published.",
        "",
        "| Held out | Rows | ±10% | ±20% | ±30% | Median |",
        "|---|---:|---:|---:|---:|---:|",
        _line("Model, everywhere (its device seen with other models)", held.model),
        _line("Model, on its chip (the model seen on other chips)", held.model_here),
        _line("  floor: another device's figure × the ratio of the other models", held.ratio[0]),
        _line("Model (its chip seen, this run of it not)", held.model_chip),
        _line("Chip", held.chip),
        _line("  of these: its core seen in other chips", held.chip[held.core_known]),
        _line("  of these: its core in no other chip", held.chip[~held.core_known]),
        _line("  floor: another device's figure × the ratio of the peaks", held.datasheet[0]),
        _line("Nothing predicted: two runs of one chip, model, precision and cores", repeated(rows)),
        "",
        "| Not predictions: the same errors, with medians taken out that only the rows held out tell | Rows | ±10% | ±20% | ±30% | Median |",
        "|---|---:|---:|---:|---:|---:|",
        *_ceilings(rows, held),
        "",
        "| Situation of an estimate | 80% band (published / predicted) | Inside a band drawn without the chip |",
        "|---|---:|---:|",
    ]
    inside = coverage(rows, held)
    for name, (low, high) in bands(held).items():
        found.append(f"| {name} | {low:.2f} to {high:.2f} | {100 * inside[name]:.0f}% |")
    for title, key in (
        ("Device family", lambda row: row.family),
        ("Library", lambda row: row.library),
        ("Precision", lambda row: row.precision),
        ("Threads", lambda row: "1" if row.threads == 1 else "2 and more"),
        ("Chip", lambda row: row.chip),
        ("Model", lambda row: row.architecture),
    ):
        found += ["", *_by(title, [key(row) for row in rows], held)]
    found += ["", "| Table | Rows left out | Why |", "|---|---:|---|"]
    for (table, why), count in sorted(left_out.items(), key=lambda item: (item[0][0], -item[1])):
        found.append(f"| {table} | {count} | {why} |")
    return "\n".join(found) + "\n"


def _ceilings(rows: Sequence[Row], held: Held) -> list[str]:
    chips, runs = [row.chip for row in rows], [f"{row.library}|{row.config}" for row in rows]
    models = [f"{row.architecture}|{row.precision}" for row in rows]
    cores = [f"{name}|{row.family}" for name, row in zip(models, rows, strict=True)]
    return [
        _line("Chip, without the median error of each chip", centred(held.chip, chips)),
        _line("Chip, without the median error of each run", centred(held.chip, runs)),
        _line(
            "Model, on its chip, without that of each model and precision", centred(held.model_here, models)
        ),
        _line("  without that of each model, precision and device family", centred(held.model_here, cores)),
        _line("Model, everywhere, without that of each model and precision", centred(held.model, models)),
    ]


def centred(errors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """``errors`` less the median of those of the same name: what a constant a name could mend at most."""
    column, found = np.array(names), errors.copy()
    for name in sorted(set(names)):
        chosen = (column == name) & ~np.isnan(errors)
        if chosen.any():
            found[chosen] -= np.median(errors[chosen])
    return found


def repeated(rows: Sequence[Row]) -> np.ndarray:
    """How far two published runs of the same chip, cores, threads, model and precision differ (logarithms)."""
    runs: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cores = tuple((cluster.core, cluster.mhz, take) for cluster, take in row.machine.chosen(row.threads))
        runs.setdefault((row.library, row.chip, row.architecture, row.precision, cores), []).append(row)
    return np.array(
        [
            np.log(one.latency_ms / other.latency_ms)
            for group in runs.values()
            for i, one in enumerate(group)
            for other in group[:i]
            if one.config != other.config
        ]
    )


def _line(name: str, errors: np.ndarray) -> str:
    if not (~np.isnan(errors)).any():
        return f"| {name} | 0 | | | | |"
    f = _figures(errors)
    within = " | ".join(f"{100 * f[f'within_{limit}']:.0f}%" for limit in _LIMITS)
    return f"| {name.replace('  ', '&nbsp;&nbsp;')} | {f['rows']:,} | {within} | {100 * f['median']:.1f}% |"


def _by(title: str, names: Sequence[str], held: Held) -> list[str]:
    """One table: for each name the model held out and the chip held out, beside the floors."""
    sides = (
        ("Model held out", held.model), ("its floor", None), ("Chip held out", held.chip), ("its floor", None),
    )  # fmt: skip
    head = " | ".join(f"{side} ±10 / ±20 / ±30%, median" for side, _ in sides)
    found = [f"| {title} | Rows | {head} |", "|---|---:|" + "---|" * len(sides)]
    column = np.array(names)
    for name in sorted(set(names)):
        chosen = column == name
        cells = []
        for errors, floor in ((held.model, held.ratio), (held.chip, held.datasheet)):
            cells.append(_cell(errors[chosen]))
            cells.append(_cell(floor[0][chosen[floor[1]]]))
        found.append(f"| {name} | {chosen.sum():,} | {' | '.join(cells)} |")
    return found


def _cell(errors: np.ndarray) -> str:
    if not (~np.isnan(errors)).any():
        return "–"
    f = _figures(errors)
    return (
        " / ".join(f"{100 * f[f'within_{limit}']:.0f}" for limit in _LIMITS) + f"%, {100 * f['median']:.0f}%"
    )


def bands(held: Held | None) -> dict[str, tuple[float, float]]:
    """Situation → 10th and 90th percentile of published over predicted latency, from held-out rows."""
    if held is None:
        return dict.fromkeys(("calibrated", "known_chip", "known_core", "unknown_core"), (0.5, 2.0))
    return {name: _band(errors) for name, errors in situations(held).items()}


def situations(held: Held) -> dict[str, np.ndarray]:
    """Situation of an estimate → held-out rows that were in it."""
    return {
        "calibrated": held.model,
        "known_chip": held.model_chip,
        "known_core": held.chip[held.core_known],
        "unknown_core": held.chip[~held.core_known],
    }


def _band(errors: np.ndarray) -> tuple[float, float]:
    ratios = np.exp(-errors[~np.isnan(errors)])
    if not len(ratios):
        return 0.5, 2.0
    low, high = np.quantile(ratios, (0.1, 0.9))
    return float(min(low, 1.0)), float(max(high, 1.0))


def coverage(rows: Sequence[Row], held: Held) -> dict[str, float]:
    """Situation → share of rows inside a band that was drawn without their chip (each half from the other)."""
    found = {}
    chips = sorted({row.chip for row in rows})
    half = {chip: i % 2 for i, chip in enumerate(np.random.default_rng(1).permutation(chips))}
    side = np.array([half[row.chip] for row in rows])
    sides = {
        "calibrated": side, "known_chip": side,
        "known_core": side[held.core_known], "unknown_core": side[~held.core_known],
    }  # fmt: skip
    for name, errors in situations(held).items():
        inside: list[bool] = []
        for part in (0, 1):
            low, high = _band(errors[sides[name] != part])
            ratios = np.exp(-errors[sides[name] == part])
            ratios = ratios[~np.isnan(ratios)]
            inside.extend((ratios >= low) & (ratios <= high))
        found[name] = float(np.mean(inside))
    return found


def provenance(rows: Sequence[Row], held: Held | None) -> dict[str, Any]:
    """What the constants were learned from, and how they did where they had not been."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "command": COMMAND,
        "rows": len(rows),
        "libraries": dict(Counter(row.library for row in rows).most_common()),
        "sources": dict(Counter(row.source for row in rows).most_common()),
        "chips": len({row.chip for row in rows}),
        "architectures": len({row.architecture for row in rows}),
    }
    if held is not None:
        named = {
            "model": held.model, "model_on_its_chip": held.model_here, "model_without_its_run": held.model_chip, "chip": held.chip,
            "floor_one_ratio": held.ratio[0], "floor_datasheet": held.datasheet[0],
        }  # fmt: skip
        found["held_out"] = {
            name: {key: round(value, 4) for key, value in _figures(errors).items()}
            for name, errors in named.items()
        }
        found["band_coverage"] = {name: round(value, 3) for name, value in coverage(rows, held).items()}
    return found


def plot(rows: Sequence[Row], held: Held, path: Path) -> None:
    """Predicted against published latency, a dot a held-out row, the model left out and the chip left out."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'edgeopt[report]'.") from error
    published = np.array([row.latency_ms for row in rows])
    families = sorted({row.family for row in rows})
    column = np.array([row.family for row in rows])
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    ends = np.array([published.min() * 0.7, published.max() * 1.4])
    for axis, title, errors in zip(
        figure.subplots(1, 2, sharey=True), ("model left out", "chip left out"), (held.model, held.chip), strict=True
    ):  # fmt: skip
        axis.fill_between(ends, ends * 0.8, ends * 1.2, color="#d9d9d9", linewidth=0, label="±20%")
        for i, name in enumerate(families):
            chosen = (column == name) & ~np.isnan(errors)
            # Dots as an image inside the SVG: thousands of vector marks would weigh a megabyte.
            axis.plot(
                published[chosen], (published * np.exp(errors))[chosen], ".", markersize=2.5, alpha=0.6,
                color=f"C{i}", label=name, rasterized=True,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="published latency (ms)")
        axis.set_title(f"{title}: {shares(errors)}", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    first = figure.axes[0]
    first.set_ylabel("predicted latency (ms)")
    first.legend(fontsize=7, frameon=False, markerscale=4)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
