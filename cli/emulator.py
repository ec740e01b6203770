"""``edgeopt emulator``: set up the emulated arm64 board, look at it, run a file on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..wording import counted
from .options import Json, Quiet, Verbose
from .reporter import Reporter, print_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..android_harness.emulator import EmulatedRun, Parity
    from ..android_harness.emulator.execution import Section
    from ..android_harness.emulator.verification import BundleCheck


def register(app: typer.Typer) -> None:
    """Attach ``emulator`` with ``setup``, ``status``, ``run`` and ``verify``."""
    group = typer.Typer(help="The emulated arm64 board (QEMU): no device needed.", no_args_is_help=True)
    group.command("setup")(setup)
    group.command("status")(status)
    group.command("run")(run)
    group.command("verify")(verify)
    app.add_typer(group, name="emulator")


def setup(json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Fetch QEMU, an arm64 C library, a cross compiler and the arm64 runtimes; build the runners.

    Everything goes into edgeopt's cache folder (EDGEOPT_CACHE_DIR); nothing of the system is changed and no
    root is needed. At once when it is done already.
    """
    from ..android_harness.emulator.toolchain import setup as make

    reporter = Reporter("emulator setup", as_json=json, quiet=quiet, verbose=verbose)
    with reporter.progress() as progress:
        toolchain = make(progress)
    reporter.result({"emulator": _facts(toolchain)}, lambda out: _draw_facts(out, _facts(toolchain)))


