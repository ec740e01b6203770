"""``edgeopt history`` and ``edgeopt gate``: what was measured before, and whether it got worse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GateError, InputError
from .help_pages import examples
from .measuring import (
    HOW,
    Affinity,
    Csv,
    EmulatedDevice,
    Inputs,
    Markdown,
    MaxTime,
    NoStore,
    Runtime,
    Store,
    Xnnpack,
    check_stores,
    draw_table,
    emit,
    keep,
    measure_options,
)
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Attach the commands."""
    app.command(
        "history",
        epilog=examples(
            "edgeopt history net_pixel7 --since 2026-11-01",
        ),
    )(history)
    app.command(
        "gate",
        epilog=examples(
            "edgeopt bench net_pixel7 --json > baseline.json",
            "edgeopt gate net_pixel7 --baseline baseline.json --max-regression 5%",
            "edgeopt gate net_pixel7 --on emulator --profile pixel7 --baseline counts.json",
        ),
    )(gate)


def history(
    artifact: Annotated[str | None, typer.Argument(help="Part of a file's or bundle's name.")] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="e.g. latency_ms (default), size_bytes, all.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only this target, e.g. host.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only from this date on, e.g. 2026-11-01.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")] = 50,
    store: Store = None,
    csv: Csv = False,
    markdown: Markdown = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List stored measurements, newest first."""
    reporter = Reporter("history", as_json=as_json, quiet=quiet, verbose=verbose)
    from ..results.store import Store as ResultStore
    from ..results.tables import history_rows
    from ..results.tables import markdown as as_markdown

    place = ResultStore(store, to_read=True)
    wanted = None if metric == "all" or (run_id and not metric) else metric or "latency_ms"
    found = place.history(
        artifact=artifact, metric=wanted, target=target, run_id=run_id, since=since, limit=limit or None
    )
    place.close()
    rows = history_rows(found)
    columns = list(rows[0]) if rows else []

    def draw(console: Console) -> None:
        if rows:
            same = ("metric",) if len({row["metric"] for row in rows}) == 1 else ()
            draw_table(
                console, rows, columns, spare=("conditions", "device", "threads", "target", *same, "run")
            )
        else:
            console.print("nothing stored matches")

    emit(
        reporter,
        {"measurements": found},
        draw,
        csv=csv,
        markdown=(as_markdown(rows, columns) if rows else "") if markdown else None,
    )


def gate(
    files: Annotated[list[Path], typer.Argument(help="Model files or bundles to check.")],
    baseline: Annotated[
        str,
        typer.Option(
            "--baseline", help="A run's id, a JSON file of edgeopt bench, or the older file or bundle."
        ),
    ],
    on: Annotated[str, typer.Option("--on", help="Where: host or emulator (counts, no noise).")] = "host",
    profile: EmulatedDevice = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Emulator: write the counts to --baseline.")
    ] = False,
    max_regression: Annotated[
        str, typer.Option("--max-regression", help="What may be lost, e.g. 5% or 0.05.")
    ] = "5%",
    metrics: Annotated[
        str,
        typer.Option(
            "--metric",
            help="One or several of latency_ms, peak_memory_mib, size_bytes, ...; comma-separated.",
        ),
    ] = "latency_ms",
    runtime: Runtime = None,
    cpu_affinity: Affinity = None,
    xnnpack: Xnnpack = True,
    rounds: Annotated[
        int, typer.Option("--rounds", help="Rounds when measuring side by side.", rich_help_panel=HOW)
    ] = 6,
    max_time: MaxTime = 20.0,
    inputs: Inputs = None,
    store: Store = None,
    no_store: NoStore = False,
    csv: Csv = False,
    markdown: Markdown = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Fail (exit 3) when a file has become worse than its baseline."""
    reporter = Reporter("gate", as_json=as_json, quiet=quiet, verbose=verbose)
    if not no_store:
        check_stores(store, no_store)
    limit = share(max_regression, "--max-regression")
    if on not in ("host", "emulator"):
        raise InputError(f"--on {on} is not known: files can be gated on host and emulator.")
    if on == "emulator":
        from .emulated import gate_emulated

        return gate_emulated(
            reporter,
            files,
            baseline=Path(baseline),
            profile=profile,
            max_regression=limit,
            metrics=["instructions"] if metrics == "latency_ms" else metrics.split(","),
            inputs=inputs,
            write_baseline=write_baseline,
            store=store,
            no_store=no_store,
        )
    from ..results.artifacts import find_artifacts
    from ..results.comparison import Effort
    from ..results.gate import gate as run_gate
    from ..results.gate import load_baseline
    from ..results.records import Run, subject_of
    from ..results.tables import check_rows
    from ..results.tables import markdown as as_markdown

    options = measure_options(
        runtime=runtime, affinity=cpu_affinity, xnnpack=xnnpack, inputs=inputs, max_time_s=max_time
    )
    artifacts = find_artifacts(files)
    against = load_baseline(baseline, store)
    with reporter.progress() as progress:
        checks, records = run_gate(
            artifacts,
            against,
            max_regression=limit,
            metrics=metrics.split(","),
            options=options,
            effort=Effort(rounds=rounds),
            progress=progress,
        )
    run = Run("gate", subject_of(files), tuple(records))
    keep(run, store, no_store, reporter)
    failed = [check.sentence for check in checks if not check.ok]
    rows = check_rows([check.as_json() for check in checks])

    def draw(console: Console) -> None:
        same = [c for c in ("metric", "threads") if len({row[c] for row in rows}) == 1]
        draw_table(console, rows, list(rows[0]), spare=("measured", *same))
        for check in checks:
            if check.ok:
                console.print(check.sentence, markup=False, soft_wrap=True)

    payload: dict[str, Any] = {
        "run_id": run.id,
        "measurements": [record.as_json() for record in records],
        "checks": [check.as_json() for check in checks],
    }
    emit(
        reporter,
        payload,
        draw,
        csv=csv,
        markdown=as_markdown(rows, list(rows[0])) if markdown else None,
        errors=failed,
    )
    return GateError.exit_code if failed else 0


def share(text: str, option: str) -> float:
    """``5%`` or ``0.05`` as 0.05.

    Raises:
        InputError: not a share of 0 or more.
    """
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 100:
        raise InputError(f"{option} takes a share like 5% or 0.05, not {text!r}.")
    return value
