"""``edgeopt export``, ``verify`` and ``inspect``: make a bundle, check it again, look into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GateError
from . import export_options as given
from .help_pages import examples
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..planning import Plan


def register(app: typer.Typer) -> None:
    """Attach the commands to the ``edgeopt`` application."""
    app.command(
        "export",
        epilog=examples(
            "edgeopt export my_pkg.models:net --profile pixel7",
            "edgeopt export model.keras --profile pixel7 --precision int8-static --calibration samples.npz",
            "edgeopt export net.py:net -p raspberry_pi_4 --eval net.py:evaluate --max-accuracy-drop 1%",
        ),
    )(export)
    app.command(
        "verify",
        epilog=examples(
            "edgeopt verify net_pixel7",
        ),
    )(verify)
    app.command(
        "inspect",
        epilog=examples(
            "edgeopt inspect net_pixel7/model.tflite --all",
        ),
    )(inspect)


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="package.module:attribute, file.py:attribute, .pt2, TorchScript, .keras, .h5 or SavedModel."
        ),
    ],
    profile: given.Profile,
    formats: given.Formats = None,
    precision: given.Precision = None,
    recipe: given.Recipe = "auto",
    calibration: given.Calibration = None,
    train: given.Train = None,
    evaluate: given.Eval = None,
    max_accuracy_drop: given.MaxAccuracyDrop = None,
    min_snr_db: given.MinSnrDb = None,
    require_full_delegation: given.RequireFullDelegation = False,
    strict: given.Strict = False,
    example_inputs: given.ExampleInputs = None,
    input_shape: given.InputShape = None,
    dynamic_batch: given.DynamicBatch = False,
    model_args: given.ModelArgs = None,
    weights: given.Weights = None,
    trust_pickle: given.TrustPickle = False,
    labels: given.Labels = None,
    mean: given.Mean = None,
    std: given.Std = None,
    name: given.Name = None,
    output: given.Output = None,
    force: given.Force = False,
    no_cache: given.NoCache = False,
    dry_run: given.DryRun = False,
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn MODEL into a verified bundle for a device."""
    reporter = Reporter("export", as_json=json_output, quiet=quiet, verbose=verbose)
    _hush_libraries(verbose)
    options: dict[str, Any] = {
        "profile": profile,
        "precision": precision,
        "recipe": recipe,
        "calibration": calibration,
        "training": train,
        "example_inputs": example_inputs,
        "input_shapes": input_shape or (),
        "dynamic_batch": dynamic_batch,
        "model_args": model_args,
        "weights": weights,
        "trust_pickle": trust_pickle,
        "labels": labels,
        "mean": mean,
        "std": std,
        "name": name,
        "output": output,
        "force": force,
    }
    if formats is not None:
        options["formats"] = tuple(part.strip() for part in formats.split(",") if part.strip())
    from ..gates import Gates, parse_percent
    from ..pipeline import road_of

    drop = None if max_accuracy_drop is None else parse_percent(max_accuracy_drop, "--max-accuracy-drop")
    gates = Gates(drop, require_full_delegation, strict)
    gates.check(evaluate is not None)
    with reporter.progress() as progress:
        make_plan, export_plan = road_of(model)
        plan = make_plan(model, progress=lambda what: progress(what, None), **options)
    # Said before the long part begins, so that nobody waits for what can't work.
    for finding in plan.findings:
        reporter.warn(finding.sentence())
    if dry_run:
        _print_plan(reporter, plan)
        return
    failure: GateError | None = None
    from .recipe_view import going_on

    resumes = any(getattr(recipe, "trains", False) for recipe in getattr(plan, "recipes", ()))
    with going_on(reporter, trains=resumes), reporter.progress() as progress:
        try:
            bundle = export_plan(
                plan,
                gates,
                evaluate=evaluate,
                min_snr_db=min_snr_db,
                use_cache=not no_cache,
                progress=lambda what: progress(what, None),
            )
        except GateError as error:
            failure, bundle = error, error.bundle
    _print_bundle(reporter, bundle, failure)
    if failure is not None:
        raise typer.Exit(failure.exit_code)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a .pte / .tflite file.")],
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a bundle again: hashes, versions, and each file's outputs on the golden inputs."""
    from ..verify import verify_bundle
    from .bundle_view import draw_verification

    reporter = Reporter("verify", as_json=json_output, quiet=quiet, verbose=verbose)
    with reporter.progress() as progress:
        result = verify_bundle(bundle, progress=lambda what: progress(what, None))
    for warning in result.warnings:
        reporter.warn(warning)
    payload = {"bundle": str(bundle), "checks": result.checks, "measurements": result.measurements()}
    reporter.result(
        payload, lambda console: draw_verification(console, result), ok=result.passed, errors=result.failures
    )
    if not result.passed:
        if not json_output:
            from .reporter import print_error

            print_error(f"{bundle}: {'; '.join(result.failures)}.")
        raise typer.Exit(GateError.exit_code)


def inspect(
    file: Annotated[Path, typer.Argument(help="A .pte or .tflite file, or a bundle.")],
    all_ops: Annotated[
        bool, typer.Option("--all", help="List every operator, not the kinds of operators.")
    ] = False,
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List a file's operators, delegates, tensors, sizes and quantisation."""
    from ..converters.file_report import inspect_file
    from .bundle_view import draw_file

    reporter = Reporter("inspect", as_json=json_output, quiet=quiet, verbose=verbose)
    if file.is_dir():
        from ..bundle import load_bundle

        loaded = load_bundle(file)
        files = [loaded.artifact_path(artifact) for artifact in loaded.artifacts]
    else:
        files = [file]
    reports = [inspect_file(path) for path in files]

    def draw(console: Any) -> None:
        for report in reports:
            draw_file(console, report, all_ops=all_ops)

    reporter.result({"files": [report.to_dict() for report in reports]}, draw)


def _hush_libraries(verbose: bool) -> None:
    """The exporters warn about their own insides on stderr; a user can't act on that, but may ask for it."""
    import logging
    import os
    import warnings

    if verbose:
        own = logging.getLogger(__package__.split(".")[0])
        own.setLevel(logging.DEBUG)
        own.addHandler(logging.StreamHandler())
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _print_plan(reporter: Reporter, plan: Plan) -> None:
    from .bundle_view import draw_plan, plan_payload

    reporter.result(plan_payload(plan), lambda console: draw_plan(console, plan))


def _print_bundle(reporter: Reporter, bundle: Bundle, failure: GateError | None) -> None:
    from ..models.findings import not_made_because
    from .bundle_view import bundle_payload, draw_bundle

    manifest = bundle.manifest
    said = [
        *manifest.warnings,
        # What pre-flight found was said before the conversions began.
        *(
            f"{files} {'were' if ' and ' in files else 'was'} not made: {reason}"
            for files, reason in not_made_because(manifest.not_made)
            if reason not in reporter.warnings
        ),
        *(f"{artifact.file}: {warning}" for artifact in bundle.artifacts for warning in artifact.warnings),
    ]
    for warning in said:
        if warning not in reporter.warnings:
            reporter.warn(warning)
    errors = [str(failure)] if failure else []
    reporter.result(
        bundle_payload(bundle), lambda console: draw_bundle(console, bundle), ok=not failure, errors=errors
    )
    if failure and not reporter.as_json:
        from .reporter import print_error

        print_error(str(failure))
