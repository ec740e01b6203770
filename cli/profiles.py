"""``edgeopt profiles``: the devices edgeopt knows, what it knows of each, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .measuring import draw_table
from .options import Json, Quiet, Verbose
from .profile_calibrate import calibrate
from .profile_new import new
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..device_profiles import DeviceProfile, ProfileEntry


def register(app: typer.Typer) -> None:
    """Attach ``profiles`` with ``list`` (the default), ``show``, ``validate``, ``new`` and ``calibrate``."""
    group = typer.Typer(help="The devices edgeopt knows.", invoke_without_command=True)
    group.callback()(_default)
    group.command("list")(list_command)
    group.command("show")(show)
    group.command("validate")(validate)
    group.command("new")(new)
    group.command("calibrate")(calibrate)
    app.add_typer(group, name="profiles")


def _default(
    context: typer.Context, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """The devices edgeopt knows. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_command(json=json, quiet=quiet, verbose=verbose)
    else:
        # `edgeopt profiles --json show pixel7` means what `edgeopt profiles show pixel7 --json` does.
        context.obj = {"json": json, "quiet": quiet, "verbose": verbose}


def _reporter(
    context: typer.Context | None, command: str, json: bool, quiet: bool, verbose: bool
) -> Reporter:
    above = (context.obj if context is not None else None) or {}
    return Reporter(
        command,
        as_json=json or above.get("json", False),
        quiet=quiet or above.get("quiet", False),
        verbose=verbose or above.get("verbose", False),
    )


