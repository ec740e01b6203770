"""``edgeopt compare``: measure files against one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EdgeoptError, InputError
from . import interrupts
from .help_pages import examples
from .measuring import (
    HOW,
    Affinity,
    Csv,
    Formats,
    Inputs,
    Markdown,
    NoStore,
    Runtime,
    Store,
    Threads,
    UseXnnpack,
    Xnnpack,
    check_stores,
    draw_table,
    emit,
    find_meter,
    keep,
    measure_options,
    numbers,
    xnnpack_wanted,
)
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

    from ..android_harness.server import ServerOptions
    from ..results.comparison import Comparison
    from ..results.records import Record, Run

_SERVER = "PyTorch on a server"


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command(
        "compare",
        epilog=examples(
            "edgeopt compare net_pixel7",
            "edgeopt compare old.tflite new.tflite --num-threads 2",
        ),
    )(compare)


def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Two or more files, or bundles; the first is the reference.")
    ],
    runtime: Runtime = None,
    num_threads: Threads = "1",
    cpu_affinity: Affinity = None,
    xnnpack: Xnnpack = True,
    use_xnnpack: UseXnnpack = None,
    rounds: Annotated[
        int, typer.Option("--rounds", help="Rounds of fresh processes.", rich_help_panel=HOW)
    ] = 6,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", help="Differences below this share are none, e.g. 0.01.", rich_help_panel=HOW
        ),
    ] = 0.01,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Compare with PyTorch too, on cpu or cuda.",
            rich_help_panel=_SERVER,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The source model for --server and --eval, as for edgeopt export."),
    ] = None,
    server_precision: Annotated[
        str,
        typer.Option(
            "--server-precision",
            help="fp32, fp16, bf16, int8, int8_weights, or several: fp32,int8.",
            rich_help_panel=_SERVER,
        ),
    ] = "fp32",
    server_compile: Annotated[
        bool,
        typer.Option(
            "--server-compile", help="Run the source model through torch.compile.", rich_help_panel=_SERVER
        ),
    ] = False,
    largest_batch: Annotated[
        int, typer.Option("--largest-batch", help="Where the batch sweep ends.", rich_help_panel=_SERVER)
    ] = 64,
    power: Annotated[
        bool, typer.Option("--power", help="Energy of each file and of the server, where there is a meter.")
    ] = False,
    evaluate: Annotated[
        str | None,
        typer.Option("--eval", help="Task metric beside the latency: module:function, or FILE.npz."),
    ] = None,
    inputs: Inputs = None,
    formats: Formats = None,
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
    if evaluate is not None and model is None:
        raise InputError("--eval runs on the source model's inputs: name it with --model.")
    from ..results.artifacts import find_artifacts
    from ..results.beside import measure_beside
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
    meter = find_meter(None, reporter) if power else None
    # The GPU has a meter of its own; on the CPU the warning that there is none is said once.
    server_power = power and (server == "cuda" or meter is not None)
    servers = _server_options(server, model, server_precision, server_compile, largest_batch, server_power)
    subject = subject_of(files)
    with reporter.progress() as progress:
        if len(artifacts) == 1 and servers:
            from ..results.bench import bench

            outcome, run = None, bench(artifacts, options, subject=subject, progress=progress).run
        else:
            effort = Effort(rounds=rounds, margin=margin)
            outcome = run_compare(contenders_of(artifacts, options), effort, progress)
            run = records_of_comparison(outcome, artifacts, subject)
        latencies = [record for record in run.records if record.metric == "latency_ms"]
        records, failures = measure_beside(
            latencies, artifacts, options, model=model, evaluate=evaluate, meter=meter, progress=progress
        )
        for one in servers:
            progress(f"{model} on {one.device}, {one.precision}", None)
            try:
                records += _measure_server(str(model), one, evaluate, reporter)
            except EdgeoptError as error:  # the files' figures are not lost with it
                failures.append(error)
    run = replace(run, command="compare", records=(*run.records, *records))
    keep(run, store, no_store, reporter)
    errors = [str(failure) for failure in failures]
    partial = outcome is not None and outcome.partial
    if partial:
        errors.append(interrupts.sentence("this rests on the rounds made so far"))
    _print(reporter, outcome, run, csv, markdown, errors)
    if partial:
        return interrupts.shown()
    return max((failure.exit_code for failure in failures), default=0)


def _server_options(
    server: str | None, model: str | None, precisions: str, compiled: bool, largest: int, power: bool
) -> list[ServerOptions]:
    if server is None:
        return []
    from ..android_harness.server import PRECISIONS, ServerOptions

    if server not in ("cpu", "cuda"):
        raise InputError(f"--server is cpu or cuda, not {server!r}.")
    if model is None:
        raise InputError("--server runs the source model: name it with --model, as for edgeopt export.")
    unknown = [p for p in precisions.split(",") if p not in PRECISIONS]
    if unknown:
        raise InputError(f"--server-precision knows {', '.join(PRECISIONS)}, not {unknown[0]!r}.")
    return [
        ServerOptions(device=server, precision=p, compiled=compiled, largest_batch=largest, energy=power)
        for p in precisions.split(",")
    ]


def _measure_server(
    model: str, options: ServerOptions, evaluate: str | None, reporter: Reporter
) -> list[Record]:
    from ..android_harness.server import measure_server
    from ..results.server_records import server_records

    result, conditions = measure_server(model, options, evaluate)
    if result["int8_share"] is not None and result["int8_share"] < 0.9:
        share = f"{result['int8_share']:.0%}"
        reporter.warn(f"server, {options.precision}: {share} of the parameters are int8, the others float32")
    for sentence in result["notes"]:
        reporter.warn(f"server, {options.precision}: {sentence}")
    return server_records(model, options, result, conditions)


def _print(
    reporter: Reporter,
    outcome: Comparison | None,
    run: Run,
    csv: bool,
    markdown: bool,
    errors: Sequence[str],
) -> None:
    from ..android_harness.measure import worst_of
    from ..results.compare_records import comparison_rows, comparisons_json
    from ..results.server_records import server_rows
    from ..results.tables import columns_of, heading
    from ..results.tables import markdown as as_markdown
    from ..results.trust import trust_lines

    comparisons = comparisons_json(outcome) if outcome is not None else []
    measurements = [record.as_json() for record in run.records]
    if outcome is not None:
        problems = measurements[0]["conditions"]["problems"]
        if problems:
            reporter.warn(f"measured under bad conditions, on both sides alike: {'; '.join(problems)}")
    else:
        for line in trust_lines([m for m in measurements if m["target"] == "host"]):
            reporter.warn(line)
    served = worst_of(
        p for m in measurements if m["target"] != "host" for p in m["conditions"].get("problems", ())
    )
    if served:
        reporter.warn(f"the server was measured under bad conditions: {'; '.join(served)}")
    rows = comparison_rows(outcome, run) if outcome is not None else []
    if any(record.target != "host" for record in run.records):
        rows = server_rows(run.records)

    def draw(console: Console) -> None:
        spare = ("SNR dB", "size", "runtime", *(("precision", "latency") if outcome is not None else ()))
        draw_table(console, rows, columns_of(rows), heading, spare=spare)
        for comparison in comparisons:
            console.print(comparison["sentence"], markup=False, soft_wrap=True)

    emit(
        reporter,
        {"run_id": run.id, "measurements": measurements, "comparisons": comparisons},
        draw,
        csv=csv,
        markdown=as_markdown(rows) if markdown else None,
        errors=errors,
    )
