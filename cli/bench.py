"""``edgeopt bench``: measure files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..wording import counted
from . import interrupts
from .help_pages import examples
from .measuring import (
    ENERGY,
    HOW,
    Affinity,
    Csv,
    EmulatedDevice,
    Formats,
    Inputs,
    Markdown,
    MaxTime,
    NoStore,
    Runtime,
    Store,
    Threads,
    UseXnnpack,
    Xnnpack,
    check_stores,
    draw_table,
    emit,
    find_meter,
    keep,
    measure_options,
    numbers,
    xnnpack_wanted,
)
from .on_device import (
    AcceptHostKey,
    AllowRoot,
    AppPackage,
    CoolDown,
    InApp,
    RunnerPath,
    Wait,
    WhileCharging,
    app_package,
    bench_devices,
    is_device,
    refuse_device_options,
)
from .options import Json, Quiet, Verbose
from .reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console

# What a narrow terminal does without, first one first; the file, its threads and its latency stay whole.
_SPARE = ("p90", "load", "size", "first", "runtime", "memory", "precision")


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command(
        "bench",
        epilog=examples(
            "edgeopt bench net_pixel7",
            "edgeopt bench model.tflite --num-threads 1,4 --json",
            "edgeopt bench net_pixel7 --on adb",
            "edgeopt bench net_pixel7 --on emulator --profile pixel7",
        ),
    )(bench)


def bench(
    files: Annotated[list[Path], typer.Argument(help="Model files (.pte, .tflite, ...) or bundles.")],
    on: Annotated[
        str, typer.Option("--on", help="Where: host, emulator, adb[:SERIAL|:all] or ssh:USER@HOST.")
    ] = "host",
    profile: EmulatedDevice = None,
    runtime: Runtime = None,
    num_threads: Threads = "1",
    cpu_affinity: Affinity = None,
    xnnpack: Xnnpack = True,
    use_xnnpack: UseXnnpack = None,
    processes: Annotated[
        int, typer.Option("--processes", help="Least number of fresh processes.", rich_help_panel=HOW)
    ] = 3,
    max_time: MaxTime = 20.0,
    num_runs: Annotated[
        int | None,
        typer.Option(
            "--num-runs",
            "--num_runs",
            help="Runs a process; default: until it's enough.",
            rich_help_panel=HOW,
        ),
    ] = None,
    warmup_runs: Annotated[
        int,
        typer.Option(
            "--warmup-runs", "--warmup_runs", help="Least number of warm-up runs.", rich_help_panel=HOW
        ),
    ] = 3,
    duration: Annotated[
        float | None,
        typer.Option("--duration", help="One sustained run of so many seconds.", rich_help_panel=HOW),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", help="Inferences a second, as a camera would ask for them.", rich_help_panel=HOW
        ),
    ] = None,
    profile_ops: Annotated[
        bool,
        typer.Option(
            "--profile-ops", "--profile_ops", help="Time each op, in a run of its own.", rich_help_panel=HOW
        ),
    ] = False,
    power: Annotated[
        bool,
        typer.Option("--power", help="Measure energy with this machine's meter.", rich_help_panel=ENERGY),
    ] = False,
    power_meter: Annotated[
        str | None,
        typer.Option(
            "--power-meter", help="With this meter, e.g. rapl, nvml:0, battery:BAT0.", rich_help_panel=ENERGY
        ),
    ] = None,
    runner: RunnerPath = None,
    wait: Wait = 60.0,
    cool_down: CoolDown = True,
    accept_host_key: AcceptHostKey = False,
    allow_root: AllowRoot = False,
    while_charging: WhileCharging = False,
    in_app: InApp = False,
    package: AppPackage = None,
    inputs: Inputs = None,
    formats: Formats = None,
    store: Store = None,
    no_store: NoStore = False,
    csv: Csv = False,
    markdown: Markdown = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Measure how fast files run: latency, cold start, memory; with intervals and conditions."""
    reporter = Reporter("bench", as_json=as_json, quiet=quiet, verbose=verbose)
    if on not in ("host", "emulator") and not is_device(on):
        raise InputError(
            f"--on {on} is not known: say host, emulator, adb, adb:SERIAL, adb:all or ssh:user@host."
        )
    app = app_package(on, in_app, package)
    check_stores(store, no_store)
    if on == "emulator":
        from .emulated import bench_emulated

        return bench_emulated(
            reporter,
            files,
            profile=profile,
            formats=formats.split(",") if formats else (),
            threads=numbers(num_threads, "--num-threads"),
            inputs=inputs,
            profile_ops=profile_ops,
            store=store,
            no_store=no_store,
            csv=csv,
            markdown=markdown,
        )
    from ..results.artifacts import find_artifacts
    from ..results.bench import bench as run_bench
    from ..results.records import subject_of

    artifacts = find_artifacts(files, formats.split(",") if formats else ())
    options = measure_options(
        runtime=runtime,
        affinity=cpu_affinity,
        xnnpack=xnnpack_wanted(xnnpack, use_xnnpack),
        inputs=inputs,
        processes=processes,
        max_time_s=max_time,
        num_runs=num_runs,
        warmup_runs=warmup_runs,
        duration_s=duration,
        rate_hz=rate,
    )
    threads = numbers(num_threads, "--num-threads")
    if is_device(on):
        unusable = {"--duration": duration is not None, "--rate": rate is not None}
        refuse_device_options(on, {**unusable, "--runtime": runtime is not None})
        return bench_devices(
            reporter,
            on,
            files,
            options,
            formats=formats.split(",") if formats else (),
            threads=threads,
            profile=profile,
            runner=runner,
            wait_s=wait,
            cool_down=cool_down,
            accept_host_key=accept_host_key,
            allow_root=allow_root,
            power=(power_meter or "") if power or power_meter else None,
            while_charging=while_charging,
            profile_ops=profile_ops,
            in_app=app,
            store=store,
            no_store=no_store,
            show=lambda r, payload, errors: _print(r, payload, csv, markdown, errors),
        )
    with reporter.progress() as progress:
        result = run_bench(
            artifacts,
            options,
            threads=threads,
            profile=profile_ops,
            meter=find_meter(power_meter, reporter) if power or power_meter else None,
            subject=subject_of(files),
            progress=progress,
        )
    measurements = [record.as_json() for record in result.run.records]
    _warn(reporter, measurements)
    errors = [str(failure) for failure in result.failures]
    if result.interrupted:
        errors.append(
            interrupts.sentence("these are the measurements made so far, the last one marked partial")
        )
    keep(result.run, store, no_store, reporter)
    payload: dict[str, Any] = {"run_id": result.run.id, "measurements": measurements}
    if profile_ops:
        payload["profiles_of_ops"] = list(result.profiles)
    _print(reporter, payload, csv, markdown, errors)
    if result.interrupted:
        return interrupts.shown()
    return max((failure.exit_code for failure in result.failures), default=0)


