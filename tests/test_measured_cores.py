"""What the cost model learned from latencies measured by ourselves, and which cores that holds for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeopt.cost_model import Kernel, Machine, predict
from edgeopt.cost_model.constants import load_constants
from edgeopt.cost_model.machine import cluster_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from measured_rows import measured_rows

_ISA = ("avx2", "avx512", "vnni")


def _latency_ms(core: str, *, arch: str = "x86_64", isa: tuple[str, ...] = _ISA) -> float:
    machine = Machine("m", "a chip", (cluster_of(core, 4, 3000, isa, arch=arch),), 32768.0, 40.0)
    kernel = Kernel(
        "k", "conv", "fp32", macs=10**8, bytes_in=1e5, bytes_out=1e5, in_channels=64, out_channels=64
    )
    return predict([kernel], machine, runtime="litert").latency_ms


def test_measured_networks_are_predicted() -> None:
    rows = measured_rows()
    assert {row.threads for row in rows} == {1, 2} and len(rows) > 500
    assert set(load_constants().provenance["measured_cores"]) == {
        row.machine.clusters[0].core for row in rows
    }
    estimates = [predict(row.kernels, row.machine, runtime="litert", num_threads=row.threads) for row in rows]
    assert {estimate.grade for estimate in estimates} == {"predicted"}
    assert "measured on another machine" in estimates[0].basis
    errors = np.log([each.latency_ms / row.latency_ms for each, row in zip(estimates, rows, strict=True)])
    # Each network is of one kind of kernel: real ones, which mix them, are predicted more closely.
    assert np.median(np.abs(errors)) < 0.2 and abs(np.median(errors)) < 0.1


def test_an_unknown_x86_core_is_no_arm_core() -> None:
    """Its figures were those of an x86 core, what was learned of them that of all Arm cores."""
    known, unknown = _latency_ms("x86-avx512"), _latency_ms("some-xeon")
    assert unknown == known
    assert _latency_ms("x86-zen3", isa=("avx2",)) == _latency_ms("some-laptop", isa=("avx2",)) > known
    assert unknown != _latency_ms("some-xeon", arch="arm64", isa=("neon",))


def test_measured_rows_shape_only_their_own_cores() -> None:
    from cost_model_fit import Fit
    from cost_model_problem import Problem

    measured = measured_rows()[::40]
    # The same latencies as if published of another core.
    machine = replace(measured[0].machine, clusters=(cluster_of("cortex-a76", 2, 2000, ("neon",)),), chip="b")
    published = [
        replace(row, origin="published", library="ncnn", machine=machine, chip="b", config="b", latency_ms=3 * row.latency_ms)
        for row in measured
    ]  # fmt: skip
    fit = Fit(Problem([*published, *measured]))
    fit.solve(8)
    before = fit.values.copy()
    start = np.abs(fit.log_errors()[len(published) :])
    fit.learn_measured(8)
    changed = np.flatnonzero(fit.values != before)
    levels = {
        name
        for name, block in fit.blocks.items()
        for at in changed
        if block.slice.start <= at < block.slice.stop
    }
    assert levels == {"alias", "core", "config"}
    assert np.median(np.abs(fit.log_errors()[len(published) :])) < np.median(start)
    assert fit.log_errors()[: len(published)] == pytest.approx(
        Fit(fit.problem, before).log_errors()[: len(published)]
    )
