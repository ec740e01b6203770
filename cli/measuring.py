"""What the measuring commands share: their options, and how measurements leave the program."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

    from ..android_harness.measure import MeasureOptions
    from ..android_harness.power import PowerMeter
    from ..results.records import Run

# The parts of the help pages.
HOW = "How it is measured"
ENERGY = "Energy"
ON_DEVICES = "On a phone or board"
KEPT = "What is kept and printed"

Threads = Annotated[
    str,
    typer.Option(
        "--num-threads", "--num_threads", "-t", help="CPU threads, e.g. 1 or 1,2,4.", rich_help_panel=HOW
    ),
]
Affinity = Annotated[
    str | None,
    typer.Option(
        "--cpu-affinity", help="CPUs to run on, e.g. 0,1 or 4-7.", show_default=False, rich_help_panel=HOW
    ),
]
Xnnpack = Annotated[
    bool,
    typer.Option(
        "--xnnpack/--no-xnnpack", help="Let LiteRT use XNNPACK.", show_default=True, rich_help_panel=HOW
    ),
]
UseXnnpack = Annotated[
    str | None,
    typer.Option("--use_xnnpack", help="true or false: the same, as benchmark_model spells it.", hidden=True),
]
Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", help="An .npz with the inputs, by name or in order; else random values."),
]
Runtime = Annotated[
    str | None, typer.Option("--runtime", help="Instead of the one the suffix means.", rich_help_panel=HOW)
]
EmulatedDevice = Annotated[
    str | None,
    typer.Option(
        "--profile", "--device", "-p", help="The device to emulate, or the one expected over adb or ssh."
    ),
]
Formats = Annotated[str | None, typer.Option("--format", help="Only these of a bundle, e.g. tflite.")]
MaxTime = Annotated[
    float, typer.Option("--max-time", help="Seconds a configuration may take.", rich_help_panel=HOW)
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Database URL of the results (default: SQLite in the user's data folder).",
        rich_help_panel=KEPT,
    ),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Don't keep the results.", rich_help_panel=KEPT)]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, one line a measurement.", rich_help_panel=KEPT)]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.", rich_help_panel=KEPT)]


def numbers(text: str, option: str) -> tuple[int, ...]:
    """``1,2,4`` or ``4-7`` as integers.

    Raises:
        InputError: naming the option.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise InputError(f"{option} takes numbers like 1,2,4 or 4-7, not {text!r}.") from None
    if not found:
        raise InputError(f"{option} takes numbers like 1,2,4 or 4-7, not {text!r}.")
    return tuple(dict.fromkeys(found))


def xnnpack_wanted(switch: bool, spelled: str | None) -> bool:
    """``--no-xnnpack`` and ``--use_xnnpack=false`` mean the same.

    Raises:
        InputError: neither true nor false.
    """
    if spelled is None:
        return switch
    if spelled.lower() not in ("true", "1", "false", "0"):
        raise InputError(f"--use_xnnpack takes true or false, not {spelled!r}.")
    return spelled.lower() in ("true", "1")


def keep(run: Run, store: str | None, no_store: bool, reporter: Reporter) -> None:
    """Put a run into the store, unless it isn't wanted. A store that fails is a warning: the figures stay.

    What was wrong with a --store was said before anything was measured (:func:`check_stores`).
    """
    if no_store:
        return
    from ..errors import EdgeoptError
    from ..results.store import Store as ResultStore

    try:
        place = ResultStore(store)
        place.add(run)
        place.close()
        reporter.note(f"kept as {run.id}")
    except EdgeoptError as error:
        reporter.warn(f"the results were not kept: {error}")


def emit(
    reporter: Reporter,
    payload: dict[str, Any],
    draw: Callable[[Console], None],
    *,
    csv: bool,
    markdown: str | None,
    errors: Sequence[str] = (),
) -> None:
    """Print a result in the form asked for: JSON, CSV, Markdown or the terminal's table."""
    if csv and markdown is not None:
        raise InputError("--csv and --markdown exclude each other.")
    if csv or markdown is not None:
        if reporter.as_json:
            raise InputError("--json excludes --csv and --markdown.")
        from ..results.tables import csv_of

        typer.echo(csv_of(payload["measurements"]) if csv else markdown, nl=False)
    else:
        reporter.result(payload, draw, ok=not errors, errors=list(errors))
    if not reporter.as_json:
        from .reporter import print_error

        for message in errors:
            print_error(message)


def check_stores(store: str | None, no_store: bool) -> None:
    """Refuse a store that can't be used before anything is measured.

    Raises:
        InputError, EdgeoptError: what is wrong with it.
    """
    if store and no_store:
        raise InputError("--store and --no-store exclude each other.")
    if store:
        from ..results.store import Store as ResultStore

        ResultStore(store).close()


def measure_options(
    *,
    runtime: str | None,
    affinity: str | None,
    xnnpack: bool,
    inputs: Path | None,
    **others: Any,
) -> MeasureOptions:
    """The options of the protocol out of those of the command line."""
    from ..android_harness.measure import MeasureOptions

    return MeasureOptions(
        runtime=runtime,
        cpu_affinity=numbers(affinity, "--cpu-affinity") if affinity else (),
        use_xnnpack=xnnpack,
        inputs=inputs,
        **others,
    )


def find_meter(name: str | None, reporter: Reporter) -> PowerMeter | None:
    """The power meter asked for; that there is none at all is a warning, a wrong name an error."""
    from ..android_harness.power import choose_meter, find_meters

    try:
        return choose_meter(name, find_meters())
    except InputError as error:
        if name:
            raise
        reporter.warn(str(error))
        return None


def _is_figure(cell: str) -> bool:
    # "2026-11-27" and "2x a76" begin with a digit and are words.
    return not cell or (cell[0].isdigit() and re.match(r"\d{4}-\d\d-\d\d|\d+x ", cell) is None)


def draw_table(
    console: Console,
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    heading: Callable[[str], str] = str,
    *,
    spare: Sequence[str] = (),
) -> None:
    """A plain table: words to the left, numbers to the right.

    Args:
        spare: columns to leave out, first one first, while the terminal is too narrow. Into a pipe all of
            them go.
    """
    from rich.markup import escape
    from rich.table import Table

    kept = list(columns)

    def natural() -> int:
        return sum(max(len(heading(c)), *(len(row.get(c, "")) for row in rows)) + 2 for c in kept) - 2

    if not console.is_terminal:
        console.width = max(console.width, natural())
    for column in spare:
        if natural() > console.width and column in kept:
            kept.remove(column)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in kept:
        is_number = all(_is_figure(row.get(column, "")) for row in rows)
        # A figure stays in one piece; names go on in the next line where there is no room.
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(heading(column), justify=justify, no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row.get(column, "")) for column in kept))
    console.print(table)