def list_command(
    context: typer.Context = None,  # type: ignore[assignment]
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List every profile: built-in ones, those of installed packages, and your own."""
    from ..device_profiles import list_profiles

    reporter = _reporter(context, "profiles", json, quiet, verbose)
    entries = list_profiles()
    for entry in entries:
        if entry.problem:
            reporter.warn(f"profile {entry.name} can't be used: {entry.problem}")
    usable = [entry for entry in entries if not entry.problem]
    reporter.result(
        {"profiles": [_entry_json(entry) for entry in usable]}, lambda out: _draw_list(out, usable)
    )
    reporter.note("edgeopt profiles show NAME prints one with the source of each figure")


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A profile's name, or the path of a .toml file.")],
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print one profile, with the source of each figure."""
    from ..device_profiles import load_profile

    reporter = _reporter(context, "profiles show", json, quiet, verbose)
    profile = load_profile(name)
    content = {**profile.to_dict(), "fingerprint": profile.fingerprint()}
    reporter.result({"profile": content}, lambda out: _draw_profile(out, profile))


def validate(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The .toml file to check (or a profile's name).")],
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a profile file; exits 2 and names file, key, value and what is allowed when it is wrong."""
    from ..cost_model.machine import machine_of, unknown_core_notes
    from ..device_profiles import load_profile

    reporter = _reporter(context, "profiles validate", json, quiet, verbose)
    profile = load_profile(file)
    machine_of(profile)  # a profile that estimates refuse is not sound, though each figure is one
    for note in unknown_core_notes(profile):
        reporter.warn(f"{file}: {note}")
    estimates = _estimates(profile)
    payload = {
        "profile": {"name": profile.name, "title": profile.title, "fingerprint": profile.fingerprint()},
        "figures": estimates["figures"],
        "estimates": estimates["estimates"],
    }
    reporter.result(
        payload,
        lambda out: out.print(
            f"{file}: valid ({profile.name}: {payload['figures']} figures with a source, "
            f"{payload['estimates']} of them estimates)",
            markup=False,
            soft_wrap=True,
        ),
    )


def _entry_json(entry: ProfileEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "big_cores": entry.big_cores,
        "isa": list(entry.isa),
        "ram_mib": entry.ram_mib,
        "origin": entry.origin,
        "path": str(entry.path),
    }


def _draw_list(out: Console, entries: list[ProfileEntry]) -> None:
    rows = [
        {
            "name": entry.name,
            "big cores": entry.big_cores.replace("cortex-", ""),
            "int8 and fp16": _highlights(entry.isa),
            "RAM": _gib(entry.ram_mib) if entry.ram_mib is not None else "",
            "origin": entry.origin,
            "title": entry.title,
        }
        for entry in entries
    ]
    if rows:
        draw_table(out, rows, list(rows[0]), spare=("title", "origin", "RAM"))


def _highlights(isa: tuple[str, ...]) -> str:
    """What decides which kernels run: the best int8 instructions, fp16 arithmetic, wide vectors."""
    best = next((feature for feature in ("i8mm", "dotprod", "vnni") if feature in isa), "")
    words = [best, *(feature for feature in ("fp16", "sve2", "avx512") if feature in isa)]
    return " ".join(word for word in words if word) or ("neon only" if "neon" in isa else "unknown")


def _print_wide(out: Console, table: Table) -> None:
    """A table at the terminal's width; into a pipe or a file as wide as a wide terminal."""
    if not out.is_terminal:
        out.width = max(out.width, 140)
    out.print(table)


def _gib(mib: int) -> str:
    return f"{mib / 1024:.0f} GiB" if mib >= 1024 else f"{mib} MiB"


def _estimates(profile: DeviceProfile) -> dict[str, int]:
    figures = profile.figures()
    return {"figures": len(figures), "estimates": sum(profile.is_estimate(key) for key in figures)}


def _draw_profile(out: Console, profile: DeviceProfile) -> None:
    say: Callable[[str], None] = lambda text: out.print(text, markup=False, soft_wrap=True)  # noqa: E731
    out.print(
        f"{profile.title}  ({profile.name}, {profile.kind}, {profile.arch})", style="bold", markup=False
    )
    say(f"{profile.vendor}, {profile.soc}" + (f", {profile.year}" if profile.year else ""))
    system = profile.os
    say(f"{system.name} {system.version}" + (f" (API level {system.api_level})" if system.api_level else ""))
    if profile.notes:
        say(profile.notes)
    _draw_clusters(out, profile)
    if profile.cpu.note:
        say(profile.cpu.note)
    _draw_words(out, profile)
    _draw_figures(out, profile)
    if profile.calibration is not None:
        done = profile.calibration
        versions = ", ".join(f"{runtime} {version}" for runtime, version in done.runtimes.items())
        say(
            f"\ncalibrated {done.date[:10]} on {done.device} ({versions}; {done.measurements} latencies): networks "
            f"left out were predicted within ±10% in {done.within_10:.0%}, ±20% in {done.within_20:.0%}; "
            f"conditions: {done.conditions}"
        )
    totals = _estimates(profile)
    counts = f"{totals['figures']} figures, {totals['estimates']} of them estimates"
    say(f"\n{counts}; sha256 {profile.fingerprint()[:16]}")


def _draw_clusters(out: Console, profile: DeviceProfile) -> None:
    rows = []
    for index, cluster in enumerate(profile.cpu.clusters):
        active = profile.active_mw(index)
        l2 = f"{cluster.l2_kib} KiB{' shared' if cluster.l2_shared else ''}" if cluster.l2_kib else "?"
        rows.append(
            {
                "cluster": cluster.core,
                "cores": str(cluster.count),
                "clock": f"{cluster.max_mhz} MHz",
                "L1D": f"{cluster.l1d_kib} KiB" if cluster.l1d_kib else "?",
                "L2": l2,
                "active": f"{active:g} mW/core" if active else "?",
                "instructions": " ".join(cluster.isa) or "none known",
            }
        )
    out.print()
    # What is left out on a narrow terminal stands among the figures below, with its source.
    draw_table(out, rows, list(rows[0]), spare=("active", "L2", "L1D"))


def _draw_words(out: Console, profile: DeviceProfile) -> None:
    """Accelerators, runtimes, power rails and how the device is reached: what isn't a figure."""
    lines: list[tuple[str, str]] = []
    for each in profile.accelerators:
        lines.append((f"{each.kind}", f"{each.name}: {each.status.replace('_', ' ')}. {each.note}"))
        lines += [("", f"by {runtime}: {how}") for runtime, how in each.reach.items()]
    for runtime, support in profile.runtimes:
        if support is not None:
            version = f", from version {support.min_version}" if support.min_version else ""
            lines.append((runtime, f"{', '.join(support.delegates) or 'CPU'}{version}"))
    for rail in profile.power.rails:
        where = f" at {rail.path}" if rail.path else ""
        lines.append(("rail", f"{rail.name} ({rail.covers}), read by {rail.method}{where}"))
    lines += _reach_lines(profile)
    out.print()
    width = max((len(label) for label, _ in lines), default=0)
    for label, text in lines:
        out.print(f"{label:<{width}}  {text}", markup=False, soft_wrap=True)


def _reach_lines(profile: DeviceProfile) -> list[tuple[str, str]]:
    reach = profile.reach
    lines: list[tuple[str, str]] = []
    if reach.adb is not None:
        props = "; ".join(f"{name} is {' or '.join(values)}" for name, values in reach.adb.match.items())
        lines.append(("adb", f"when {props}"))
    if reach.ssh is not None:
        tree = reach.ssh.device_tree_match
        lines.append(("ssh", f"user {reach.ssh.user}" + (f"; device tree says {tree!r}" if tree else "")))
    if reach.emulator is not None:
        lines.append(("emulator", f"-cpu {reach.emulator.qemu_cpu}"))
    return lines


def _draw_figures(out: Console, profile: DeviceProfile) -> None:
    """One line a figure: dotted key, how it is shown. Sections come in the order of the file."""
    from rich.table import Table
    from rich.text import Text

    from ..device_profiles.units import unit_of

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for key, value in profile.figures().items():
        number = f"{value:.0f}" if float(value).is_integer() else f"{value:g}"
        source = Text(profile.source_of(key) or "", style="yellow" if profile.is_estimate(key) else "")
        table.add_row(Text(key), Text(f"{number} {unit_of(key)}".strip()), source)
    out.print()
    _print_wide(out, table)
