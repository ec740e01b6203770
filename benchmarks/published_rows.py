"""Published CPU latencies as rows that the cost model can be asked for.

The CSV (columns model, framework, precision, threads, device, soc, latency_ms, source) isn't part of the
repository; published_devices.toml says what is known of its devices, architectures/ what its models are.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgeopt.cost_model.machine import Machine, cluster_of, core_table

HERE = Path(__file__).resolve().parent
FRAMEWORKS = {
    "ncnn (CPU)": "ncnn",
    "XNNPACK end2end_bench": "xnnpack",
    "TFLite CPU": "tflite_2019",
    "Paddle-Lite v2.11 (armv8 CPU)": "paddle_lite",
    "MNN (CPU)": "mnn",
}
PRECISIONS = {
    "float (ncnn default fp16 storage/arith if hw allows)": "fp16", "int8": "int8", "fp32": "fp32", "fp16": "fp16",
    "float": "fp32",
}  # fmt: skip
# Names of other tables → architectures.OTHERS.
NAMES = {
    "MobileNet v1 1.0X": "mobilenet_v1_1_224", "MobileNet v2 1.0X": "mobilenet_v2_1_224",
    "MobileNet v3 Large": "mobilenet_v3_large_1", "MobileNetV1": "mobilenet_v1_1_224",
    "MobileNetV2": "mobilenet_v2_1_224", "MobileNetV3_large_x1_0": "mobilenet_v3_large_1",
    "MobileNetV3_small_x1_0": "mobilenet_v3_small", "ResNet50": "resnet50_torch",
    "Mobilenet_1.0_224(float)": "mobilenet_v1_1_224", "Mobilenet_1.0_224 (quant)": "mobilenet_v1_1_224",
    "Mobilenet_V2_1.0_224": "mobilenet_v2_1_224", "MobileNetV3-Large_dm1": "mobilenet_v3_large_1",
    "MobileNetV3-Large_dm0.75": "mobilenet_v3_large_0.75",
    "MobileNetV3-Large-minimalistic": "mobilenet_v3_large_minimalistic", "SqueezeNet": "squeezenet_1.0",
    "Inception_V3": "inception_v3", "Inception_V1": "inception_v1", "SqueezeNetV1.0": "squeezenet_1.0",
    "MobileNetV2_224": "mobilenet_v2_1_224", "mobilenet-v1-1.0": "mobilenet_v1_1_224",
    "inception-v3": "inception_v3", "resnet-v2-50": "resnet50_v2_224", "vgg16": "vgg16",
    "MobileNet v1 (224x224)": "mobilenet_v1_1_224", "MobileNet v2 (224x224)": "mobilenet_v2_1_224",
    "Inception v1 (224x224)": "inception_v1", "ResNet-50 V2 (299x299)": "resnet50_v2_299",
    "VGG16 (224x224)": "vgg16", "VGG19 (224x224)": "vgg19",
    **{f"efficientnet-lite{n}": f"efficientnet_lite{n}" for n in range(5)},
}  # fmt: skip
_WIDTH_V1 = re.compile(r"Mobilenet_V1_([\d.]+)_(\d+)$")
_WIDTH_V2 = re.compile(r"MobileNetV2_([\d.]+)_(\d+)$")


@dataclass(frozen=True)
class Row:
    """One published latency.

    ``machine`` holds the clusters that the run was allowed to use; ``config`` names device, cores and threads:
    rows of one config differ in the model and the precision only.
    """

    library: str
    model: str
    architecture: str
    precision: str
    threads: int
    device: str
    chip: str
    family: str
    config: str
    machine: Machine
    latency_ms: float
    source: str


@cache
def devices() -> dict[str, dict[str, Any]]:
    """Published name of a device → its entry of published_devices.toml."""
    with (HERE / "published_devices.toml").open("rb") as stream:
        entries = tomllib.load(stream)["device"]
    return {name: entry for entry in entries for name in entry["names"]}


@cache
def machine(device: str) -> Machine:
    """All clusters of a published device."""
    entry = devices()[device]
    clusters = tuple(
        cluster_of(
            core, count, mhz, entry.get("isa", _isa(core)), arch=_arch(core), l2_kib=l2, l2_shared=shared
        )
        for core, count, mhz, l2, shared in entry["cores"]
    )
    return Machine(device, entry["chip"], clusters, float(entry["l3_kib"]), float(entry["bandwidth_gb_s"]))


def _arch(core: str) -> str:
    return "x86_64" if core.startswith("x86") else "arm64"


def _isa(core: str) -> tuple[str, ...]:
    entry = core_table()[core]
    found = ["neon"]
    if entry["fp16"] > entry["fp32"]:
        found.append("fp16")
    return (*found, *("dotprod" for _ in "d" if "dot" in entry), *("i8mm" for _ in "i" if "i8mm" in entry))


def _allowed(whole: Machine, words: str, threads: int) -> Machine:
    """The clusters that ncnn's "big cores" and "little cores" leave; all where they don't hold the threads."""
    order = whole.fastest_first
    if "little cores" in words:
        return replace(whole, clusters=order[-1:])
    if "big cores" in words and order[0].count >= threads:
        return replace(whole, clusters=order[:1])
    return whole


def _threads(text: str, whole: Machine) -> int | None:
    if text in ("big cores", "multi"):
        return whole.fastest_first[0].count
    return int(text) if text.isdigit() else None


def _architecture(library: str, model: str) -> str | None:
    from architectures import NCNN, OTHERS

    if library == "ncnn":
        return model if model in NCNN else None
    for pattern, form in ((_WIDTH_V1, "mobilenet_v1"), (_WIDTH_V2, "mobilenet_v2")):
        if found := pattern.match(model):
            name = f"{form}_{float(found[1]):g}_{found[2]}"
            return name if name in OTHERS else None
    return NAMES.get(model)


def read_rows(path: Path) -> list[Row]:
    """The rows of the CSV whose device, model and precision are known; one that two documents print counts once."""
    found: list[Row] = []
    seen: set[tuple[str, str, str, float]] = set()
    for row in _rows(path):
        key = (row.architecture, row.precision, row.config, row.latency_ms)
        if key not in seen:
            seen.add(key)
            found.append(row)
    return found


def _rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            library = FRAMEWORKS.get(line["framework"])
            precision = PRECISIONS.get(line["precision"])
            if library is None or precision is None or line["device"] not in devices():
                continue
            architecture = _architecture(library, line["model"])
            whole = machine(line["device"])
            threads = _threads(line["threads"], whole)
            if architecture is None or threads is None:
                continue
            words = re.search(r"(all|big|little) cores", line["source"])
            allowed = _allowed(whole, words[0] if words else "", threads)
            entry = devices()[line["device"]]
            # What ncnn calls float is fp16 storage on Arm; elsewhere it computes and stores float32.
            if library == "ncnn" and precision == "fp16" and not _is_arm(entry):
                precision = "fp32"
            threads = min(threads, allowed.total_cores)
            source = re.search(r"@(\w+)", line["source"])
            config = f"{library}|{line['device']}|{line['soc']}|{words[0] if words else ''}|{threads}"
            yield Row(
                library, line["model"], architecture, precision, threads, line["device"], entry["chip"],
                entry["family"], config + (f"|{source[1]}" if library != "ncnn" and source else ""), allowed,
                float(line["latency_ms"]), line["source"].split(" ")[0],
            )  # fmt: skip


def _is_arm(entry: dict[str, Any]) -> bool:
    return not entry["cores"][0][0].startswith(("x86", "loongson", "sunway", "riscv"))
