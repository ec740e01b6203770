"""edgeopt estimate: what is said of a device that isn't there, from files, models and profiles."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from tiny_tflite import write_tflite
from torch import nn

import edgeopt
from edgeopt.bundle import load_bundle
from edgeopt.cli import main
from edgeopt.cli.estimate import _draw_layers, _short
from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.accelerators import accelerator_estimates
from edgeopt.cost_model.advice import Alternative, advice
from edgeopt.cost_model.precisions import in_precision
from edgeopt.cost_model.roofline import Point, Roofline
from edgeopt.device_profiles import load_profile
from edgeopt.device_profiles.schema import Budgets
from edgeopt.errors import InputError
from edgeopt.estimating import estimate
from edgeopt.record import predicted
from edgeopt.results.expected_energy import expected_energy
from edgeopt.results.roofline_plot import draw_roofline


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tflite(tmp_path_factory.mktemp("estimate") / "tiny.tflite")


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code = main(["estimate", *arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "estimate" and found["ok"] == (code == 0)
    return found


def test_a_file_gives_latency_memory_and_energy(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, str(file), "--profile", "pixel7", "--num-threads", "1,2", "--per-layer")
    assert [item["threads"] for item in found["estimates"]] == [1, 2]
    for item in found["estimates"]:
        low, high = item["band80"]
        assert 0 < low <= item["latency_ms"] <= high
        assert item["grade"] in ("predicted", "transferred")
        assert item["runtime"] == "litert" and item["precision"] == "fp32"
        assert [layer["kind"] for layer in item["layers"]] == ["conv", "pool", "linear", "softmax"]
        assert sum(layer["latency_ms"] for layer in item["layers"]) == pytest.approx(item["latency_ms"])
        assert item["layers"][0]["macs"] == 32 * 32 * 16 * 27
        assert item["memory"]["planned_arena_mib"] * 2**20 == 4 * 32 * 32 * (3 + 16)
        assert item["energy"]["power_mw"] > 0
    metrics = {row["metric"] for row in found["measurements"]}
    assert metrics == {"latency_ms", "peak_memory_mib", "energy_mj"}
    assert all(row["target"] == "pixel7" and row["grade"] != "measured" for row in found["measurements"])


def test_a_bundle_names_its_own_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edgeopt.export(
        nn.Linear(4, 2), profile="raspberry_pi_4", precision="fp32", formats="tflite", example_inputs=torch.randn(1, 4),
        output=tmp_path / "b",
    )  # fmt: skip
    for what in (tmp_path / "b", tmp_path / "b" / "model.tflite"):
        found = _json(capsys, str(what))
        assert {row["target"] for row in found["measurements"]} == {"raspberry_pi_4"}


def test_a_bundle_knows_a_device_of_a_file_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name alone was looked up, and is unknown where the profile isn't among the user's."""
    mine = tmp_path / "my_board.toml"
    mine.write_text(
        'extends = "pixel7"\n[budgets]\nsize_mib = 3.0\n[sources]\n"budgets.size_mib" = "estimate: a guess"\n'
    )
    edgeopt.export(
        nn.Linear(4, 2), profile=mine, precision="fp32", formats="tflite", example_inputs=torch.randn(1, 4),
        output=tmp_path / "b",
    )  # fmt: skip
    mine.unlink()
    found = _json(capsys, str(tmp_path / "b"))
    assert {row["target"] for row in found["measurements"]} == {"my_board"}
    assert load_bundle(tmp_path / "b").device().budgets.size_mib == 3.0
    manifest = tmp_path / "b" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"arch": "arm64"', '"arch": "abacus"'))
    assert main(["estimate", str(tmp_path / "b")]) == 2
    assert "isn't one of this edgeopt's form; give --profile" in capsys.readouterr().err


