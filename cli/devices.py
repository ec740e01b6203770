"""``edgeopt devices``: what is attached, and which profile each device is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .help_pages import examples
from .measuring import draw_table
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command(
        "devices",
        epilog=examples(
            "edgeopt devices",
            "edgeopt devices pi@raspberrypi.local",
        ),
    )(devices)


def devices(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="Boards to look at by ssh: user@host or names of ~/.ssh/config."),
    ] = None,
    ssh_hosts: Annotated[
        bool, typer.Option("--ssh-hosts", help="Look at every host of ~/.ssh/config too.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List phones on adb and boards on ssh: model, system, battery, temperature, matching profile."""
    reporter = Reporter("devices", as_json=as_json, quiet=quiet, verbose=verbose)
    from ..android_harness.discovery import discover

    found, problems = discover([host.removeprefix("ssh:") for host in hosts or ()], probe_ssh=ssh_hosts)
    for problem in problems:
        reporter.warn(problem)
    rows = [device.as_json() for device in found]
    reporter.result({"devices": rows}, lambda out: _draw(out, rows))
    if not any(row["usable"] for row in rows):
        reporter.note("no device can be used now; docs/devices.md says how to attach a phone or a board")


def _draw(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = ("address", "model", "soc", "system", "ABI", "battery", "temperature", "profile", "problem")
    lines = [_row(row) for row in rows]
    shown = [column for column in columns if any(line[column] for line in lines)]
    draw_table(console, lines, shown, spare=("ABI", "soc"))


def _row(row: dict[str, Any]) -> dict[str, str]:
    battery, celsius = row.get("battery_percent"), row.get("temperature_c")
    charging = row.get("charging_by")
    return {
        "address": row["address"],
        "model": str(row.get("device", "")),
        "soc": str(row.get("soc", "")),
        "system": str(row.get("os", "")),
        "ABI": str(next(iter(row.get("abis", ())), row.get("machine", ""))),
        "battery": ""
        if battery is None
        else f"{battery}%" + (f", {charging}" if charging not in (None, "no") else ""),
        "temperature": "" if celsius is None else f"{celsius:.1f} °C",
        "profile": ", ".join(row["profiles"]),
        "problem": str(row.get("problem") or ""),
    }
