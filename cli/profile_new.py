"""``edgeopt profiles new``: a profile from what a device reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .on_device import AcceptHostKey
from .options import Json, Quiet, Verbose
from .reporter import Reporter


def new(
    name: Annotated[str, typer.Argument(help="The new profile's name: lower case, digits, underscores.")],
    source: Annotated[str, typer.Option("--from", help="Where to read: adb, adb:SERIAL or ssh:USER@HOST.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write (default: your profiles' folder)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    accept_host_key: AcceptHostKey = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a profile from what a device reports, each figure with its source."""
    reporter = Reporter("profiles new", as_json=as_json, quiet=quiet, verbose=verbose)
    if not (
        name.isascii() and name.replace("_", "").isalnum() and name == name.lower() and name[0].isalpha()
    ):
        raise InputError(f"{name!r} is not a profile's name: use lower-case letters, digits and underscores.")
    from ..android_harness.device_profile import profile_text, write_profile
    from ..android_harness.discovery import target_of
    from ..device_profiles.catalog import user_folder

    target = target_of(source, option="--from", accept_host_key=accept_host_key)
    path = output or user_folder() / f"{name}.toml"
    try:
        text = profile_text(target, name)
    finally:
        target.close()
    write_profile(text, path, force=force)
    payload = {"profile": {"name": name, "path": str(path), "toml": text}}
    reporter.result(payload, lambda out: out.print(f"wrote {path}", markup=False, soft_wrap=True))
    reporter.note(f"check the estimates in it, then: edgeopt profiles show {output or name}")
