"""What ``edgeopt bench --on adb...`` and ``--on ssh:...`` do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..wording import counted
from . import interrupts
from .measuring import ENERGY, ON_DEVICES, keep
from .reporter import Reporter

if TYPE_CHECKING:
    from ..android_harness.measure import MeasureOptions

RunnerPath = Annotated[
    Path | None,
    typer.Option(
        "--runner",
        help="On a device: your benchmark_model or executor_runner instead of ours.",
        rich_help_panel=ON_DEVICES,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait", help="Seconds to wait for a device that is in use or was lost.", rich_help_panel=ON_DEVICES
    ),
]
CoolDown = Annotated[
    bool,
    typer.Option(
        "--cool-down/--no-cool-down",
        help="Wait until a device is as cool as its profile says.",
        rich_help_panel=ON_DEVICES,
    ),
]
AcceptHostKey = Annotated[
    bool,
    typer.Option(
        "--accept-host-key",
        help="Take and remember an ssh host key that isn't known.",
        rich_help_panel=ON_DEVICES,
    ),
]
AllowRoot = Annotated[
    bool,
    typer.Option(
        "--allow-root",
        help="Use root on the device: sets the CPU governor to performance.",
        rich_help_panel=ON_DEVICES,
    ),
]
WhileCharging = Annotated[
    bool,
    typer.Option(
        "--while-charging", help="Read a battery's gauge although the device charges.", rich_help_panel=ENERGY
    ),
]
InApp = Annotated[
    bool,
    typer.Option(
        "--in-app",
        help="On a phone: also in the sample app of edgeopt app, beside the shell.",
        rich_help_panel=ON_DEVICES,
    ),
]
AppPackage = Annotated[
    str | None,
    typer.Option(
        "--package",
        help="With --in-app: the app's id, like com.acme.vision.sample.",
        rich_help_panel=ON_DEVICES,
    ),
]


def is_device(on: str) -> bool:
    """Whether ``--on`` names a phone or board."""
    return on.partition(":")[0] in ("adb", "ssh")


def bench_devices(
    reporter: Reporter,
    on: str,
    files: Sequence[Path],
    options: MeasureOptions,
    *,
    formats: Sequence[str],
    threads: Sequence[int],
    profile: str | None,
    runner: Path | None,
    wait_s: float,
    cool_down: bool,
    accept_host_key: bool,
    allow_root: bool,
    power: str | None,
    while_charging: bool,
    profile_ops: bool,
    in_app: str | None,
    store: str | None,
    no_store: bool,
    show: Callable[[Reporter, dict[str, Any], list[str]], None],
) -> int:
    """Measure on devices, keep and print; the exit code of the worst failure."""
    from ..android_harness.discovery import targets_of
    from ..device_profiles import load_profile
    from ..results.artifacts import find_artifacts
    from ..results.device_bench import DeviceBenchOptions, bench_on_devices
    from ..results.in_app import beside_shell
    from ..results.records import subject_of
    from ..results.trust import trust_lines

    artifacts = find_artifacts(files, formats)
    chosen = load_profile(profile) if profile else None
    targets = targets_of(on, accept_host_key=accept_host_key)
    device = DeviceBenchOptions(
        profile=chosen, runner=runner, wait_s=wait_s, recover_s=wait_s, cool_down=cool_down, power=power,
        while_charging=while_charging, allow_root=allow_root, profile_ops=profile_ops,
        in_app=in_app,
    )  # fmt: skip
    told: list[str] = []
    try:
        with _lines(reporter, len(targets)) as say:
            result, warnings = bench_on_devices(
                targets, artifacts, options, device, threads=threads, subject=subject_of(files), say=say,
                tell=told.append,
            )  # fmt: skip
    finally:
        for sentence in told:
            reporter.warn(sentence)
    measurements = [record.as_json() for record in result.run.records]
    for sentence in warnings:
        reporter.warn(sentence)
    timed = [m for m in measurements if m["metric"] != "cosine"]
    for line in trust_lines(timed):
        reporter.warn(line)
    for m in measurements:
        for sentence in m["warnings"]:
            if sentence not in warnings:
                reporter.detail(
                    f"{m['artifact']} on {m['target']}, {counted(m['threads'], 'thread')}: {sentence}"
                )
    errors = [str(failure) for failure in result.failures]
    if result.interrupted:
        errors.append(
            interrupts.sentence("these are the measurements made so far, the last one marked partial")
        )
    keep(result.run, store, no_store, reporter)
    for m in measurements:
        if m["metric"] == "cosine":
            reporter.note(f"{m['artifact']} on {m['target']}: {'; '.join(m['details']['words'])}")
    payload = {"run_id": result.run.id, "measurements": measurements}
    if profile_ops:
        payload["profiles_of_ops"] = list(result.profiles)
    if in_app:
        payload["comparisons"] = beside_shell(measurements)
    show(reporter, payload, errors)
    if result.interrupted:
        return interrupts.shown()
    return max((failure.exit_code for failure in result.failures), default=0)


def app_package(on: str, in_app: bool, package: str | None) -> str | None:
    """The id of the app to measure in; None without ``--in-app``.

    Raises:
        InputError: the two options don't go together, or not with ``--on``.
    """
    if not in_app:
        if package is not None:
            raise InputError("--package goes with --in-app.")
        return None
    if on.partition(":")[0] != "adb":
        raise InputError(f"--in-app goes with --on adb, not with --on {on}: apps run on phones.")
    if package is None:
        raise InputError(
            "--in-app needs the id of the installed sample app: --package com.acme.vision.sample."
        )
    return package


@contextmanager
def _lines(reporter: Reporter, count: int) -> Iterator[Callable[[str, str], None]]:
    """One live progress line a device; on a pipe each new step is a plain line."""
    from .reporter import console

    err = console(stderr=True)
    if reporter.quiet or reporter.as_json or not err.is_terminal or count == 1:
        with reporter.progress() as progress:
            yield lambda name, what: progress(f"{name} · {what}", None)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def live(name: str, what: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None)
            bars.update(tasks[name], description=f"{name} · {what}")

        yield live


def refuse_device_options(on: str, given: dict[str, bool]) -> None:
    """Refuse options that only mean something elsewhere.

    Raises:
        InputError: naming the first.
    """
    for option, is_given in given.items():
        if is_given:
            raise InputError(f"{option} does not go with --on {on}.")
