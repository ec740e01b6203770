"""Draws plans, bundles, verifications and files on the terminal, and gives their JSON forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.measure import Measurement
from rich.table import Table

from ..results.summary import file_size, percent, worst_snr
from .recipe_view import draw_passes

if TYPE_CHECKING:
    from rich.console import Console

    from ..bundle import Artifact, Bundle
    from ..converters.file_report import FileReport
    from ..planning import Plan
    from ..verify import Verification


def plan_payload(plan: Plan) -> dict[str, Any]:
    """The JSON form of a plan."""
    return {
        "profile": plan.profile.name,
        "output": str(plan.output),
        "artifacts": [
            {"file": file, "format": name, "precision": recipe.precision}
            for name, recipe, file in plan.files()
        ],
        "choice": list(plan.choice.reasons) if plan.choice else [],
        "findings": [finding.to_dict() for finding in plan.findings],
    }


def draw_plan(console: Console, plan: Plan) -> None:
    """What would be made and why."""
    console.print(f"would write [bold]{plan.output}[/] for {plan.profile.title}")
    for name, recipe, file in plan.files():
        passes = " → ".join(entry["pass"] for entry in recipe.to_dict()["passes"])
        console.print(f"  {file:<24} {name:<7} {recipe.name:<13} {passes}")
    for reason in plan.choice.reasons if plan.choice else ():
        console.print(f"  choice: {reason}", style="dim", soft_wrap=True)


def bundle_payload(bundle: Bundle) -> dict[str, Any]:
    """The JSON form of a bundle: its artefacts, and the figures as measurements with their grade."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "status": manifest.status,
        "profile": manifest.profile["name"],
        "choice": manifest.choice,
        "artifacts": [artifact.model_dump(mode="json") for artifact in manifest.artifacts],
        "not_made": manifest.not_made,
        "evaluation": manifest.evaluation.model_dump(mode="json") if manifest.evaluation else None,
        "measurements": [
            m for artifact in manifest.artifacts for m in _measurements(artifact, manifest.profile["name"])
        ],
    }


def _measurements(artifact: Artifact, profile: str) -> Iterator[dict[str, Any]]:
    common = {"grade": "measured", "artifact": artifact.file, "target": "host"}
    yield {"metric": "size_bytes", "value": artifact.size_bytes, **common}
    for parity in artifact.parity:
        for metric in ("snr_db", "cosine"):
            if parity[metric] is not None:
                yield {"metric": metric, "value": parity[metric], "output": parity["output"], **common}
    if artifact.metric is not None:
        yield {"metric": "accuracy", "value": artifact.metric, **common}
    for each in artifact.predicted:
        row = {
            "metric": "latency_ms",
            "value": each.latency_ms,
            "band80": list(each.band80),
            "threads": each.threads,
        }
        yield {**row, "grade": each.grade, "artifact": artifact.file, "target": profile}
    ratio = artifact.contents.get("delegated_macs_ratio")
    if ratio is not None:
        yield {"metric": "delegated_macs_ratio", "value": ratio, **common}


def draw_bundle(console: Console, bundle: Bundle) -> None:
    """The table an export ends with."""
    manifest = bundle.manifest
    metric = manifest.evaluation
    if manifest.optimization:
        draw_passes(console, manifest.optimization)
    console.print(_fitting_table(console, manifest.artifacts, metric.metric if metric else None))
    if metric is not None:
        size = f" on {metric.samples:,} samples" if metric.samples else ""
        found = (manifest.optimization or {}).get("metric")
        optimized = f", {found:.4f} after the recipe" if found is not None else ""
        console.print(f"source model: {metric.metric} {metric.value:.4f}{optimized}{size}")
    predicted = [each for artifact in manifest.artifacts for each in artifact.predicted]
    if predicted:
        most = max(each.threads for each in predicted)
        threads = f"up to {most} threads" if most > 1 else "one thread"
        console.print(
            f"latency is {predicted[0].grade} from {predicted[0].basis}, on {threads}: edgeopt estimate says more",
            style="dim",
            soft_wrap=True,
        )
    for reason in manifest.choice:
        console.print(f"choice: {reason}", style="dim", soft_wrap=True)
    colour = "green" if bundle.passed else "red"
    console.print(f"[{colour}]{manifest.status}[/] {bundle.path}", soft_wrap=True)


