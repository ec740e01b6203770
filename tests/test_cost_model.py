"""The cost model: what it promises whatever the constants, the constants that ship, and how they are learned."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.cost_model import Kernel, Machine, predict
from edgeopt.cost_model.analytic import CLASSES, place_of
from edgeopt.cost_model.constants import COMPONENTS, KERNELS_OF, load_constants
from edgeopt.cost_model.kernels import KINDS, MAC_KINDS
from edgeopt.cost_model.machine import PATH_NAMES, cluster_of, core_table
from edgeopt.device_profiles import load_profile
from edgeopt.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import architectures  # noqa: E402
import executorch_networks  # noqa: E402
import published_rows  # noqa: E402

RUNTIMES = sorted(KERNELS_OF)
ISA = {
    "cortex-a53": ("neon",),
    "cortex-a76": ("neon", "fp16", "dotprod"),
    "cortex-x3": ("neon", "fp16", "dotprod", "i8mm"),
}


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    kind = draw(st.sampled_from(KINDS))
    inner, outer = draw(st.integers(1, 1024)), draw(st.integers(1, 1024))
    spatial, side = draw(st.integers(1, 50_000)), draw(st.sampled_from([1, 3, 5]))
    macs = spatial * outer * side**2 * (1 if kind == "depthwise" else inner) if kind in MAC_KINDS else 0
    return Kernel(
        "k", kind, draw(st.sampled_from(["fp32", "fp16", "int8"])), macs=macs, bytes_in=4.0 * inner * spatial,
        bytes_out=4.0 * outer * spatial, bytes_weights=4.0 * inner * outer * side**2 if macs else 0.0,
        in_channels=inner, out_channels=outer, spatial=spatial, kernel_size=side,
    )  # fmt: skip


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    cores = draw(st.lists(st.sampled_from(sorted(ISA)), min_size=1, max_size=2, unique=True))
    clusters = tuple(
        cluster_of(core, draw(st.integers(1, 4)), draw(st.integers(500, 3500)), ISA[core]) for core in cores
    )
    return Machine(
        "m", "no such chip", clusters, draw(st.sampled_from([0.0, 2048.0])), draw(st.floats(2, 100))
    )


def _ms(model: list[Kernel], machine: Machine, runtime: str, threads: int = 1) -> float:
    return predict(model, machine, runtime=runtime, num_threads=threads).latency_ms


@given(kernels(), machines(), st.sampled_from(RUNTIMES), st.floats(1.01, 8))
@settings(max_examples=60, deadline=None)
def test_more_work_or_traffic_is_never_faster(
    kernel: Kernel, machine: Machine, runtime: str, more: float
) -> None:
    before = _ms([kernel], machine, runtime)
    bigger = [
        replace(kernel, macs=math.ceil(kernel.macs * more)),
        replace(kernel, bytes_in=kernel.bytes_in * more),
        replace(kernel, bytes_out=kernel.bytes_out * more),
        replace(kernel, bytes_weights=kernel.bytes_weights * more),
    ]
    for changed in bigger:
        assert _ms([changed], machine, runtime) >= before * (1 - 1e-9)
    assert _ms([kernel, kernel], machine, runtime) > before


@given(kernels(), machines(), st.sampled_from(RUNTIMES), st.floats(1.01, 4), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_a_better_machine_is_never_slower(
    kernel: Kernel, machine: Machine, runtime: str, more: float, threads: int
) -> None:
    threads = min(threads, machine.total_cores)
    before = _ms([kernel], machine, runtime, threads)
    clocks = tuple(replace(c, mhz=c.mhz * more) for c in machine.clusters)
    caches = tuple(replace(c, l2_kib=c.l2_kib * more) for c in machine.clusters)
    streams = tuple(replace(c, stream_gb_s=c.stream_gb_s * more) for c in machine.clusters)
    for better in (
        replace(machine, bandwidth_gb_s=machine.bandwidth_gb_s * more),
        replace(machine, clusters=clocks),
        replace(machine, clusters=caches),
        replace(machine, clusters=streams),
        replace(machine, llc_kib=machine.llc_kib * more),
    ):
        assert _ms([kernel], better, runtime, threads) <= before * (1 + 1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "magic"}, "has kind 'magic'"),
        ({"precision": "fp8"}, "has precision 'fp8'"),
        ({"macs": -1}, "macs = -1"),
        ({"bytes_in": math.inf}, "bytes_in = inf"),
        ({"bytes_out": math.nan}, "bytes_out = nan"),
        ({"in_channels": 0}, "in_channels = 0"),
    ],
)
def test_work_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    kernel = replace(Kernel("conv_0", "conv", "fp32", macs=1000, bytes_in=10, bytes_out=10), **changes)
    with pytest.raises(InputError, match=words) as refusal:
        predict([kernel], load_profile("pixel7"))
    assert "conv_0" in str(refusal.value)


def test_requests_that_cannot_be_answered_are_refused() -> None:
    kernel = Kernel("conv_0", "conv", "fp32", macs=1000, bytes_in=10, bytes_out=10)
    profile = load_profile("pixel7")
    with pytest.raises(InputError, match="no kernels"):
        predict([], profile)
    with pytest.raises(InputError, match="give 1 or more"):
        predict([kernel], profile, num_threads=0)
    with pytest.raises(InputError, match="give 1 to 8"):
        predict([kernel], profile, num_threads=9)
    with pytest.raises(InputError, match="runtime 'coreml'"):
        predict([kernel], profile, runtime="coreml")


def test_the_constants_that_ship_are_whole_and_say_where_they_come_from() -> None:
    constants = load_constants()
    for library in set(KERNELS_OF.values()):
        for path in PATH_NAMES:
            assert np.isfinite(constants.log_efficiency(library, path)).all()
            assert np.isfinite(constants.edge_columns(library, path)).all()
    assert set(constants.efficiency) == set(CLASSES)
    for factors in (*constants.cores.values(), *(factors for _, factors in constants.chips.values())):
        assert set(factors) == set(COMPONENTS)
        assert all(abs(value) < 3 for value in factors.values())
    for low, high in constants.bands.values():
        assert 0.1 < low <= 1 <= high < 10
    origin = constants.provenance
    assert origin["rows"] == sum(origin["libraries"].values()) == sum(origin["sources"].values()) > 4000
    assert "fit_cost_model.py" in origin["command"]
    held = origin["held_out"]
    # The model is worth having only where it beats one ratio of two devices.
    assert held["chip"]["within_20"] > held["floor_datasheet"]["within_20"]
    assert all(abs(share - 0.8) < 0.12 for share in origin["band_coverage"].values())


def test_a_constants_file_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fitted.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(InputError, match="holds no constants of the cost model"):
        load_constants(tmp_path / "fitted.json")


def test_every_core_of_the_table_can_be_estimated() -> None:
    kernel = Kernel(
        "conv_0", "conv", "fp32", macs=10**7, bytes_in=4e5, bytes_out=4e5, in_channels=32, out_channels=32
    )
    for core in core_table():
        arch = "x86_64" if core.startswith("x86") else "arm64"
        machine = Machine("m", "none", (cluster_of(core, 2, 1500, (), arch=arch),), 0.0, 10.0)
        assert 0.05 < predict([kernel], machine, runtime="ncnn").latency_ms < 500


@pytest.mark.parametrize("name", sorted(architectures.PUBLISHED))
def test_an_architecture_has_its_published_work_and_weights(name: str) -> None:
    macs, params, source = architectures.PUBLISHED[name]
    net = architectures.build(name)
    # Sources count a stride or a rounded width their own way; a block that is missing shows in the weights.
    assert net.macs / 1e6 == pytest.approx(macs, rel=0.1), source
    if params:
        assert net.params / 1e6 == pytest.approx(params, rel=0.06), source


@pytest.mark.parametrize("name", sorted(executorch_networks.PUBLISHED))
def test_a_network_of_executorchs_table_has_its_published_work_and_weights(name: str) -> None:
    parameters, billions = executorch_networks.PUBLISHED[name]
    build, side = executorch_networks.NETWORKS[name]
    model = build()
    assert sum(each.numel() for each in model.parameters()) == parameters
    macs = sum(kernel.macs for kernel in executorch_networks.kernels(name))
    if isinstance(model, executorch_networks.Segmentation):
        # torchvision counts the head that only learns; no file has it.
        image = torch.zeros(1, 3, side, side, device="meta")
        places = math.prod(model.low.to("meta")(image).shape[2:])
        macs += places * sum(p.numel() for p in model.auxiliary.parameters() if p.ndim == 4)
    assert macs / 1e9 == pytest.approx(billions, rel=1e-3)


def test_an_estimate_takes_milliseconds() -> None:
    model, profile = architectures.kernels("mobilenet_v2_1_224"), load_profile("pixel7")
    predict(model, profile)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        predict(model, profile, precision="int8")
        best = min(best, time.perf_counter() - start)
    assert best < 0.02


# FastestDet marks a run of today's ncnn.
MODELS = ("mobilenet", "mobilenet_v2", "squeezenet", "resnet18", "googlenet", "FastestDet")
BOARDS = ("Rockchip RK3588", "Rockchip RK3399", "NVIDIA Jetson Nano", "Khadas VIM3, Amlogic A311D")


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose latencies the shipped constants made, each board with an odd factor of its own."""
    path = tmp_path_factory.mktemp("rows") / "latencies.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["model", "framework", "precision", "threads", "device", "soc", "latency_ms", "source"]
        )
        at = 0
        for board, factor in zip(BOARDS, (0.8, 1.0, 1.2, 1.5), strict=True):
            at += 100
            for model in MODELS:
                found = predict(
                    architectures.kernels(model), published_rows.machine(board), runtime="ncnn", precision="fp16"
                )  # fmt: skip
                at += 1
                writer.writerow(
                    [model, "ncnn (CPU)", "float (ncnn default fp16 storage/arith if hw allows)", 1, board, board,
                     found.latency_ms * factor, f"github:Tencent/ncnn@0 benchmark/README.md L{at} avg; all cores"]
                )  # fmt: skip
        writer.writerow(["mobilenet", "ncnn (CPU)", "int8", 9, BOARDS[1], "", 3.0, "x"])
        writer.writerow(["no such net", "ncnn (CPU)", "int8", 1, BOARDS[1], "", 3.0, "x"])
        writer.writerow(["mobilenet", "ncnn (CPU)", "int8", 1, "no such board", "", 3.0, "x"])
        writer.writerow(["mobilenet", "Some GPU", "int8", 1, BOARDS[1], "", 3.0, "x"])
    return path