def test_the_table_names_grade_basis_and_advice(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["estimate", str(file), "--profile", "raspberry_pi_4", "--num_threads", "1", "--per-layer"]) == 0
    )
    out = capsys.readouterr().out
    for word in (
        "tiny.tflite",
        "1 thread",
        "80% band",
        "latency rests on",
        "% of the time is",
        "XNNPACK",
        "softmax",
    ):
        assert word in out


def _one_convolution(macs: int, kind: str = "conv") -> list[Kernel]:
    return [Kernel("only", kind, "fp32", macs=macs, bytes_in=1e6, bytes_out=1e6)]  # type: ignore[arg-type]


def test_an_accelerator_gets_a_figure_only_from_its_own_chip() -> None:
    (gpu,) = accelerator_estimates(load_profile("raspberry_pi_5"), _one_convolution(300_000_000))
    assert gpu.grade == "transferred" and gpu.latency_ms is not None and gpu.band80 is not None
    assert gpu.band80[0] < gpu.latency_ms < gpu.band80[1] and gpu.models is not None and gpu.models >= 8
    (more,) = accelerator_estimates(load_profile("raspberry_pi_5"), _one_convolution(600_000_000))
    assert more.latency_ms is not None and more.latency_ms > gpu.latency_ms
    assert all(
        each.latency_ms is None
        for each in accelerator_estimates(load_profile("pixel7"), _one_convolution(10**8))
    )


@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        (_one_convolution(10**13), "multiply-accumulates and this one has"),
        (_one_convolution(10**9, "matmul"), "convolutional and this one isn't"),
    ],
)
def test_an_accelerator_gets_no_figure_for_a_model_unlike_those_measured(
    kernels: list[Kernel], words: str
) -> None:
    (gpu,) = accelerator_estimates(load_profile("raspberry_pi_5"), kernels)
    assert gpu.latency_ms is None and gpu.grade is None and words in gpu.sentence


def test_accelerators_are_listed_with_the_reason_for_no_figure(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, str(file), "--profile", "pixel7")
    assert len(found["accelerators"]) == len(load_profile("pixel7").accelerators)
    assert all("no estimate, because" in each["sentence"] for each in found["accelerators"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "pixel77"], "pixel77"),
        ([], "names no device: give --profile"),
        (["--profile", "pixel7", "--num-threads", "64"], "8 cores"),
        (["--profile", "pixel7", "--num-threads", "0"], "1 or more"),
        (["--profile", "pixel7", "--num-threads", "many"], "--num-threads many"),
        (["--profile", "pixel7", "--precision", "int9"], "int9"),
        (["--profile", "pixel7", "--runtime", "executorch"], "executorch"),
        (["--profile", "pixel7", "--precision", "mixed"], "mixed"),
        (["--profile", "pixel7", "--precision", "w8a16"], "w8a16"),
        (["--profile", "pixel7", "--roofline", "plot.png"], ".svg"),
    ],
)
def test_a_mistake_is_one_sentence(
    file: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", str(file), *arguments]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ") and words in err and "\n" not in err


