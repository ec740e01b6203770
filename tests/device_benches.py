"""Benchmarks of stand-in phones, and what must be true of the phones afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from device_fixtures import Phone
from device_standins import fake_payload

from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.results.artifacts import Artifact
from edgeopt.results.bench import BenchResult
from edgeopt.results.device_bench import DeviceBenchOptions, bench_on_devices

Phones = Callable[..., Phone]
QUICK = MeasureOptions(processes=2, max_time_s=0.1, num_runs=8)
QUICKEST = replace(QUICK, processes=1)


def bench(
    phones: Sequence[Phone],
    files: Sequence[Artifact],
    folder: Path,
    body: str = "",
    measure: MeasureOptions = QUICK,
    **options: object,
) -> tuple[BenchResult, list[str]]:
    payload = fake_payload(folder, body)
    settings = {"recover_s": 8.0, "wait_s": 5.0, "timeout_s": 10.0, **options}
    chosen = DeviceBenchOptions(make_payload=lambda runtime: payload, compare_with_host=False, **settings)  # type: ignore[arg-type]
    options = replace(measure, inputs=folder / "inputs.npz")
    np.savez(folder / "inputs.npz", image=np.zeros((1, 4), np.float32))
    return bench_on_devices([phone.target() for phone in phones], files, options, chosen)


def assert_clean(phone: Phone) -> None:
    """No file of ours is left, and after a moment no process works there."""
    assert phone.device.leftovers() == []
    end = time.monotonic() + 5
    while phone.device.processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert phone.device.processes() == []


def latencies(result: BenchResult) -> list[str]:
    return [record.artifact for record in result.run.records if record.metric == "latency_ms"]
