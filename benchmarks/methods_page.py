"""Writes what methods_table.py found into docs/methods.md, between its two marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from methods_anchors import Cells, Gain, anchors, file_of
from methods_catalog import MODELS, Method, Model
from methods_students import SETS, STUDIES, parameters

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
_HEADINGS = (
    "Method", "File", "{metric}", "Difference, points", "Agrees", "Size, kB", "of float", "zlib, kB", "MACs, M", "SNR, dB",
    "Here, µs (95%)", "arm64 instructions, M", "pixel7, µs (80%)", "Check",
)  # fmt: skip


def write(cells: Cells) -> None:
    """Renew the tables; what a person wrote around them stays."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    parts = [_goals(cells), *_students(cells)]
    parts += [_table(model, cells) for model in MODELS.values() if _reference(model, cells)]
    text = "\n\n".join(parts)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _goals(cells: Cells) -> str:
    lines = ["## Goals", "", "| Goal | Found | Holds |", "|---|---|---|"]
    for goal, found, holds in anchors(cells):
        lines.append(f"| {goal} | {found} | {'yes' if holds else '**no**'} |")
    return "\n".join(lines)


def _students(cells: Cells) -> Iterator[str]:
    """Every study of distillation, the ones that a goal is judged by and the others."""
    lines = ["## Students with and without a teacher", ""]
    lines += ["| Data | Student | Alone | With the teacher | Gain |", "|---|---|---|---|---|"]
    heading = len(lines)
    for name in SETS:
        runs = (cells.get((name, "students")) or {"runs": {}})["runs"]
        for study in STUDIES:
            if runs.get(study.title):
                gain = Gain.of(runs[study.title])
                lines.append(
                    f"| {name}, {study.title} | {parameters(study):,} parameters | {gain.alone:.2%} | {gain.taught:.2%} | {gain} |"
                )
    if len(lines) > heading:
        yield "\n".join(lines)


def _reference(model: Model, cells: Cells) -> Mapping[str, Any] | None:
    return cells.get((model.name, "fp32"))


def _table(model: Model, cells: Cells) -> str:
    base = _reference(model, cells)
    assert base is not None
    metric = f"{base['metric_name'].capitalize()} ({base['samples']:,})"
    heading = [part.format(metric=metric) for part in _HEADINGS]
    lines = [f"## {model.title}", "", model.note, ""] if model.note else [f"## {model.title}", ""]
    lines += [
        f"The model in PyTorch: {base['source_metric']:.2%}, {base['parameters']:,} parameters.",
        "",
        f"| {' | '.join(heading)} |",
        "|" + "---|" * len(heading),
    ]
    for method in model.methods:
        cell = cells.get((model.name, method.name))
        if cell is None:
            continue
        for kind in cell["files"]:
            lines.append(f"| {' | '.join(_row(method, kind, cell, base))} |")
        for missing in cell["not_made"]:
            lines.append(f"| {method.title} | {missing['file']} | {missing['sentence']} |")
    return "\n".join(lines)


def _row(method: Method, kind: str, cell: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    file = file_of(cell, kind)
    float_file = base["files"].get(kind)
    ratio = f"{file['size_bytes'] / float_file['size_bytes']:.2f}" if float_file else ""
    return [
        method.title,
        f".{kind}",
        f"{file['metric']:.2%}",
        f"{(file['metric'] - base['source_metric']) * 100:+.2f}",
        f"{file['agreement']:.2%}" if file.get("agreement") is not None else "",
        f"{file['size_bytes'] / 1e3:,.1f}",
        ratio,
        f"{file['zlib_bytes'] / 1e3:,.1f}",
        f"{cell['macs'] / 1e6:.3g}",
        f"{file['snr_db']:.0f}" if file["snr_db"] is not None else "equal",
        _latency(file.get("host")),
        f"{file['emulated']['instructions'] / 1e6:,.2f}" if "emulated" in file else "",
        _latency(file.get("predicted")),
        file["status"],
    ]


def _latency(found: Mapping[str, Any] | None) -> str:
    """``123 (120–130)``, in µs."""
    if found is None:
        return ""
    scale = [found["latency_ms"], *found["band"]]
    digits = 0 if scale[0] >= 0.1 else 1
    value, *interval = (f"{ms * 1e3:,.{digits}f}" for ms in scale)
    return f"{value} ({'–'.join(interval)})" if interval else value
