"""Measurements of an emulated run, in the one JSON shape that every command uses; grade "emulated"."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .cycle_model import Estimate, core_names, estimate
from .execution import EmulatedRun, run

if TYPE_CHECKING:
    import numpy as np

    from ...device_profiles import DeviceProfile

GRADE = "emulated"
TARGET = "emulator"
# What an estimate rests on; it goes with every latency so that nobody takes it for a measurement.
# The networks of the validation execute 90 million instructions and more.
VALIDATED_FROM_INSTRUCTIONS = 90_000_000
LATENCY_NOTE = "estimated from counted instructions and simulated cache misses, never timed"


def measure_on_emulator(
    artifact: Path | str,
    inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    profile: DeviceProfile,
    *,
    name: str | None = None,
    precision: str | None = None,
    cluster: int | None = None,
    threads: Sequence[int] = (1,),
) -> list[dict[str, Any]]:
    """Run one artefact once and say what it costs: the dicts of a command's ``measurements``.

    Counts are of one inference on one thread and exact (two runs give the same). ``cycles`` and
    ``latency_ms`` come from the cycle model, one for each of ``threads``; their ``ci95`` is the band of the
    model's validation (80%, see docs/emulator.md), and both are left out for a core that the model has no
    figures for, with a warning.

    Raises:
        InputError: wrong inputs, not an arm64 profile, more threads than the cluster has cores.
        EdgeoptError: the emulator is not set up, or the guest crashed.
    """
    done = run(artifact, inputs, profile, cluster=cluster)
    return measurements_of(done, profile, name=name, precision=precision, threads=threads)


def measurements_of(
    done: EmulatedRun,
    profile: DeviceProfile,
    *,
    name: str | None = None,
    precision: str | None = None,
    threads: Sequence[int] = (1,),
) -> list[dict[str, Any]]:
    """The measurements of a counted run.

    Raises:
        InputError: the run was not counted, or more threads than the cluster has cores.
    """
    counts = done.counts
    if counts is None:
        raise InputError("this emulated run was not counted")
    too_many = [number for number in threads if number > done.cpu.count]
    if too_many:
        raise InputError(f"{done.cpu.core} has {done.cpu.count} cores in {profile.name}, not {too_many[0]}")
    shared: dict[str, Any] = {
        "ci95": None,
        "grade": GRADE,
        "artifact": name or done.artifact.name,
        "artifact_sha256": hashlib.sha256(done.artifact.read_bytes()).hexdigest(),
        "target": TARGET,
        "threads": 1,
        "conditions": conditions(done, profile),
        "format": done.artifact.suffix.lstrip("."),
        "precision": precision,
        "runtime": done.runtime,
        "runtime_version": done.runtime_version,
        "partial": False,
        "details": {},
        "warnings": [],
    }
    problems = [
        f"the emulated {done.cpu.core} is not what profile {profile.name} says: {problem}"
        for problem in done.feature_problems
    ]
    found: list[dict[str, Any]] = [
        {**shared, "metric": "instructions", "value": counts.instructions, "unit": "",
         "details": counts.to_dict(), "warnings": problems},
        {**shared, "metric": "macs_executed", "value": counts.total_macs, "unit": ""},
        {**shared, "metric": "bytes_moved", "value": counts.bytes_loaded + counts.bytes_stored, "unit": "B"},
    ]  # fmt: skip
    found += [
        {**shared, "metric": f"{level}_misses", "value": count, "unit": ""}
        for level, count in counts.misses.items()
        if "stream" not in level
    ]
    if done.cpu.core not in core_names():
        found[0]["warnings"].append(
            f"no latency estimate: the cycle model has no figures for {done.cpu.core}"
        )
        return found
    for number in threads:
        guess = estimate(
            counts, done.cpu.core, done.cpu.max_mhz, threads=number,
            bandwidth_gb_s=profile.memory.bandwidth_gb_s,
        )  # fmt: skip
        found += _estimates(guess, done, {**shared, "threads": number})
    return found


def _estimates(guess: Estimate, done: EmulatedRun, shared: dict[str, Any]) -> list[dict[str, Any]]:
    details = {
        "bounds_cycles": {name: round(value) for name, value in guess.bounds.items()},
        "stall_cycles": round(guess.stall_cycles),
        "mhz": done.cpu.max_mhz,
        "note": LATENCY_NOTE,
        "validated_size": done.counts is not None and done.counts.instructions >= VALIDATED_FROM_INSTRUCTIONS,
    }
    per_ms = done.cpu.max_mhz * 1e3
    band = [guess.low_ms, guess.high_ms]
    return [
        {**shared, "metric": "latency_ms", "value": guess.latency_ms, "ci95": band, "unit": "ms",
         "details": details},
        {**shared, "metric": "cycles", "value": guess.cycles, "ci95": [edge * per_ms for edge in band],
         "unit": "", "details": details},
    ]  # fmt: skip


def conditions(done: EmulatedRun, profile: DeviceProfile) -> dict[str, Any]:
    """What counts depend on: two runs with equal conditions have equal instruction counts."""
    return {
        "device": f"emulated {profile.name}",
        "profile": profile.name,
        "core": done.cpu.core,
        "qemu_cpu": done.cpu.qemu_cpu,
        "l1d_kib": done.cpu.l1d_kib,
        "l2_kib": done.cpu.l2_kib,
        "l3_kib": done.cpu.l3_kib,
        "cpu_features": list(done.cpu_features),
        "toolchain": done.toolchain,
    }
