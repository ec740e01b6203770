"""``edgeopt analyze``: which layers lose to int8, what they cost, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import export_options as given
from .help_pages import examples
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

    from ..analyze import Sensitivity

_ROWS = 12
_NARROW = 100


def register(app: typer.Typer) -> None:
    """Attach the command to the ``edgeopt`` application."""
    app.command(
        "analyze",
        epilog=examples(
            "edgeopt analyze my_pkg.models:net --profile pixel7 --calibration samples.npz",
        ),
    )(analyze)


def analyze(
    model: Annotated[
        str, typer.Argument(help="package.module:attribute, file.py:attribute, .pt2 or TorchScript file.")
    ],
    profile: given.Profile,
    calibration: given.Calibration = None,
    evaluate: given.Metric = None,
    observer: Annotated[
        str,
        typer.Option(
            "--observer", help="How ranges are found: histogram, min-max, moving-average, percentile."
        ),
    ] = "histogram",
    top: Annotated[int, typer.Option("--top", min=1, help="Layers to show; --json has them all.")] = _ROWS,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the layers into this .png, .svg or .pdf.")
    ] = None,
    example_inputs: given.ExampleInputs = None,
    input_shape: given.InputShape = None,
    model_args: given.ModelArgs = None,
    weights: given.Weights = None,
    trust_pickle: given.TrustPickle = False,
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Rank the layers of MODEL by what int8 does to them, and name the culprits."""
    from ..analyze import analyze as run
    from ..optimizers.observers import check_observer

    reporter = Reporter("analyze", as_json=json_output, quiet=quiet, verbose=verbose)
    _hush_libraries(verbose)
    if plot is not None:
        _check_plot(plot)
    chosen = check_observer(observer)
    with reporter.progress() as progress:
        found = run(
            model,
            profile=profile,
            calibration=calibration,
            evaluate=evaluate,
            observer=chosen,
            progress=progress,
            example_inputs=example_inputs,
            input_shapes=input_shape or (),
            model_args=model_args,
            weights=weights,
            trust_pickle=trust_pickle,
        )
        if plot is not None:
            progress("drawing", None)
            _draw_plot(plot, found)
    payload = {**found.to_dict(), "plot": str(plot) if plot else None, "measurements": found.measurements()}
    reporter.result(payload, lambda console: _draw(console, found, top))
    if plot is not None:
        reporter.note(f"wrote {plot}")


def _hush_libraries(verbose: bool) -> None:
    from .export import _hush_libraries as hush

    hush(verbose)


def _check_plot(path: Path) -> None:
    from ..results.sensitivity_plot import check_plot

    check_plot(path)


def _draw_plot(path: Path, found: Sensitivity) -> None:
    from ..results.sensitivity_plot import draw_sensitivity

    draw_sensitivity(
        path,
        f"{found.model}: sensitivity to int8",
        [layer.path for layer in found.layers],
        [layer.snr_db for layer in found.layers],
        [found.cost_share(layer) for layer in found.layers],
        found.int8_snr_db,
        f"% of the {_basis(found)}",
    )


def _basis(found: Sensitivity) -> str:
    return "predicted time" if found.predicted_ms else "multiply-accumulates"


def _draw(console: Console, found: Sensitivity, top: int) -> None:
    console.print(_table(console, found, top))
    if len(found.layers) > top:
        console.print(f"… and {len(found.layers) - top} more that lose less (--top, --json)", style="dim")
    console.print(
        f"every layer in int8: {found.int8_snr_db:.1f} dB SNR of the outputs on {found.probe_samples} samples, "
        f"ranges from {found.samples}",
        soft_wrap=True,
    )
    if found.metric is not None and found.metric_float is not None and found.metric_int8 is not None:
        size = f" on {found.metric_samples:,} samples" if found.metric_samples else ""
        console.print(
            f"{found.metric}: {found.metric_float:.4f} in float, {found.metric_int8:.4f} in int8{size}"
        )
    if found.goal_path:
        steps = ", ".join(f"{count}: {snr:.1f} dB" for count, snr in found.goal_path)
        console.print(f"with the worst in float, {steps}", soft_wrap=True)
    for culprit in found.culprits:
        console.print(culprit.sentence(), markup=False, soft_wrap=True)
    if not found.culprits:
        console.print("no layer loses enough to be called a culprit")


def _table(console: Console, found: Sensitivity, top: int) -> Any:
    from rich.table import Table

    wide = console.width >= _NARROW
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="ellipsis", no_wrap=True)
    if wide:
        table.add_column("operator", no_wrap=True)
    parts = ("weight", "input", "output") if wide else ()
    for column in ("alone int8", *parts, *([found.metric] if found.metric else []), _cost_title(found)):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in found.layers[:top]:
        cells = [layer.path, *([layer.operator] if wide else []), _db(layer.snr_db)]
        if wide:
            cells += [_db(layer.weight_snr_db), _db(layer.input_snr_db), _db(layer.output_snr_db)]
        if found.metric:
            cells.append("" if layer.metric is None else f"{layer.metric:.4f}")
        table.add_row(*cells, f"{found.cost_share(layer):.1%}")
    return table


def _cost_title(found: Sensitivity) -> str:
    return "time" if found.predicted_ms else "MACs"


def _db(value: float | None) -> str:
    from ..optimizers.sensitivity import EXACT_SNR_DB

    if value is None:
        return ""
    return "exact" if value >= EXACT_SNR_DB else f"{value:.1f} dB"
