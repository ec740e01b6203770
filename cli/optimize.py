"""``edgeopt optimize``: apply a recipe and stop before conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import export_options as given
from .help_pages import examples
from .options import Json, Quiet, Verbose
from .reporter import Reporter


def register(app: typer.Typer) -> None:
    """Attach the command to the ``edgeopt`` application."""
    app.command(
        "optimize",
        epilog=examples(
            "edgeopt optimize my_pkg.models:net --recipe prune.toml --train my_pkg.data:train -o net_pruned",
        ),
    )(optimize)


def optimize(
    model: Annotated[str, typer.Argument(help="package.module:attribute or file.py:attribute.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe file (TOML) or a named recipe.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model.pt2 and report.json.")],
    profile: Annotated[
        str | None,
        typer.Option("--profile", "--device", "-p", help="Device to predict times for; without it none are."),
    ] = None,
    train: given.Train = None,
    calibration: given.Calibration = None,
    evaluate: given.Metric = None,
    example_inputs: given.ExampleInputs = None,
    input_shape: given.InputShape = None,
    model_args: given.ModelArgs = None,
    weights: given.Weights = None,
    trust_pickle: given.TrustPickle = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Train anew; don't go on from an earlier run.")
    ] = False,
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prune, distil, sparsify, fine-tune or quantise MODEL by a recipe, without converting it.

    The folder that is written holds the optimised model as an exported program and a report of every pass.
    An interrupted run goes on where it was when the same command is given again.
    """
    reporter = Reporter("optimize", as_json=json_output, quiet=quiet, verbose=verbose)
    from .export import _hush_libraries
    from .recipe_view import draw_passes, going_on

    _hush_libraries(verbose)
    from ..optimization import optimize as run
    from ..optimizers.capabilities import KIND_OF_PRECISION

    with going_on(reporter), reporter.progress() as progress:
        report = run(
            model,
            recipe=recipe,
            output=output,
            profile=profile,
            training=train,
            calibration=calibration,
            evaluate=evaluate,
            force=force,
            use_cache=not no_cache,
            progress=lambda what: progress(what, None),
            example_inputs=example_inputs,
            input_shapes=input_shape or (),
            model_args=model_args,
            weights=weights,
            trust_pickle=trust_pickle,
        )
    for entry in report["passes"]:
        for warning in entry["warnings"]:
            reporter.warn(warning)
    if KIND_OF_PRECISION[report["precision"]] in ("half", "format"):
        reporter.note(f"{report['precision']} is set when a file is made: model.pt2 is in float32")
    payload = {"output": str(output), "measurements": _measurements(report), **report}

    def draw(console: Any) -> None:
        draw_passes(console, report)
        console.print(f"[green]written[/] {output}", soft_wrap=True)

    reporter.result(payload, draw)


def _measurements(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the optimised model as measurements with their grade."""
    common = {"artifact": "model.pt2", "target": "host"}
    found = [
        {"metric": name, "value": report[name][1], "before": report[name][0], "grade": "measured", **common}
        for name in ("parameters", "macs", "weight_bytes")
    ]
    if report.get("metric") is not None:
        before, after = report["metric"]
        name = report["metric_name"]
        found.append({"metric": name, "value": after, "before": before, "grade": "measured", **common})
    return found