def test_a_corrupt_or_empty_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_tflite(tmp_path / "whole.tflite").read_bytes()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(whole[: len(whole) // 3])
    nothing = write_tflite(tmp_path / "nothing.tflite", empty=True)
    for path, words in (
        (broken, "broken.tflite"),
        (nothing, "nothing to estimate"),
        (tmp_path / "no.tflite", "does not exist"),
    ):
        assert main(["estimate", str(path), "--profile", "pixel7"]) == 2
        err = capsys.readouterr().err.strip()
        assert err.startswith("error: ") and words in err and "\n" not in err


def test_a_file_takes_under_two_seconds_and_no_framework(file: Path) -> None:
    code = (
        "import sys; from edgeopt.cli import main\n"
        "code = main(['estimate', sys.argv[1], '--profile', 'pixel7', '--json'])\n"
        "heavy = {'torch', 'executorch', 'litert_torch', 'tensorflow', 'ai_edge_litert.interpreter'}\n"
        "print('HEAVY', *sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stderr.rpartition("HEAVY")[2].split() == []
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"edgeopt estimate: {cpu_s:.2f} s CPU")
    assert cpu_s < 2.0


def test_what_a_float_file_would_give_in_other_precisions(file: Path) -> None:
    found = estimate(file, profile="pixel7", num_threads=[1], precision="fp32,int8-static,int8-dynamic")
    plain, static, dynamic = found.items
    assert [item.precision for item in found.items] == ["fp32", "int8-static", "int8-dynamic"]
    assert static.artifact == "tiny.tflite in int8-static"
    assert static.memory.weights_mib == pytest.approx(plain.memory.weights_mib / 4, rel=0.01)
    kinds = [(each.kernel.kind, each.kernel.precision) for each in static.latency.kernels]
    assert kinds == [
        ("elementwise", "int8"), ("conv", "int8"), ("pool", "int8"), ("linear", "int8"),
        ("elementwise", "fp32"), ("softmax", "fp32"),
    ]  # fmt: skip
    assert {each.kernel.precision for each in dynamic.latency.kernels if each.kernel.macs} == {"fp32", "int8"}


def test_nothing_is_foretold_from_what_is_not_float() -> None:
    kernel = Kernel("conv", "conv", "int8", macs=1000, bytes_in=100, bytes_out=100)
    with pytest.raises(InputError, match="float32"):
        in_precision([kernel], "fp16", "executorch")


def test_weights_alone_make_a_file_smaller_and_no_faster(file: Path) -> None:
    plain, narrow = estimate(file, profile="pixel7", num_threads=[1], precision="fp32,int8-weights").items
    assert narrow.latency.latency_ms == plain.latency.latency_ms
    assert narrow.memory.weights_mib < plain.memory.weights_mib
    with pytest.raises(InputError, match="ExecuTorch has no kernels for int4-weights"):
        in_precision([each.kernel for each in plain.latency.kernels], "int4-weights", "executorch")


def test_a_model_is_captured_and_estimated_for_both_runtimes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    found = edgeopt.estimate(
        model,
        profile="pixel7",
        num_threads=[1],
        precision="fp32,fp16",
        example_inputs=torch.randn(1, 3, 8, 8),
    )
    assert [item.artifact for item in found.items] == [
        "model.pte", "model.fp16.pte", "model.tflite", "model.fp16.tflite",
    ]  # fmt: skip
    assert all(item.memory.peak_mib > 0 for item in found.items)
    macs = 8 * 36 * 27 + 8 * 36 * 4
    assert all(sum(each.kernel.macs for each in item.latency.kernels) == macs for item in found.items)


def test_what_is_over_budget_is_said(file: Path) -> None:
    tight = load_profile("pixel7").model_copy(
        update={"budgets": Budgets(latency_ms=1e-6, peak_memory_mib=1.0)}
    )
    (item,) = estimate(file, profile=tight, num_threads=[1]).items
    assert len(item.over_budget) == 2 and "budget of 1 MiB" in item.over_budget[1]
    (item,) = estimate(file, profile="pixel7", num_threads=[1]).items
    assert item.over_budget == ()


def test_an_export_says_which_budgets_no_number_of_threads_keeps(file: Path) -> None:
    """The size is left out: of a file that was made it is known, and said from that."""
    budgets = Budgets(latency_ms=1e-6, peak_memory_mib=1.0, size_mib=1e-6)
    tight = load_profile("pixel7").model_copy(update={"budgets": budgets})
    entries, sentences = predicted(file, tight)
    latency, memory = sentences
    assert re.fullmatch(r"the predicted latency of \S+ ms is over pixel7's budget of 1e-06 ms", latency)
    assert memory.startswith("the predicted peak memory of ") and memory.endswith("budget of 1 MiB")
    fastest = min(entry["latency_ms"] for entry in entries)
    slowest = max(entry["latency_ms"] for entry in entries)
    assert len(entries) > 1 and f"latency of {fastest:.3g} ms" in latency
    between = Budgets(latency_ms=(fastest + slowest) / 2)
    assert predicted(file, tight.model_copy(update={"budgets": between}))[1] == []


def test_each_budget_has_one_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "tight.toml"
    profile.write_text(
        'schema_version = 1\nname = "tight"\nextends = "pixel7"\n[budgets]\nlatency_ms = 1e-6\npeak_memory_mib = 1\n'
        '[sources]\n"budgets" = "estimate: nothing fits"\n'
    )
    assert main(["estimate", str(file), "--profile", str(profile), "--num-threads", "1,2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("over tight's budget")]
    assert len(lines) == 2
    assert re.search(rf"\(latency\): {file.name} \S+ ms \(1 thread\), \S+ ms \(2 threads\)$", lines[0])
    assert re.search(rf"of 1 MiB \(peak memory\): {file.name} \S+ MiB$", lines[1])


def test_a_core_that_is_not_known_is_warned_of(file: Path) -> None:
    profile = load_profile("pixel7")
    first, *others = profile.cpu.clusters
    strange = first.model_copy(update={"core": "cortex-z9"})
    changed = profile.model_copy(
        update={"cpu": profile.cpu.model_copy(update={"clusters": (strange, *others)})}
    )
    assert any("cortex-z9" in warning for warning in estimate(file, profile=changed).warnings)
    assert not any("cortex" in warning for warning in estimate(file, profile="pixel7").warnings)


def test_the_roofline_draws_every_layer_under_the_ceilings(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "roof.svg"
    assert (
        main(["estimate", str(file), "--profile", "pixel7", "--num-threads", "1", "--roofline", str(plot)])
        == 0
    )
    root = ET.parse(plot).getroot()
    space = "{http://www.w3.org/2000/svg}"
    layers = [circle for circle in root.iter(f"{space}circle") if circle.find(f"{space}title") is not None]
    assert len(layers) == 2  # the convolution and the fully connected layer
    roofs = [line for line in root.iter(f"{space}line") if line.get("class") == "roof"]
    assert len(roofs) == 2  # memory and one kind of arithmetic
    assert "plot" not in capsys.readouterr().out
    assert (
        main(["estimate", str(file), "--profile", "pixel7", "--roofline", str(tmp_path / "no" / "r.svg")])
        == 2
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("features.2;;features.0;", "features.2"),  # litert-torch: modules and numbers
        ("features.3.layers.3;2", "features.3.layers.3"),
        ("model;4", "model"),
        ("sequential/conv1/Relu;sequential/conv1/BiasAdd;", "Relu"),
        ("DepthwiseConv2d_4", "DepthwiseConv2d_4"),
        ("a." * 40 + "end", "…" + ("a." * 40 + "end")[-43:]),
    ],
)
def test_a_kernel_is_named_by_its_module(name: str, shown: str) -> None:
    """The list of a .tflite's kernels named them "0;", "3;" and "6;2"."""
    assert _short(name) == shown


def test_kernels_keep_their_figures_in_a_narrow_terminal(file: Path) -> None:
    item = estimate(file, profile="pixel7", num_threads=[1]).items[0]
    out = io.StringIO()
    _draw_layers(Console(file=out, force_terminal=True, color_system=None, width=60), item)
    assert "…" not in out.getvalue()
    for layer in item.layers():
        assert f"{layer['share']:.1%}" in out.getvalue()


def test_the_words_of_a_roofline_can_be_read(tmp_path: Path) -> None:
    """The memory's words along its line and not across it, a unit at each ceiling, none upon another, no title cut."""
    roof = Roofline(
        "a_file_with_the_longest_of_names_" * 4 + " on Google Pixel 7, 1 thread (predicted)",
        (Point("conv", "conv", "compute", 8.0, 30.0, 0.5),),
        {"fp32": 45.0, "int8": 45.6, "dot": 180.0},
        18.0,
    )
    draw_roofline(tmp_path / "roof.svg", roof)
    root = ET.parse(tmp_path / "roof.svg").getroot()
    texts = {str(text.text): text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "rotate(-" in texts["memory, 18 GB/s"].get("transform", "")
    labels = [text for text in texts.values() if text.get("class") == "ceiling"]
    assert [label.text for label in labels] == [
        "int8 dot products", "180 GMAC/s", "int8", "45.6 GMAC/s", "float32", "45 GMAC/s",
    ]  # fmt: skip
    heights = [float(label.get("y", "nan")) for label in labels]
    assert all(lower - upper >= 12 for upper, lower in pairwise(heights))
    assert len(roof.title) * 0.5 * float(texts[roof.title].get("font-size", "nan")) < 830


def test_advice_says_what_helps_and_what_does_not() -> None:
    kernels = [
        Kernel(f"d{i}", "depthwise", "fp32", macs=10**6, bytes_in=1e6, bytes_out=1e6, delegate="XNNPACK")
        for i in range(3)
    ]
    found = predict(kernels, load_profile("pixel7"))
    words = advice(
        found, [Alternative("int8-static", found.latency_ms / 2.4), Alternative("fp16", found.latency_ms)]
    )
    assert words[0].startswith("100% of the time is 3 depthwise convolutions")
    assert "int8-static would make it 2.4× faster" in words[1]
    assert words[2] == "fp16 would not make it faster"


@pytest.mark.slow
def test_analyze_counts_what_a_layer_costs_in_predicted_time() -> None:
    from edgeopt.analyze import analyze

    model = Path(__file__).with_name("sample_models.py")
    found = analyze(f"{model}:net", profile="pixel7", calibration=f"{model}:calibration", explain=1)
    assert found.predicted_ms is not None and set(found.predicted_ms) == {
        layer.name for layer in found.layers
    }
    assert found.to_dict()["cost_basis"] == "predicted time"
    convolutions = [found.predicted_ms[layer.name] for layer in found.layers if layer.operator == "conv2d"]
    assert len(convolutions) == 2 and min(convolutions) > 0
    assert sum(found.cost_share(layer) for layer in found.layers) == pytest.approx(1)


def test_a_recipe_that_prunes_says_what_its_files_will_take() -> None:
    from edgeopt.record import _optimization

    def capture(channels: int) -> SimpleNamespace:
        model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, 8, 3)).eval()
        return SimpleNamespace(program=torch.export.export(model, (torch.randn(1, 3, 64, 64),)))

    made = SimpleNamespace(original=capture(64), model=SimpleNamespace(capture=capture(16)), to_dict=dict)
    plan = SimpleNamespace(optimized=made, profile=load_profile("pixel7"))
    found = _optimization(plan)  # type: ignore[arg-type]
    assert found is not None
    before, after = found["predicted_ms"]
    assert 0 < after < before / 2 and found["predicted_grade"] in ("predicted", "transferred")


def test_without_a_meter_the_profile_says_what_energy_to_expect(file: Path) -> None:
    profile = load_profile("pixel7")
    done = SimpleNamespace(summary=SimpleNamespace(median_ms=10.0), options=SimpleNamespace(num_threads=1))
    words = expected_energy(file, profile, done)  # type: ignore[arg-type]
    assert words is not None and "(predicted)" in words and "pixel7" in words
    # 10 ms of one of the fastest cores, which its maker's energy model gives 3,269 mW.
    assert "32.7 mJ" in words
    silent = profile.model_copy(
        update={"power": profile.power.model_copy(update={"active_mw_per_core": None})}
    )
    assert expected_energy(file, silent, done) is None  # type: ignore[arg-type]
    assert expected_energy(file, None, done) is None  # type: ignore[arg-type]