# What a narrow terminal does without, in this order; the summary and --json have it all.
_DISPENSABLE = ("top-1", "integer", "delegated", "predicted")
_UNBOUNDED = 10_000


def _fitting_table(console: Console, artifacts: list[Artifact], metric: str | None) -> Table:
    """The table of artefacts, without as many columns as it takes to fit the terminal."""
    rows = [_cells(artifact, metric) for artifact in artifacts]
    for dropped in range(len(_DISPENSABLE) + 1):
        left_out = _DISPENSABLE[:dropped]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in rows[0] if rows else ():
            if column not in left_out:
                justify = "left" if column in ("file", "precision", "") else "right"
                table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for row in rows:
            table.add_row(*(cell for column, cell in row.items() if column not in left_out))
        unbounded = console.options.update(max_width=_UNBOUNDED)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table


def _cells(artifact: Artifact, metric: str | None) -> dict[str, str]:
    parity = artifact.parity
    top1 = [p["top1_agreement"] for p in parity if p["top1_agreement"] is not None]
    cells = {
        "file": artifact.file,
        "precision": artifact.precision,
        "size": file_size(artifact.size_bytes),
        "SNR": worst_snr(parity),
        "top-1": percent(min(top1)) if top1 else "–",
        "delegated": percent(artifact.contents.get("delegated_macs_ratio")),
        "integer": percent(artifact.contents.get("quantized_macs_ratio")),
    }
    if artifact.predicted:
        best = min(artifact.predicted, key=lambda each: each.latency_ms)
        cells["predicted"] = f"{best.latency_ms:.3g} ms"
    if metric is not None:
        cells[metric] = f"{artifact.metric:.4f}" if artifact.metric is not None else "–"
    cells[""] = "[green]ok[/]" if artifact.status == "verified" else "[red]failed[/]"
    return cells


def draw_verification(console: Console, result: Verification) -> None:
    """One line a check."""
    for check in result.checks:
        mark = "[green]ok[/]    " if check["passed"] else "[red]failed[/]"
        console.print(f"{mark} {check['what']}", soft_wrap=True)


def draw_file(console: Console, report: FileReport, *, all_ops: bool) -> None:
    """What is inside a file."""
    macs = sum(op.macs for op in report.ops)
    console.print(
        f"[bold]{report.path}[/]  {report.format} schema {report.schema_version}, {file_size(report.size_bytes)}"
    )
    for side, tensors in (("input", report.inputs), ("output", report.outputs)):
        for tensor in tensors:
            scale = (
                f"  scale {tensor.quantization[0]:g}, zero point {tensor.quantization[1]}"
                if tensor.quantization
                else ""
            )
            shape = ", ".join("?" if size < 0 else str(size) for size in tensor.shape)
            console.print(f"  {side:<6} {tensor.name}: {tensor.dtype}\\[{shape}]{scale}")
    weights = ", ".join(f"{count:,} {dtype}" for dtype, count in report.weights.items()) or "none"
    console.print(f"  weights: {weights}")
    console.print(
        f"  {macs / 1e6:,.1f} M multiply-accumulates, {percent(report.delegated_macs_ratio)} of them and "
        f"{percent(report.delegated_ops_ratio)} of {len(report.ops)} operators delegated"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("operator", "count" if not all_ops else "shape", "M MACs", "weights", "runs on"):
        table.add_column(column, justify="right" if column in ("count", "M MACs") else "left")
    rows = _each_op(report) if all_ops else _op_kinds(report)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _each_op(report: FileReport) -> Iterator[tuple[str, ...]]:
    for op in report.ops:
        shape = "×".join(str(size) for size in op.output_shape)
        yield (
            op.op,
            shape,
            f"{op.macs / 1e6:,.2f}" if op.macs else "",
            op.weight_dtype or "",
            op.delegate or "runtime kernel",
        )


def _op_kinds(report: FileReport) -> Iterator[tuple[str, ...]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    macs: Counter[tuple[str, str, str]] = Counter()
    for op in report.ops:
        key = (op.op, op.weight_dtype or "", op.delegate or "runtime kernel")
        counts[key] += 1
        macs[key] += op.macs
    for key, count in sorted(counts.items(), key=lambda item: (-macs[item[0]], -item[1])):
        yield key[0], str(count), f"{macs[key] / 1e6:,.2f}" if macs[key] else "", key[1], key[2]
