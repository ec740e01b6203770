"""``edgeopt estimate``: what a model takes on a device that isn't there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import export_options as given
from .help_pages import examples
from .measuring import draw_table
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

    from ..estimating import ArtifactEstimate, Estimates

_LONGEST_NAME = 44


def register(app: typer.Typer) -> None:
    """Attach the command to the ``edgeopt`` application."""
    app.command(
        "estimate",
        epilog=examples(
            "edgeopt estimate net_pixel7",
            "edgeopt estimate net_pixel7/model.tflite --profile galaxy_s24 --num-threads 1,2",
            "edgeopt estimate my_pkg.models:net -p raspberry_pi_4 --precision fp32,int8-static --per-layer",
        ),
    )(estimate)


def estimate(
    model: Annotated[
        str, typer.Argument(help="A bundle, a .pte or .tflite file, or a model as edgeopt export takes it.")
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "--device",
            "-p",
            help="A name that edgeopt profiles lists, or a TOML file; default: the bundle's own.",
        ),
    ] = None,
    num_threads: Annotated[
        str | None,
        typer.Option(
            "--num-threads",
            "--num_threads",
            help="Thread counts, comma-separated; default: 1 and the fast cores.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="Files of these, or what a float32 file or a model would give in them."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="executorch, litert or tflite_runtime; default: the file's own."),
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Every kernel: its time and what bounds it.")
    ] = False,
    roofline: Annotated[
        Path | None,
        typer.Option(
            "--roofline", help="Draw the first estimate's kernels under the device's ceilings into this .svg."
        ),
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
    """Predict latency, memory and energy of MODEL on a device, from its graph and the device's profile."""
    from ..bundle import device_of
    from ..estimating import estimate as run

    reporter = Reporter("estimate", as_json=json_output, quiet=quiet, verbose=verbose)
    with reporter.progress() as progress:
        found = run(
            model,
            profile=profile or device_of(Path(model)),
            num_threads=_counts(num_threads),
            precision=precision,
            runtime=runtime,
            progress=lambda what: progress(what, None),
            example_inputs=example_inputs,
            input_shapes=input_shape or (),
            model_args=model_args,
            weights=weights,
            trust_pickle=trust_pickle,
        )
    if roofline is not None:
        _draw_roofline(roofline, found)
    for warning in found.warnings:
        reporter.warn(warning)
    payload = {**found.to_dict(per_layer=per_layer), "roofline": str(roofline) if roofline else None}
    reporter.result(
        {key: value for key, value in payload.items() if key != "warnings"},
        lambda console: _draw(console, found, per_layer=per_layer),
    )
    if roofline is not None:
        reporter.note(f"wrote {roofline}")


def _counts(text: str | None) -> tuple[int, ...]:
    from ..errors import InputError

    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--num-threads {text}: give numbers, comma-separated, such as 1,4.") from None


def _draw_roofline(path: Path, found: Estimates) -> None:
    from ..cost_model.roofline import roofline
    from ..results.roofline_plot import draw_roofline

    first = found.items[0]
    title = f"{first.artifact} on {found.profile.title}, {_threads(first)} (predicted)"
    draw_roofline(path, roofline(first.latency, found.profile, title))


def _draw(console: Console, found: Estimates, *, per_layer: bool) -> None:
    rows = [_row(item) for item in found.items]
    draw_table(console, rows, list(rows[0]), spare=("energy", "memory"))
    for item in found.items:
        if per_layer:
            console.print()
            _draw_layers(console, item)
    _draw_words(console, found)


def _row(item: ArtifactEstimate) -> dict[str, str]:
    latency = item.latency
    return {
        "file": item.artifact,
        "threads": str(latency.num_threads),
        "latency": f"{_number(latency.latency_ms)} ms",
        "80% band": f"{_number(latency.low_ms)} to {_number(latency.high_ms)}",
        "memory": f"{_number(item.memory.peak_mib)} MiB",
        "energy": f"{_number(item.energy.dynamic_mj)} mJ" if item.energy else "not known",
        "grade": latency.grade,
    }


def _draw_words(console: Console, found: Estimates) -> None:
    bases = dict.fromkeys(item.latency.basis for item in found.items)
    console.print(f"latency rests on {'; '.join(bases)}", markup=False, soft_wrap=True)
    said: set[str] = set()
    for item in found.items:
        # With more threads the same kernels take the time.
        if item.artifact not in said:
            said.add(item.artifact)
            words = "; ".join(item.advice)
            console.print(f"{item.artifact}, {_threads(item)}: {words}", markup=False, soft_wrap=True)
    for sentence in _over_budget(found.items):
        console.print(sentence, markup=False, soft_wrap=True)
    for each in found.accelerators:
        console.print(each.sentence, markup=False, soft_wrap=True, style="dim")


def _over_budget(items: Sequence[ArtifactEstimate]) -> Iterator[str]:
    """A line for each budget: the files that are over it, each with its figures."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for item in items:
        for over in item.overruns:
            figures = found.setdefault((over.allowed, over.what), {}).setdefault(item.artifact, {})
            figures.setdefault(f"{over.value:.3g} {over.unit}", _threads(item))
    for (allowed, what), files in found.items():
        each = (
            # Memory and size are the same with any number of threads.
            f"{artifact} {', '.join(f'{v} ({t})' if len(figures) > 1 else v for v, t in figures.items())}"
            for artifact, figures in files.items()
        )
        yield f"over {allowed} ({what}): {'; '.join(each)}"


def _draw_layers(console: Console, item: ArtifactEstimate) -> None:
    console.print(f"{item.artifact}, {_threads(item)}", markup=False, style="italic", soft_wrap=True)
    rows = [_layer_row(layer) for layer in item.layers()]
    # A table of no kernels has no columns to take from its first row.
    if rows:
        draw_table(console, rows, list(rows[0]), spare=("KiB", "run by", "kind", "MMAC"))


def _layer_row(layer: dict[str, Any]) -> dict[str, str]:
    bound = {"compute": "arithmetic", "memory": "memory", "dispatch": "its start"}[layer["bound"]]
    return {
        "kernel": _short(layer["name"]),
        "kind": layer["kind"],
        "MMAC": f"{layer['macs'] / 1e6:.2f}",
        "KiB": f"{layer['bytes'] / 1024:.0f}",
        "ms": _number(layer["latency_ms"]),
        "share": f"{layer['share']:.1%}",
        "bound by": f"{bound} ({layer['path']})",
        "run by": layer["delegate"] or "the runtime",
    }


def _short(name: str) -> str:
    """The module of a kernel, of the several that a file may name; of a path (TensorFlow's) its last step."""
    # litert-torch writes "features.2;;features.0;": modules, each with its number where it has several operators.
    parts = [part for part in name.split(";") if part] or [name]
    path = next((part for part in parts if "/" in part), None)
    short = (path.strip("/").rpartition("/")[2].rpartition(".")[2] if path else parts[0]) or name
    return short if len(short) <= _LONGEST_NAME else "…" + short[1 - _LONGEST_NAME :]


def _threads(item: ArtifactEstimate) -> str:
    count = item.latency.num_threads
    return f"{count} thread{'s' if count != 1 else ''}"


def _number(value: float) -> str:
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.4f}"
    )
