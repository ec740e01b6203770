"""What ``edgeopt bench --on emulator`` and ``edgeopt gate --on emulator`` do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import check_writable
from ..errors import GateError
from ..wording import counted
from .measuring import draw_table, emit, keep
from .reporter import Reporter, print_error

if TYPE_CHECKING:
    from rich.console import Console

    from ..android_harness.emulator.execution import Section
    from ..results.artifacts import Artifact

# The counter's classes of instructions that multiply and add, as the other tables call what they compute in.
_KERNEL_WORDS = {
    "fp32_fma": "float32", "fp16_fma": "float16", "int8_widening": "int8", "dotprod": "dotprod", "i8mm": "i8mm",
    "sve": "sve",
}  # fmt: skip


def bench_emulated(
    reporter: Reporter,
    files: Sequence[Path],
    *,
    profile: str | None,
    formats: Sequence[str],
    threads: Sequence[int],
    inputs: Path | None,
    profile_ops: bool,
    store: str | None,
    no_store: bool,
    csv: bool,
    markdown: bool,
) -> int:
    """Count every artefact on the emulated CPU of the profile, and print and keep what was found."""
    from ..results.records import subject_of
    from ..results.tables import markdown as as_markdown
    from .emulator import draw_sections, section_json

    counted = _count_artifacts(
        reporter, files, profile=profile, formats=formats, threads=threads, inputs=inputs, per_op=profile_ops
    )
    measurements = [m for one in counted for m in one.measurements]
    run_id = _keep(reporter, "bench", subject_of(files), measurements, store, no_store)
    rows = [_row(group) for group in _by_artifact(measurements)]
    # Files that nobody here made tell no precision.
    columns = [c for c in rows[0] if any(row.get(c) for row in rows)]
    small = any(m["details"].get("validated_size") is False for m in measurements)

    def draw(console: Console) -> None:
        misses = tuple(c for c in columns if c.endswith("misses"))
        draw_table(
            console, rows, columns, spare=(*reversed(misses), "core", "MACs", "bytes moved", "precision")
        )
        console.print(
            "counted on emulated arm64 code; latency is an estimate with the band of its validation, never timed",
            soft_wrap=True,
        )
        if small:
            console.print(
                "files of under 90 million instructions are smaller than any the interval was validated on",
                soft_wrap=True,
            )
        for one in counted:
            if one.sections:
                console.print(f"\n{one.artifact.name} on an emulated {one.core}", markup=False)
                draw_sections(console, one.sections)

    payload: dict[str, Any] = {"run_id": run_id, "measurements": measurements}
    if profile_ops:
        payload["profiles_of_ops"] = [
            {
                "artifact": one.artifact.name, "target": "emulator", "grade": "emulated", "core": one.core,
                "threads": 1, "ops": [section_json(section) for section in one.sections],
            }
            for one in counted
        ]  # fmt: skip
    emit(
        reporter,
        payload,
        draw,
        csv=csv,
        markdown=as_markdown(rows, columns) if markdown else None,
    )
    return 0


def gate_emulated(
    reporter: Reporter,
    files: Sequence[Path],
    *,
    baseline: Path,
    profile: str | None,
    max_regression: float,
    metrics: Sequence[str],
    inputs: Path | None,
    write_baseline: bool,
    store: str | None,
    no_store: bool,
) -> int:
    """Compare counts with a committed baseline file; exit 3 when one grew by more than allowed."""
    from ..android_harness.emulator import gate_counts, write_counts_baseline
    from ..android_harness.emulator.gating import read_counts_baseline
    from ..results.records import subject_of

    if write_baseline:
        check_writable(baseline, "--baseline")
    else:
        read_counts_baseline(baseline)  # counting takes a while: what can't be compared is said before
    measurements = count_files(reporter, files, profile=profile, inputs=inputs)
    run_id = _keep(reporter, "gate", subject_of(files), measurements, store, no_store)
    payload: dict[str, Any] = {"run_id": run_id, "measurements": measurements, "checks": []}
    if write_baseline:
        write_counts_baseline(baseline, measurements)
        reporter.result(payload, lambda out: out.print(f"wrote {baseline}: commit it", soft_wrap=True))
        return 0
    checks, warnings = gate_counts(measurements, baseline, max_regression=max_regression, metrics=metrics)
    for warning in warnings:
        reporter.warn(warning)
    failed = [check.sentence for check in checks if not check.ok]
    payload["checks"] = [check.as_json() for check in checks]

    def draw(console: Console) -> None:
        for check in checks:
            if check.ok:
                console.print(check.sentence, markup=False, soft_wrap=True)

    reporter.result(payload, draw, ok=not failed, errors=failed)
    if failed and not reporter.as_json:
        for sentence in failed:
            print_error(sentence)
    return GateError.exit_code if failed else 0


@dataclass(frozen=True)
class Counted:
    """One artefact: its measurements, and what each operator executed where that was asked for."""

    artifact: Artifact
    core: str
    measurements: list[dict[str, Any]]
    sections: tuple[Section, ...] = ()


def count_files(
    reporter: Reporter, files: Sequence[Path], *, profile: str | None, inputs: Path | None = None
) -> list[dict[str, Any]]:
    """Measurements of every artefact behind ``files``.

    Raises:
        InputError: no profile given and none in a bundle's manifest.
    """
    counted = _count_artifacts(reporter, files, profile=profile, inputs=inputs)
    return [m for one in counted for m in one.measurements]


def _count_artifacts(
    reporter: Reporter,
    files: Sequence[Path],
    *,
    profile: str | None,
    formats: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    inputs: Path | None = None,
    per_op: bool = False,
) -> list[Counted]:
    from ..android_harness.emulator import measure_on_emulator
    from ..android_harness.emulator import run as emulate
    from ..android_harness.emulator.inputs import golden_inputs, inputs_for
    from ..bundle import device_of
    from ..device_profiles import load_profile
    from ..results.artifacts import find_artifacts

    found: list[Counted] = []
    with reporter.progress() as progress:
        for artifact in find_artifacts(files, formats):
            device = load_profile(profile) if profile else device_of(artifact.path)
            core = device.big_cluster.core
            progress(f"counting {artifact.name} on the emulated {core}", None)
            golden = golden_inputs(artifact.bundle) if inputs is None and artifact.bundle else None
            arrays = golden or inputs_for(artifact.path, inputs, device)
            measurements = measure_on_emulator(
                artifact.path,
                arrays,
                device,
                name=artifact.name,
                precision=artifact.precision,
                threads=threads,
            )
            sections: tuple[Section, ...] = ()
            if per_op:
                progress(f"counting {artifact.name} operator by operator", None)
                sections = emulate(artifact.path, arrays, device, per_op=True).sections
            found.append(Counted(artifact, core, measurements, sections))
    for sentence in dict.fromkeys(w for one in found for m in one.measurements for w in m["warnings"]):
        reporter.warn(sentence)
    return found


def _keep(
    reporter: Reporter,
    command: str,
    subject: str,
    measurements: Iterable[dict[str, Any]],
    store: str | None,
    no_store: bool,
) -> str:
    from ..results.records import Run
    from ..results.store import record_from_json

    run = Run(command, subject, tuple(record_from_json(m) for m in measurements))
    keep(run, store, no_store, reporter)
    return run.id


def _by_artifact(measurements: Sequence[dict[str, Any]]) -> list[dict[tuple[str, int], dict[str, Any]]]:
    groups: dict[tuple[str, str], dict[tuple[str, int], dict[str, Any]]] = {}
    for m in measurements:
        key = (m["artifact"], m["artifact_sha256"])
        groups.setdefault(key, {})[m["metric"], m["threads"]] = m
    return list(groups.values())


def _row(group: dict[tuple[str, int], dict[str, Any]]) -> dict[str, str]:
    instructions = group["instructions", 1]
    mix = instructions["details"]["mix"]
    row = {
        "file": str(instructions["artifact"]),
        "precision": str(instructions.get("precision") or ""),
        "core": str(instructions["conditions"]["core"]),
        "instructions": f"{instructions['value']:,}",
        "MACs": f"{group['macs_executed', 1]['value']:,}",
        "kernels": ", ".join(words for name, words in _KERNEL_WORDS.items()
                             if mix[name] > 0.01 * instructions["value"]),
        "bytes moved": f"{group['bytes_moved', 1]['value']:,}",
    }  # fmt: skip
    for level in ("l1d", "l2", "l3"):
        if (f"{level}_misses", 1) in group:
            row[f"{level.upper()} misses"] = f"{group[f'{level}_misses', 1]['value']:,}"
    for (metric, threads), m in group.items():
        if metric == "latency_ms":
            low, high = m["ci95"]
            row[f"estimate ms, {counted(threads, 'thread')}"] = f"{m['value']:.3g} ({low:.3g}–{high:.3g})"
    return row