def test_rows_are_taken_or_left_out_with_a_reason(invented: Path) -> None:
    rows, left_out = published_rows.sort_rows(invented)
    assert len(rows) == len(MODELS) * len(BOARDS)
    assert len({row.config for row in rows}) == len(BOARDS)
    assert {why for (_, why) in left_out} == {
        "more threads than the cores it was bound to",
        "model without a graph here (no such net)",
        "device not described (no such board)",
    }


def test_an_apps_rows_run_on_the_threads_of_that_app(tmp_path: Path) -> None:
    lines = [
        "model,framework,precision,threads,device,soc,latency_ms,source",
        "SSDLITE_320_MOBILENET_V3_LARGE,ExecuTorch XNNPACK,int8,,Google Pixel 10,Tensor G5,1,github:some/app@0 x.md L1",
        "CLIP_VIT_BASE_PATCH32_IMAGE,ExecuTorch XNNPACK,int8,,Google Pixel 10,Tensor G5,1,github:some/app@0 x.md L2",
        "SSDLITE_320_MOBILENET_V3_LARGE,ExecuTorch XNNPACK,int8,,Jetson Nano,,1,github:some/app@0 x.md L3",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    [row], left_out = published_rows.sort_rows(tmp_path / "rows.csv")
    assert (row.library, row.threads, row.machine.chosen(4)[1][0].core) == ("xnnpack", 4, "cortex-a725")
    # Its kernels are a file's: the convolutions in int8, and the conversions at both ends.
    assert {kernel.precision for kernel in row.kernels if kernel.kind == "depthwise"} == {"int8"}
    assert row.kernels[0].name.endswith("convert")
    assert sorted(why.split(" (")[0] for _, why in left_out) == [
        "device not described", "what its int8 file computes in isn't clear",
    ]  # fmt: skip


def test_a_fit_finds_what_made_the_latencies_and_predicts_what_it_never_saw(invented: Path) -> None:
    import cost_model_report
    import cost_model_validation
    from cost_model_fit import Fit
    from cost_model_problem import Problem
    from cost_model_write import constants_of

    rows, _ = published_rows.sort_rows(invented)
    problem = Problem(rows)
    fit = Fit(problem)
    start = np.median(np.abs(fit.log_errors()))
    fit.solve(24)
    assert np.median(np.abs(fit.log_errors())) < min(0.05, start)
    held = cost_model_validation.validate(problem, fit)
    assert np.median(np.abs(held.model)) < 0.2
    # The boards' odd factors can't be known when they are left out.
    assert np.median(np.abs(held.chip)) > np.median(np.abs(held.model))
    learned = constants_of(fit, cost_model_report.bands(held))
    row = rows[0]
    found = predict(
        architectures.kernels(row.architecture), row.machine, runtime="ncnn", precision="fp16", constants=learned
    )  # fmt: skip
    assert found.grade == "transferred"
    assert found.latency_ms == pytest.approx(row.latency_ms, rel=0.25)


def test_a_device_may_lack_what_its_core_could_have(tmp_path: Path) -> None:
    phone = published_rows.machine("Google Pixel 3")
    assert all("fp16" in cluster.peaks and "dot" not in cluster.peaks for cluster in phone.clusters)
    path = tmp_path / "latencies.csv"
    label = "float (ncnn default fp16 storage/arith if hw allows)"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["model", "framework", "precision", "threads", "device", "soc", "latency_ms", "source"]
        )
        for board in ("CVITEK SG2000", "VisionFive2 , JH7110"):
            writer.writerow(["mobilenet", "ncnn (CPU)", label, 1, board, "", 99.0, "x"])
    assert [row.precision for row in published_rows.read_rows(path)] == ["fp16", "fp32"]


