"""``edgeopt profiles calibrate``: fits a profile to the device it describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .measuring import numbers
from .on_device import AcceptHostKey, is_device
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

    from ..android_harness.remote import RemoteTarget
    from ..calibration.run import Calibrated


def calibrate(
    name: Annotated[str, typer.Argument(help="The profile to calibrate: its name, or a .toml file.")],
    on: Annotated[
        str, typer.Option("--on", help="The device itself: host, adb, adb:SERIAL or ssh:USER@HOST.")
    ] = "host",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write (default: NAME_calibrated in your profiles)."),
    ] = None,
    num_threads: Annotated[
        str | None,
        typer.Option(
            "--num-threads",
            "--num_threads",
            "-t",
            help="CPU threads to measure, e.g. 1,4 (default: 1 and all cores of the fastest kind).",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=20, help="How often each file is measured.")
    ] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Six small networks only: to try it, not to trust it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    accept_host_key: AcceptHostKey = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a suite of kernels on the device and write a profile whose estimates are calibrated.

    The first time, the suite is exported (minutes; kept in the cache). Interrupted, it goes on where it was.
    """  # fmt: skip
    reporter = Reporter("profiles calibrate", as_json=as_json, quiet=quiet, verbose=verbose)
    from ..android_harness.device_profile import check_place
    from ..calibration.run import QUICK
    from ..calibration.run import calibrate as run
    from ..device_profiles import load_profile
    from ..device_profiles.catalog import user_folder

    profile = load_profile(name)
    target = _target(on, accept_host_key)
    path = output or user_folder() / f"{profile.name.removesuffix('_calibrated')}_calibrated.toml"
    try:
        check_place(path)
        with reporter.progress() as say:
            done = run(
                name,
                path,
                say,
                target=target,
                threads=numbers(num_threads, "--num-threads") if num_threads else (),
                rounds=rounds,
                carriers=QUICK if quick else None,
                force=force,
            )
    except KeyboardInterrupt:
        reporter.note("stopped; what was measured is kept: the same command goes on from there")
        raise
    finally:
        if target is not None:
            target.close()
    for warning in done.warnings:
        reporter.warn(warning)
    reporter.result({"calibration": _payload(done)}, lambda out: _draw(out, done))
    reporter.note(f"use it: --profile {done.profile.name if output is None else path}")


def _target(on: str, accept_host_key: bool) -> RemoteTarget | None:
    if on == "host":
        return None
    if on.partition(":")[0] == "emulator":
        raise InputError(
            "--on emulator: an emulator's times say nothing about a device; use host, adb or ssh."
        )
    if not is_device(on):
        raise InputError(f"--on {on}: a profile is calibrated on host, adb, adb:SERIAL or ssh:USER@HOST.")
    from ..android_harness.discovery import target_of

    return target_of(on, accept_host_key=accept_host_key)


def _payload(done: Calibrated) -> dict[str, Any]:
    from ..cost_model.calibrate import share_within

    fit = done.fit
    assert done.profile.calibration is not None
    shares = {
        "before": fit.before[fit.timed],
        "networks left out": fit.errors[fit.timed],
        "after": fit.residuals[fit.timed],
    }
    return {
        "profile": done.profile.name,
        "path": str(done.path),
        "measurements": len(done.latencies),
        "profiled": done.profiled,
        "spread": done.spread,
        "band": list(fit.band),
        "factors": fit.factors,
        "conditions": done.profile.calibration.conditions,
        "shares": {
            name: {f"within_{percent}": share_within(errors, percent / 100) for percent in (10, 20, 30)}
            for name, errors in shares.items()
        },
    }


def _draw(out: Console, done: Calibrated) -> None:
    from rich.table import Table

    found = _payload(done)
    out.print(f"wrote {done.path}", markup=False, soft_wrap=True)
    out.print(
        f"{found['measurements']} latencies, {found['profiled']} with their operators; rounds of a file lie "
        f"{found['spread']:.1%} apart (median)",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("predicted within", "±10%", "±20%", "±30%"):
        table.add_column(heading, justify="left" if heading.startswith("p") else "right", no_wrap=True)
    words = {"before": "before", "networks left out": "calibrated, network left out", "after": "calibrated"}
    for key, shares in found["shares"].items():
        table.add_row(words[key], *(f"{value:.0%}" for value in shares.values()))
    out.print(table)
