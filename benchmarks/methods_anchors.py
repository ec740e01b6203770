"""What the methods have to achieve, each with what was found: the first table of docs/methods.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from methods_students import STUDIES

Cells = Mapping[tuple[str, str], Mapping[str, Any] | None]
Anchor = tuple[str, str, bool]
# A file of this share of the float one's bytes counts as small.
SMALL = 0.35
KEPT_GAIN = 0.8


def anchors(cells: Cells) -> Iterator[Anchor]:
    """(goal, what was found, whether it holds), for all whose cells are there."""
    for model in ("mnist", "fashion"):
        yield from _drop(cells, model, "int8-static", 0.5)
        yield from _drop(cells, model, "qat", 0.2)
        yield from _pruned(cells, model)
        yield from _distilled(cells, model)
        yield from _mixed(cells, model)
        yield from _sparse(cells, model)
    yield from _small(cells, "lite0", 1.0)
    yield from _small(cells, "minilm", 2.0)
    yield from _small(cells, "speakers", 2.0)


def file_of(cell: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What is known of the cell's .pte or .tflite file."""
    file: Mapping[str, Any] = cell["files"][kind]
    return file


def _drop(cells: Cells, model: str, method: str, points: float) -> Iterator[Anchor]:
    cell = cells.get((model, method))
    if cell is None:
        return
    gained = {kind: (file["metric"] - cell["source_metric"]) * 100 for kind, file in cell["files"].items()}
    found = ", ".join(f".{kind} {value:+.2f}" for kind, value in gained.items())
    yield (
        f"{model}, {method}: at most {_points(points)} below float",
        f"{found} points of {cell['samples']:,}",
        min(gained.values()) >= -points,
    )


def _pruned(cells: Cells, model: str) -> Iterator[Anchor]:
    cell, base = cells.get((model, "prune50")), cells.get((model, "fp32"))
    if cell is None or base is None:
        return
    removed = 1 - cell["macs"] / base["macs"]
    lost = max((cell["source_metric"] - file["metric"]) * 100 for file in cell["files"].values())
    yield (
        f"{model}: 50% of the multiply-accumulates pruned, at most 1 point lost",
        f"{removed:.1%} pruned, {-lost:+.2f} points",
        removed >= 0.5 and lost <= 1.0,
    )


def _distilled(cells: Cells, model: str) -> Iterator[Anchor]:
    runs = (cells.get((model, "students")) or {"runs": {}})["runs"]
    for study in STUDIES:
        if study.goal and runs.get(study.title):
            gain = Gain.of(runs[study.title])
            yield (
                f"{model}, {study.title}: a distilled student at least 1 point above the same student alone",
                f"{gain.alone:.2%} → {gain.taught:.2%}, {gain}",
                gain.mean >= 1.0,
            )


@dataclass(frozen=True)
class Gain:
    """What a teacher is worth, in percentage points over the same student alone."""

    alone: float
    taught: float
    gains: tuple[float, ...]

    @classmethod
    def of(cls, runs: Sequence[Sequence[float]]) -> Gain:
        """From pairs of accuracies (alone, taught), one a seed."""
        alone, taught = (sum(side) / len(runs) for side in zip(*runs, strict=True))
        return cls(alone, taught, tuple((with_ - without) * 100 for without, with_ in runs))

    @property
    def mean(self) -> float:
        return sum(self.gains) / len(self.gains)

    def __str__(self) -> str:
        if len(self.gains) == 1:
            return f"{self.mean:+.2f} points, 1 seed"
        spread = f"{min(self.gains):+.2f} to {max(self.gains):+.2f}"
        return f"{self.mean:+.2f} points, mean of {len(self.gains)} seeds ({spread})"


def _mixed(cells: Cells, model: str) -> Iterator[Anchor]:
    names = ("outliers-fp32", "outliers-int8", "outliers-mixed")
    found = [cells.get((model, name)) for name in names]
    if any(cell is None for cell in found):
        return
    full, int8, mixed = (cell for cell in found if cell is not None)
    for kind in mixed["files"]:
        files = [file_of(cell, kind) for cell in (full, int8, mixed)]
        broken, lost = ((full["source_metric"] - file["metric"]) * 100 for file in files[1:])
        gains = {"size": _kept([file["size_bytes"] for file in files])}
        if all("emulated" in file for file in files):
            gains["instructions"] = _kept([file["emulated"]["instructions"] for file in files])
        words = ", ".join(f"{value:.0%} of the gain in {name}" for name, value in gains.items())
        goal = f"mixed at most 0.5 points below float, at least {KEPT_GAIN:.0%} of int8's gain kept"
        yield (
            f"{model} with outlier channels, .{kind}: {goal}",
            f"int8 {-broken:+.2f}, mixed {-lost:+.2f} points; {words}",
            lost <= 0.5 and all(value >= KEPT_GAIN for value in gains.values()),
        )


def _sparse(cells: Cells, model: str) -> Iterator[Anchor]:
    cell, base = cells.get((model, "sparse80")), cells.get((model, "fp32"))
    if cell is None or base is None:
        return
    for kind, file in cell["files"].items():
        dense = file_of(base, kind)
        if "emulated" not in file or "emulated" not in dense:
            continue
        saved = 1 - file["emulated"]["instructions"] / dense["emulated"]["instructions"]
        packed = 1 - file["zlib_bytes"] / dense["zlib_bytes"]
        yield (
            f"{model}, 80% of the weights 0, .{kind}: the compressed file shrinks; said to save no time",
            f"{saved:.0%} of the instructions, {packed:.0%} of the compressed file saved",
            packed > 0.2
            and abs(saved) < 0.02
            and any("saves no time" in words for words in cell["warnings"]),
        )


def _small(cells: Cells, model: str, points: float) -> Iterator[Anchor]:
    """For each format the most accurate file that is small enough."""
    base = cells.get((model, "fp32"))
    if base is None:
        return
    for kind in base["files"]:
        room = SMALL * file_of(base, kind)["size_bytes"]
        files = {
            method: file_of(cell, kind)
            for (name, method), cell in cells.items()
            if name == model and cell is not None and kind in cell["files"]
        }
        smallest = min(file["size_bytes"] for file in files.values()) / file_of(base, kind)["size_bytes"]
        goal = f"{model}, .{kind}: at most {_points(points)} below float in {SMALL:g} of its bytes"
        small = {method: file for method, file in files.items() if file["size_bytes"] <= room}
        if not small:
            yield goal, f"the smallest file has {smallest:.2f} of the bytes", False
            continue
        method = max(small, key=lambda name: small[name]["metric"])
        gained = (small[method]["metric"] - base["source_metric"]) * 100
        share = small[method]["size_bytes"] / file_of(base, kind)["size_bytes"]
        weights = small[method]["contents"].get("quantized_weights_ratio")
        words = f", {weights:.0%} of the weight bytes in int8" if weights is not None else ""
        yield goal, f"{method}: {gained:+.2f} points, {share:.2f} of the bytes{words}", -gained <= points


def _points(value: float) -> str:
    return f"{value:g} point" if value == 1 else f"{value:g} points"


def _kept(values: list[float]) -> float:
    """Share of what int8 saves over float that mixed saves too."""
    full, int8, mixed = values
    return (full - mixed) / (full - int8) if full > int8 else 0.0