def test_unequal_cores_share_the_work_alike_in_the_fit_and_in_an_estimate(invented: Path) -> None:
    from cost_model_fit import Fit
    from cost_model_problem import Problem
    from cost_model_write import constants_of

    rows, _ = published_rows.sort_rows(invented)
    rows = [row for row in rows if row.architecture in ("mobilenet", "resnet18")]
    mixed = [
        replace(row, threads=row.machine.total_cores, config=f"{row.config} all")
        for row in rows
        if len(row.machine.clusters) > 1
    ]
    assert mixed
    fit = Fit(Problem([*rows, *mixed]))
    fit.solve(8)
    learned = constants_of(fit, load_constants().bands)
    expected = fit.log_errors(runs=False)[len(rows) :]
    for row, error in zip(mixed, expected, strict=True):
        found = predict(
            architectures.kernels(row.architecture), row.machine, runtime="ncnn", precision="fp16",
            num_threads=row.threads, constants=learned,
        )  # fmt: skip
        assert found.latency_ms == pytest.approx(row.latency_ms * math.exp(error), rel=1e-6)


def test_cores_that_reach_more_of_their_peak_are_counted_for_more() -> None:
    machine = published_rows.machine("Rockchip RK3588")
    alike = place_of(machine, 8)
    better = place_of(machine, 8, {"cortex-a76": 0.0, "cortex-a55": -0.5}.__getitem__)
    assert better.speed_sum > alike.speed_sum and better.speed_min > alike.speed_min
    assert place_of(machine, 4, {"cortex-a76": 0.3}.__getitem__) == place_of(machine, 4)


