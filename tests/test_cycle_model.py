"""The cycle model's arithmetic and its data; its error is shown by benchmarks/cycle_model_validation.py."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.android_harness.emulator import cycle_model
from edgeopt.android_harness.emulator.counts import Counts
from edgeopt.device_profiles import list_profiles, load_profile
from edgeopt.errors import InputError

NO_MISSES = {"l1d": 0, "l1d_stream": 0, "l2": 0, "l2_stream": 0}


def counts(classes: dict[str, int], misses: dict[str, int] | None = None, loaded: int = 0) -> Counts:
    macs = {"fp32": 0, "fp16": 0, "int8": 0, "int16": 0}
    return Counts(sum(classes.values()), classes, macs, loaded, 0, misses or NO_MISSES)


def test_every_core_has_every_figure_and_a_source() -> None:
    for name in cycle_model.core_names():
        figures = cycle_model.core(name)
        assert len(figures.source) > 20, name
        for field in fields(figures):
            value = getattr(figures, field.name)
            if isinstance(value, float | int) and field.name not in ("dot", "i8mm", "l3_cycles", "in_order"):
                assert value > 0, (name, field.name)


def test_the_issues_cores_are_there() -> None:
    for name in ("a53", "a55", "a510", "a72", "a73", "a76", "a78", "x1", "x3", "a710", "a715"):
        assert f"cortex-{name}" in cycle_model.core_names()


def test_every_arm64_profile_has_a_model() -> None:
    missing = []
    for entry in list_profiles():
        profile = load_profile(entry.name)
        if profile.arch == "arm64" and profile.kind in ("phone", "board"):
            missing += [c.core for c in profile.cpu.clusters if c.core not in cycle_model.core_names()]
    assert missing == []


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(InputError, match="no figures for kryo"):
        cycle_model.estimate(counts({"int_alu": 1}), "kryo", 2000)


def test_multiply_accumulates_bound_a_gemm() -> None:
    gemm = counts({"fp32_fma": 1_000_000})
    bounds = cycle_model.bounds(gemm, cycle_model.core("cortex-a76"))
    assert bounds["simd"] == 500_000  # two 128-bit pipes
    assert cycle_model.bounds(gemm, cycle_model.core("cortex-x1"))["simd"] == 250_000
    assert cycle_model.bounds(gemm, cycle_model.core("cortex-a73"))["simd"] == 1_000_000


def test_the_bytes_that_no_class_explains_are_wide_loads() -> None:
    figures = cycle_model.core("cortex-a76")
    four_registers = counts({"load_simd_multi": 1000}, loaded=64_000)
    assert cycle_model.bounds(four_registers, figures)["load_store"] == pytest.approx(4000 * figures.load_q)


def test_an_estimate_is_no_faster_than_its_narrowest_resource() -> None:
    mixed = counts(
        {"fp32_fma": 900_000, "load_simd_q": 400_000, "int_alu": 200_000, "branch": 50_000}, loaded=6_400_000
    )
    for name in cycle_model.core_names():
        guess = cycle_model.estimate(mixed, name, 2000)
        assert max(guess.bounds.values()) <= guess.cycles <= sum(guess.bounds.values()) + guess.stall_cycles
        assert guess.low_ms < guess.latency_ms < guess.high_ms
        assert guess.latency_ms == pytest.approx(guess.cycles / 2e6)


def test_misses_slow_it_down_and_streams_less_than_random_ones() -> None:
    base = {"fp32_fma": 100_000}
    none = cycle_model.estimate(counts(base), "cortex-a53", 1400).cycles
    streamed = {"l1d": 10_000, "l1d_stream": 10_000, "l2": 0, "l2_stream": 0}
    random = {"l1d": 10_000, "l1d_stream": 0, "l2": 0, "l2_stream": 0}
    dram = {"l1d": 10_000, "l1d_stream": 0, "l2": 10_000, "l2_stream": 0}
    order = [none] + [
        cycle_model.estimate(counts(base, m), "cortex-a53", 1400).cycles for m in (streamed, random, dram)
    ]
    assert order == sorted(order) and len(set(order)) == 4


def test_slow_memory_costs_and_dram_latency_does_not_scale_with_the_clock() -> None:
    hungry = counts(
        {"load_simd_q": 100_000},
        {"l1d": 50_000, "l1d_stream": 50_000, "l2": 50_000, "l2_stream": 50_000},
        1_600_000,
    )
    fast, slow = (
        cycle_model.estimate(hungry, "cortex-a53", 1400, bandwidth_gb_s=b).latency_ms for b in (20.0, 1.0)
    )
    assert slow > fast
    low, high = (cycle_model.estimate(hungry, "cortex-a76", mhz).latency_ms for mhz in (1000, 2000))
    assert low / 2 < high < low


@given(st.integers(1, 8))
def test_threads_help_but_not_fully(threads: int) -> None:
    gemm = counts({"fp32_fma": 1_000_000})
    one = cycle_model.estimate(gemm, "cortex-a76", 2000).latency_ms
    many = cycle_model.estimate(gemm, "cortex-a76", 2000, threads=threads).latency_ms
    assert one / threads <= many * (1 + 1e-9)
    assert many <= one


@given(
    st.dictionaries(
        st.sampled_from(["fp32_fma", "load", "int_alu", "dotprod", "branch", "simd_int"]),
        st.integers(0, 10**9),
        min_size=1,
    )
)
@settings(max_examples=200)
def test_more_work_is_never_faster(classes: dict[str, int]) -> None:
    more = {name: 2 * value + 1 for name, value in classes.items()}
    small, large = (
        cycle_model.estimate(counts(c, loaded=8 * c.get("load", 0)), "cortex-x1", 2800).cycles
        for c in (classes, more)
    )
    assert large >= small


@pytest.fixture(scope="module")
def validation() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "cycle_model_validation.py"
    spec = importlib.util.spec_from_file_location("cycle_model_validation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_validation_reads_rows_and_finds_constants_it_was_fed(
    validation: ModuleType, tmp_path: Path
) -> None:
    header = "model,framework,precision,threads,device,soc,latency_ms,source\n"
    (tmp_path / "rows.csv").write_text(
        header
        + "MobileNet v1 1.0X,XNNPACK end2end_bench,fp32,big cores,Google Pixel 2,x,27,x\n"
        + "MobileNet v1 1.0X,XNNPACK end2end_bench,fp32,1,Google Pixel,x,82,x\n"  # a core the model lacks
        + "squeezenet,ncnn (CPU),fp32,1,Google Pixel 2,x,5,x\n"
    )
    rows = validation.published_rows(tmp_path / "rows.csv")
    assert [(row.model, row.device, row.threads) for row in rows] == [
        (("mobilenet_v1", 1.0, 224), "Google Pixel 2", 4)
    ]

    # Latencies made by the model itself must be found again: the fit recovers what it was fed.
    truth = {"overlap_out_of_order": 2.3, "overlap_in_order": 1.8, "exposed_out_of_order": 0.3,
             "exposed_in_order": 0.7, "parallel_overhead": 0.12}  # fmt: skip
    work = {
        "v1": counts({"fp32_fma": 145_000_000, "load_simd_q": 30_000_000, "int_alu": 8_000_000},
                     {"l1d": 4_000_000, "l1d_stream": 3_600_000, "l2": 800_000, "l2_stream": 700_000}, 500_000_000),
        "v2": counts({"fp32_fma": 70_000_000, "load_simd_q": 40_000_000, "simd_int": 9_000_000},
                     {"l1d": 3_000_000, "l1d_stream": 2_000_000, "l2": 900_000, "l2_stream": 500_000}, 640_000_000),
    }  # fmt: skip
    made = [
        validation.Row("XNNPACK", name, "fp32", device, threads, 1.0)
        for name in work for device in ("Google Pixel 2", "Raspberry Pi 3+") for threads in (1, 4)
    ]  # fmt: skip
    table = {(name, "fp32", row.device): work[name] for name in work for row in made}
    judge = validation.Validation(made, table)
    judge.rows = [replace(row, published_ms=judge.predicted_ms(row, truth)) for row in made]
    found = judge.fit(judge.rows)
    for row in judge.rows:
        assert judge.predicted_ms(row, found) == pytest.approx(row.published_ms, rel=0.05)


def test_the_fit_in_use_is_the_scripts_own() -> None:
    fit = cycle_model.load_fit()
    assert fit.rows >= 10
    assert 0.5 < fit.low <= 1.0 <= fit.high < 2.0
    assert fit.overlap_in_order >= 1 and fit.overlap_out_of_order >= 1