def _warn(reporter: Reporter, measurements: list[dict[str, Any]]) -> None:
    from ..results.trust import trust_lines

    for line in trust_lines(measurements):
        reporter.warn(line)
    for m in measurements:
        for sentence in m["warnings"]:
            reporter.detail(f"{m['artifact']}, {counted(m['threads'], 'thread')}: {sentence}")


def _print(reporter: Reporter, payload: dict[str, Any], csv: bool, markdown: bool, errors: list[str]) -> None:
    from ..results.tables import bench_rows, columns_of, heading
    from ..results.tables import markdown as as_markdown

    rows = bench_rows(payload["measurements"])

    def draw(console: Console) -> None:
        draw_table(console, rows, columns_of(rows), heading, spare=_SPARE)
        for profile in payload.get("profiles_of_ops", ()):
            _draw_ops(console, profile)
        for comparison in payload.get("comparisons", ()):
            console.print(comparison["sentence"], markup=False, soft_wrap=True)

    emit(
        reporter,
        payload,
        draw,
        csv=csv,
        markdown=as_markdown(rows) if markdown else None,
        errors=errors,
    )


def _draw_ops(console: Console, profile: dict[str, Any]) -> None:
    from ..results.tables import columns_of, op_rows

    ops = profile["ops"]
    outside = [op for op in ops if not op["delegated"]]
    moving = [op for op in ops if op["layout"]]
    where = f" on {profile['target']}" if "target" in profile else ""
    console.print(
        f"\n{profile['artifact']}{where}, {counted(profile['threads'], 'thread')}: {len(ops)} ops",
        markup=False,
    )
    if any(op["ms"] is None for op in ops):
        kinds = Counter(f"{op['name']}{'' if op['delegated'] else ' (no delegate)'}" for op in ops)
        for name, count in kinds.most_common(10):
            console.print(f"  {count}× {name}", markup=False)
        console.print("  no times: the device is emulated", markup=False)
        return
    rows = op_rows(ops)
    draw_table(console, rows, [c for c in columns_of(rows) if c in rows[0]])
    for one, many, some in (
        ("runs outside a delegate", "run outside a delegate", outside),
        ("only moves data", "only move data", moving),
    ):
        if some:
            ops_that = f"1 op that {one}" if len(some) == 1 else f"{len(some)} ops that {many}"
            console.print(f"{ops_that}: {sum(op['share'] for op in some):.1%} of the time")