def status(json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Say whether the emulator is set up, and check the hash of every file it runs."""
    from ..android_harness.emulator.toolchain import load, verify
    from ..errors import EdgeoptError

    reporter = Reporter("emulator status", as_json=json, quiet=quiet, verbose=verbose)
    toolchain = load()
    damaged = verify(toolchain)
    if damaged:
        raise EdgeoptError(
            f"{len(damaged)} files of the emulator have changed ({damaged[0]}, ...); "
            f"remove {toolchain.folder} and run: edgeopt emulator setup"
        )
    facts = _facts(toolchain)
    reporter.result({"emulator": facts}, lambda out: _draw_facts(out, facts))


def run(
    file: Annotated[Path, typer.Argument(help="A .pte or .tflite file.")],
    profile: Annotated[
        str, typer.Option("--profile", "--device", "-p", help="The device whose CPU is emulated.")
    ],
    *,
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="An .npz with the inputs in the file's order.")
    ] = None,
    cluster: Annotated[
        int | None, typer.Option("--cluster", help="Which cluster of the profile's CPU (the big one).")
    ] = None,
    num_threads: Annotated[
        int, typer.Option("--num-threads", "--num_threads", help="More than one needs --no-count.")
    ] = 1,
    count: Annotated[bool, typer.Option("--count/--no-count", help="Count instructions.")] = True,
    profile_ops: Annotated[
        bool, typer.Option("--profile-ops", help="The same by operator (names for .pte files).")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run FILE once on the emulated CPU: outputs against this machine's, and what it executes."""
    from ..android_harness.emulator import check_parity
    from ..android_harness.emulator import run as emulate
    from ..android_harness.emulator.inputs import inputs_for
    from ..android_harness.emulator.rounding import tolerance_of
    from ..device_profiles import load_profile
    from ..runtimes import run_isolated

    reporter = Reporter("emulator run", as_json=json, quiet=quiet, verbose=verbose)
    device = load_profile(profile)
    arrays = inputs_for(file, inputs, device)
    with reporter.progress() as progress:
        progress(f"running {file.name} on the emulated CPU", None)
        done = emulate(file, arrays, device, num_threads=num_threads, count=count, cluster=cluster)
        ops: tuple[Section, ...] = ()
        if profile_ops:
            progress(f"running {file.name} operator by operator", None)
            ops = emulate(file, arrays, device, per_op=True, cluster=cluster).sections
        progress(f"running {file.name} on this machine", None)
        host = run_isolated(file, [arrays])[0]
    parity = check_parity(done.outputs, host, tolerance=tolerance_of(file, done.cpu_features))
    for problem in done.feature_problems:
        reporter.warn(f"the emulated {done.cpu.core} does not match the profile: {problem}")
    payload = {**_run_json(done, parity, device.name), "operators": [section_json(op) for op in ops]}

    def draw(out: Console) -> None:
        _draw_run(out, done, parity)
        draw_sections(out, ops)

    reporter.result(payload, draw, ok=parity.ok)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle of edgeopt export.")],
    profile: Annotated[
        str | None,
        typer.Option("--profile", "--device", "-p", help="Another device than the bundle's own."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Run BUNDLE's golden input on every core of its device: against this machine and the source model.

    Exit code 3 when a file's outputs are not right there.
    """
    from ..android_harness.emulator import verify_on_emulator
    from ..bundle import load_bundle
    from ..device_profiles import load_profile
    from ..errors import GateError

    reporter = Reporter("emulator verify", as_json=json, quiet=quiet, verbose=verbose)
    loaded = load_bundle(bundle)
    device = load_profile(profile) if profile else loaded.device()
    with reporter.progress() as progress:
        checks = verify_on_emulator(loaded, device, progress=progress)
    errors = [
        f"{c.artifact} on {c.core}: {'; '.join([*c.feature_problems, *c.parity.words])}"
        for c in checks
        if not c.ok
    ]

    def draw(out: Console) -> None:
        heading = f"{'file':<28}{'core':<14}{'with this machine':<24}{'cosine with the source model'}"
        out.print(heading, soft_wrap=True)
        for check in checks:
            out.print(_check_line(check), markup=False, soft_wrap=True)

    payload = {"profile": device.name, "grade": "emulated", "checks": [check.as_json() for check in checks]}
    reporter.result(payload, draw, ok=not errors, errors=errors)
    if errors and not json:
        for sentence in errors:
            print_error(sentence)
    return GateError.exit_code if errors else 0


def _check_line(check: BundleCheck) -> str:
    host, reference = check.parity.with_host, check.parity.with_reference
    machine = "" if host is None else "bit-equal" if host.bit_equal else f"differs by {host.relative:.1e}"
    cosine = "" if reference is None else f"{reference.cosine:.6f}"
    return f"{check.artifact:<28}{check.core:<14}{machine:<24}{cosine:<12}{'ok' if check.ok else 'FAILED'}"


def _facts(toolchain: Any) -> dict[str, Any]:
    manifest = toolchain.manifest
    return {
        "folder": str(toolchain.folder),
        "qemu": manifest["qemu"],
        "runtimes": manifest["runtimes"],
        "fingerprint": toolchain.fingerprint,
        "archives": len(manifest["archives"]),
        "files": len(manifest["files"]),
    }


def _draw_facts(out: Console, facts: dict[str, Any]) -> None:
    runtimes = ", ".join(f"{name} {version}" for name, version in facts["runtimes"].items())
    out.print(f"emulator   ready: QEMU {facts['qemu']}, {runtimes} for arm64")
    out.print(f"folder     {facts['folder']}", soft_wrap=True)
    out.print(f"toolchain  {facts['fingerprint']} (counts are comparable between equal fingerprints)")


def _run_json(done: EmulatedRun, parity: Parity, profile: str) -> dict[str, Any]:
    return {
        "file": str(done.artifact),
        "profile": profile,
        "core": done.cpu.core,
        "qemu_cpu": done.cpu.qemu_cpu,
        "runtime": f"{done.runtime} {done.runtime_version}",
        "cpu_features": list(done.cpu_features),
        "parity": parity.to_dict(),
        "grade": "emulated",
        "counts": done.counts.to_dict() if done.counts else None,
        "load_counts": done.load_counts.to_dict() if done.load_counts else None,
        "toolchain": done.toolchain,
    }


def _draw_run(out: Console, done: EmulatedRun, parity: Parity) -> None:
    out.print(
        f"[bold]{done.artifact.name}[/] on an emulated {done.cpu.core}, {counted(done.threads, 'thread')}"
    )
    out.print(f"  runtime       {done.runtime} {done.runtime_version} (arm64)")
    out.print(f"  CPU features  {' '.join(done.cpu_features)}")
    for word in parity.words:
        out.print(f"  parity        {word}", soft_wrap=True)
    if done.counts is None:
        return
    counts = done.counts
    out.print(f"  instructions  {counts.instructions:,} an inference")
    out.print(f"  multiply-acc. {counts.total_macs:,}")
    out.print(f"  bytes         {counts.bytes_loaded:,} loaded, {counts.bytes_stored:,} stored")
    misses = ", ".join(
        f"{level.upper()} {count:,}" for level, count in counts.misses.items() if "stream" not in level
    )
    out.print(f"  cache misses  {misses}")
    mix = {group: count for group, count in counts.mix().items() if count}
    for group, count in sorted(mix.items(), key=lambda item: -item[1]):
        out.print(f"    {group:<15}{count:>14,}  {100 * count / counts.instructions:5.1f} %")


def section_json(op: Section) -> dict[str, Any]:
    """One operator, or the runtime's work between operators, in the JSON list ``operators``."""
    return {"name": op.name, **op.counts.to_dict()}


def draw_sections(out: Console, ops: Sequence[Section]) -> None:
    """Operators in order; the runtime's own work between them in one line at the end."""
    if not ops:
        return
    total = sum(op.counts.instructions for op in ops)
    rest = sum(op.counts.instructions for op in ops if op.name == "")

    def line(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    line(f"  {'operator':<46}{'instructions':>14}{'share':>8}{'MACs':>14}{'L1D misses':>12}")
    for number, op in enumerate(ops):
        if op.name != "":
            label = op.name or f"section {number}"
            line(
                f"  {label[:45]:<46}{op.counts.instructions:>14,}{op.counts.instructions / total:>8.1%}"
                f"{op.counts.total_macs:>14,}{op.counts.misses.get('l1d', 0):>12,}"
            )
    if rest:
        line(f"  {'(the runtime and its profiler between them)':<46}{rest:>14,}{rest / total:>8.1%}")
