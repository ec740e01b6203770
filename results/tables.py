"""Measurements as a table: on the terminal, as CSV, as Markdown. One row a file and configuration."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .summary import file_size

# Column of a row -> its heading, which carries the unit.
_HEADINGS = {
    "artifact": "file",
    "precision": "precision",
    "runtime": "runtime",
    "threads": "threads",
    "latency": "latency ms (95%)",
    "p90": "p90 ms",
    "first": "first run ms",
    "load": "load ms",
    "memory": "peak MiB",
    "size": "size",
}


def bench_rows(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each (artefact, target, runtime, threads), ready to print.

    Args:
        measurements: objects of the JSON list ``measurements``.
    """
    sizes = {m["artifact_sha256"]: m["value"] for m in measurements if m["metric"] == "size_bytes"}
    groups: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for m in measurements:
        if m["metric"] != "size_bytes":
            key = (m["artifact"], m["artifact_sha256"], m["target"], m["runtime"], m["threads"])
            groups.setdefault(key, {})[m["metric"]] = m
    rows = []
    for (artifact, digest, target, runtime, threads), group in groups.items():
        some = next(iter(group.values()))
        latency = group.get("latency_ms")
        row = {
            "artifact": artifact,
            "precision": some["precision"] or "",
            "target": target,
            "runtime": runtime,
            "threads": str(threads),
            "latency": interval(latency) if latency else "",
            "p90": number(latency["details"].get("p90_ms")) if latency else "",
            "first": _value(group, "first_inference_ms"),
            "load": _value(group, "load_ms"),
            "memory": _value(group, "peak_memory_mib"),
            "size": size(sizes.get(digest)),
        }
        if "cosine" in group:
            row["agreement (cosine)"] = f"{group['cosine']['value']:.6f}"
        if "energy_mj" in group:
            row["energy mJ (95%)"] = interval(group["energy_mj"])
        rows.append(row)
    return rows


def columns_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns worth showing: those that say something, and that don't say the same in every row."""
    order = dict.fromkeys([*_HEADINGS, *(key for row in rows for key in row)])
    shown = [c for c in order if any(row.get(c) for row in rows)]
    return [c for c in shown if c != "target" or len({row[c] for row in rows}) > 1]


def heading(column: str) -> str:
    """What stands over a column."""
    return _HEADINGS.get(column, column)


def markdown(rows: Sequence[Mapping[str, str]], columns: Sequence[str] | None = None) -> str:
    """A Markdown table."""
    columns = columns or columns_of(rows)
    lines = ["| " + " | ".join(map(heading, columns)) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    lines += ["| " + " | ".join(row.get(c, "").replace("|", "\\|") for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def csv_of(measurements: Sequence[Mapping[str, Any]]) -> str:
    """One line a measurement, raw numbers, details and conditions in columns of their own."""
    flat = []
    for m in measurements:
        row = {k: v for k, v in m.items() if not isinstance(v, dict | list | tuple)}
        low, high = m.get("ci95") or (None, None)
        row |= {"ci95_low": low, "ci95_high": high, "warnings": "; ".join(m.get("warnings", ()))}
        for part in ("details", "conditions"):
            row |= {f"{part}.{k}": _cell(v) for k, v in (m.get(part) or {}).items() if k != "timeline"}
        flat.append(row)
    names = list(dict.fromkeys(key for row in flat for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def interval(measurement: Mapping[str, Any]) -> str:
    """``1.23 (1.20–1.27)``: the value with its 95% interval; ``partial`` behind it when it was cut short."""
    text = significant(measurement["value"])
    if measurement.get("ci95"):
        low, high = measurement["ci95"]
        text += f" ({significant(low)}–{significant(high)})"
    return text + (" partial" if measurement.get("partial") else "")


def metric_cell(record: Any) -> str:
    """A task metric (a Record, or None) with its number of samples, which says how much it can tell."""
    if record is None:
        return ""
    samples = record.details.get("samples")
    return f"{record.value:.4g}" + (f" on {samples}" if samples else "")


def number(value: float | None) -> str:
    """Three digits; nothing for None."""
    return "" if value is None else significant(value)


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}".rstrip("0") if "e" in text else text


def size(value: float | None) -> str:
    """Bytes as a file's size; empty when unknown."""
    return "" if value is None else file_size(value)


def _value(group: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    return significant(group[metric]["value"]) if metric in group else ""


def _cell(value: Any) -> Any:
    return " ".join(str(item) for item in value) if isinstance(value, list | tuple) else value


def history_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of ``edgeopt history``: one measurement each."""
    return [
        {
            "when (UTC)": str(m["created_at"])[:16].replace("T", " "),
            "run": m["run_id"],
            "file": m["artifact"],
            "metric": m["metric"],
            "value": size(m["value"]) if m["metric"] == "size_bytes" else interval(m),
            "grade": m["grade"],
            "target": m["target"],
            "threads": str(m["threads"] or ""),
            "device": str(m["conditions"].get("device", "")),
            "conditions": "good" if m["conditions"].get("good", True) else "bad",
        }
        for m in found
    ]


def check_rows(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of ``edgeopt gate``: one check each."""
    return [
        {
            "file": c["artifact"],
            "metric": c["metric"],
            "threads": str(c["threads"] or ""),
            "baseline": significant(c["baseline"]),
            "now": significant(c["value"]),
            "ratio": f"{c['ratio']:.3f}",
            "measured": "side by side" if c["side_by_side"] else "alone",
            "verdict": "ok" if c["ok"] else "worse",
        }
        for c in checks
    ]


def op_rows(ops: Sequence[Mapping[str, Any]], most: int = 10) -> list[dict[str, str]]:
    """The most expensive ops of a profile; those not delegated, and those moving data, are marked."""
    ranked = sorted(ops, key=lambda op: -op["ms"])[:most]
    return [
        {
            "op": op["name"],
            "ms": significant(op["ms"]),
            "share": f"{op['share']:.1%}",
            "where": "delegate" if op["delegated"] else "NOT DELEGATED",
            "note": "moves data only" if op["layout"] else "",
            "source": op.get("source") or "",
        }
        for op in ranked
    ]