def test_weights_come_from_beyond_the_inner_caches_where_the_network_does_not_fit() -> None:
    """A linear layer of 1 MB finds its weights in a second level of 2 MB when it is alone, not behind 40 MB of others."""
    layer = Kernel(
        "layer", "linear", "fp32", macs=2**18, bytes_in=2**11, bytes_out=2**11, bytes_weights=2**20,
        in_channels=512, out_channels=512, spatial=1,
    )  # fmt: skip
    core = replace(cluster_of("cortex-x3", 1, 3000, ISA["cortex-x3"]), l2_kib=2048.0)
    machine = Machine("m", "no such chip", (core,), 2.0**17, 30.0)
    alone = predict([layer], machine).kernels[0]
    among = predict([layer] * 40, machine).kernels[0]
    assert among.memory_ms > 1.2 * alone.memory_ms
    assert among.compute_ms == alone.compute_ms


def test_what_a_delegate_leaves_does_not_get_faster_by_threads() -> None:
    taken = Kernel("taken", "linear", "fp32", macs=10**8, bytes_in=4e5, bytes_out=4e5, bytes_weights=4e6, in_channels=1000, out_channels=1000, spatial=100, delegate="XNNPACK")  # fmt: skip
    left = replace(taken, name="left", delegate=None)
    profile = load_profile("pixel7")
    one, two = (predict([taken, left], profile, num_threads=count).kernels for count in (1, 2))
    assert two[0].latency_ms < 0.7 * one[0].latency_ms
    assert two[1].latency_ms == pytest.approx(one[1].latency_ms)
