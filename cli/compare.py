"""``edgeopt compare``: measure files against one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .measuring import (
    Affinity,
    Csv,
    Inputs,
    Markdown,
    NoStore,
    Store,
    Threads,
    UseXnnpack,
    Xnnpack,
    check_stores,
    draw_table,
    emit,
    keep,
    measure_options,
    numbers,
    xnnpack_wanted,
)
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command("compare")(compare)


def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Two or more files, or bundles; the first is the reference.")
    ],
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="Instead of the one the suffix means.")
    ] = None,
    num_threads: Threads = "1",
    cpu_affinity: Affinity = None,
    xnnpack: Xnnpack = True,
    use_xnnpack: UseXnnpack = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of fresh processes.")] = 6,
    margin: Annotated[
        float, typer.Option("--margin", help="Differences below this share are none, e.g. 0.01.")
    ] = 0.01,
    inputs: Inputs = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Only these of a bundle, e.g. tflite.")
    ] = None,
    store: Store = None,
    no_store: NoStore = False,
    csv: Csv = False,
    markdown: Markdown = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Say which file is faster, by how much, and whether that can be told at all.

    The files take turns in short slices, in rounds of fresh processes; a difference is measured twice.
    """
    reporter = Reporter("compare", as_json=as_json, quiet=quiet, verbose=verbose)
    check_stores(store, no_store)
    if not 0 < margin < 1:
        raise InputError(f"--margin is a share between 0 and 1, not {margin:g}.")
    from ..results.artifacts import find_artifacts
    from ..results.compare_records import records_of_comparison
    from ..results.comparison import Effort, contenders_of
    from ..results.comparison import compare as run_compare
    from ..results.records import subject_of

    artifacts = find_artifacts(files, formats.split(",") if formats else ())
    threads = numbers(num_threads, "--num-threads")
    if len(threads) > 1:
        raise InputError("compare takes one number of threads: compare files, or use bench for several.")
    options = measure_options(
        runtime=runtime,
        affinity=cpu_affinity,
        xnnpack=xnnpack_wanted(xnnpack, use_xnnpack),
        inputs=inputs,
        num_threads=threads[0],
    )
    with reporter.progress() as progress:
        outcome = run_compare(
            contenders_of(artifacts, options), Effort(rounds=rounds, margin=margin), progress
        )
    run = records_of_comparison(outcome, artifacts, subject_of(files))
    keep(run, store, no_store, reporter)
    _print(reporter, outcome, run, csv, markdown)
    return 130 if outcome.partial else 0


def _print(reporter: Reporter, outcome: Any, run: Any, csv: bool, markdown: bool) -> None:
    from ..results.compare_records import comparison_rows, comparisons_json
    from ..results.tables import columns_of, heading
    from ..results.tables import markdown as as_markdown

    comparisons = comparisons_json(outcome)
    measurements = [record.as_json() for record in run.records]
    if outcome.partial:
        reporter.warn("interrupted: this rests on the rounds made so far")
    problems = measurements[0]["conditions"]["problems"]
    if problems:
        reporter.warn(f"measured under bad conditions, on both sides alike: {'; '.join(problems)}")
    rows = comparison_rows(outcome, run)

    def draw(console: Console) -> None:
        draw_table(console, rows, columns_of(rows), heading)
        for comparison in comparisons:
            console.print(comparison["sentence"], markup=False, soft_wrap=True)

    emit(
        reporter,
        {"run_id": run.id, "measurements": measurements, "comparisons": comparisons},
        draw,
        csv=csv,
        markdown=as_markdown(rows) if markdown else None,
    )
