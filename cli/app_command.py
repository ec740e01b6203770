"""``edgeopt app``: a bundle as a module for an Android, Swift or C++ project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .help_pages import examples
from .options import Json, Quiet, Verbose
from .reporter import Reporter


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command(
        "app",
        epilog=examples(
            "edgeopt app net_pixel7 --package com.acme.vision -o net_android",
            "edgeopt app net_pixel7 --update -o net_android",
        ),
    )(make_app)


def make_app(
    bundle: Annotated[Path, typer.Argument(help="A bundle that edgeopt export made.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make, or to update.")],
    package: Annotated[
        str | None, typer.Option("--package", help="The code's package, like com.acme.vision.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option("--platform", help="android (default), swift or cpp.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", help="Which of the bundle's files; default: its first.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Replace the model and its wrapper, keep your own edits.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --update: also when callers break or edits are lost.")
    ] = False,
    json_output: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn BUNDLE into an Android library module, a Swift package or a C++ example."""
    reporter = Reporter("app", as_json=json_output, quiet=quiet, verbose=verbose)
    if force and not update:
        raise InputError("--force goes with --update: without it, a folder that exists is never replaced.")
    if package is None and not update:
        raise InputError("--package is missing: give the code's package, like --package com.acme.vision.")
    from ..android_harness.app import generate
    from ..android_harness.app import update as update_app
    from ..bundle import load_bundle

    loaded = load_bundle(bundle)
    if update:
        made = update_app(loaded, output=output, package=package, platform=platform, file=file, force=force)
    else:
        assert package is not None
        made = generate(loaded, package=package, output=output, platform=platform or "android", file=file)
    for warning in made.warnings:
        reporter.warn(warning)
    changes, context = made.changes, made.context
    payload = {
        "bundle": str(bundle),
        "output": str(output),
        "platform": context.platform,
        "package": context.package,
        "class": context.class_name,
        "runtime": {"name": context.runtime, "version": context.runtime_version},
        "files": {
            "written": changes.written,
            "unchanged": changes.unchanged,
            "removed": changes.removed,
            "kept": changes.kept,
        },
    }

    def draw(console: Any) -> None:
        said = f"{len(changes.written)} files written"
        if update:
            said += (
                f", {len(changes.unchanged)} unchanged, {len(changes.removed)} removed; yours were left alone"
            )
        console.print(
            f"{output}: {context.class_name} for {context.platform}, {said}", markup=False, soft_wrap=True
        )
        for side, tensors in (("input ", context.inputs), ("output", context.outputs)):
            for tensor in tensors:
                console.print(f"  {side} {tensor.ident}: {tensor.text}", markup=False, soft_wrap=True)
        if not update:
            console.print(f"Next: {output / 'README.md'}", markup=False, soft_wrap=True)

    reporter.result(payload, draw)
