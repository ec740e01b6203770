"""Published CPU latencies as rows that the cost model can be asked for.

The CSV (columns model, framework, precision, threads, device, soc, latency_ms, source) isn't part of the
repository; published_devices.toml says what is known of its devices, architectures/ what its models are.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edgeopt.cost_model import Kernel
from edgeopt.cost_model.machine import Machine, cluster_of, core_table

HERE = Path(__file__).resolve().parent
FRAMEWORKS = {
    "ncnn (CPU)": "ncnn",
    "XNNPACK end2end_bench": "xnnpack",
    "TFLite CPU": "tflite_2019",
    "Paddle-Lite v2.11 (armv8 CPU)": "paddle_lite",
    "MNN (CPU)": "mnn",
    "ExecuTorch XNNPACK": "xnnpack",
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
# Names of ExecuTorch's table → executorch_networks.NETWORKS.
EXECUTORCH = {
    "EFFICIENTNET_V2_S": "efficientnet_v2_s", "SSDLITE_320_MOBILENET_V3_LARGE": "ssdlite320_mobilenet_v3_large",
    "LRASPP_MOBILENET_V3_LARGE": "lraspp_mobilenet_v3_large", "FCN_RESNET50": "fcn_resnet50",
    "FCN_RESNET101": "fcn_resnet101", "DEEPLAB_V3_RESNET50": "deeplabv3_resnet50",
    "DEEPLAB_V3_RESNET101": "deeplabv3_resnet101",
    "DEEPLAB_V3_MOBILENET_V3_LARGE": "deeplabv3_mobilenet_v3_large",
    "CLIP_VIT_BASE_PATCH32_IMAGE": "clip_vit_b32_image",
}  # fmt: skip
FLOAT_ONLY = ("clip_vit_b32_image",)  # int8 of a transformer may be static or dynamic
NOISE = 0.08  # spread of a published row's logarithm: versions, governors, temperature
# Of a phone in use, printed in whole milliseconds or in tens of them; sizes of images aren't printed either.
APP_NOISE = 0.12
_WIDTH_V1 = re.compile(r"Mobilenet_V1_([\d.]+)_(\d+)$")
_WIDTH_V2 = re.compile(r"MobileNetV2_([\d.]+)_(\d+)$")


@dataclass(frozen=True)
class Row:
    """One published latency.

    ``machine`` holds the clusters that the run was allowed to use; ``config`` names device, cores and threads:
    rows of one config differ in the model and the precision only; ``era`` the
    year of ncnn's benchmark; ``noise`` the spread of the logarithm of the latency, for what else it depends on;
    ``kernels`` those of a file, where the row isn't of one of the architectures; ``origin``: published, emulated (emulated_rows.py) or measured
    by ourselves (measured_rows.py).
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
    era: str
    noise: float = NOISE
    kernels: tuple[Kernel, ...] = ()
    origin: Literal["published", "emulated", "measured"] = "published"


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


def _allowed(whole: Machine, words: str) -> Machine:
    """The clusters that ncnn's "big cores" and "little cores" leave: those above and below the middle clock."""
    clocks = [cluster.mhz for cluster in whole.clusters]
    middle = (max(clocks) + min(clocks)) / 2
    if "little cores" in words and min(clocks) < middle:
        return replace(whole, clusters=tuple(c for c in whole.clusters if c.mhz < middle))
    if "big cores" in words:
        return replace(whole, clusters=tuple(c for c in whole.clusters if c.mhz >= middle))
    return whole


def _known_to(era: str, machine: Machine) -> Machine:
    """The machine as ncnn of that year used it: it has computed in float16 since the end of 2020 (its pull request
    1856 began that), with dot products since 2021 and with matrix products of int8 since the end of 2023 (5147)."""
    unused = {"2020": ("fp16", "dot", "i8mm"), "2021": ("i8mm",)}.get(era, ())
    return replace(
        machine,
        clusters=tuple(
            replace(c, peaks={path: peak for path, peak in c.peaks.items() if path not in unused})
            for c in machine.clusters
        ),
    )


def _threads(text: str, whole: Machine, entry: dict[str, Any]) -> int | None:
    if not text:
        threads: int | None = entry.get("app_threads")
        return threads
    if text in ("big cores", "multi"):
        return whole.fastest_first[0].count
    return int(text) if text.isdigit() else None


def _architecture(library: str, model: str) -> str | None:
    from architectures import NCNN, OTHERS

    if model in EXECUTORCH:
        return EXECUTORCH[model]
    if library == "ncnn":
        return model if model in NCNN else None
    for pattern, form in ((_WIDTH_V1, "mobilenet_v1"), (_WIDTH_V2, "mobilenet_v2")):
        if found := pattern.match(model):
            name = f"{form}_{float(found[1]):g}_{found[2]}"
            return name if name in OTHERS else None
    return NAMES.get(model)


def read_rows(path: Path) -> list[Row]:
    """The rows of the CSV whose device, model and precision are known; one that two documents print counts once."""
    return sort_rows(path)[0]


def sort_rows(path: Path) -> tuple[list[Row], Counter[tuple[str, str]]]:
    """(the rows of :func:`read_rows`, (framework, why not) → how many CPU rows are left out)."""
    found: list[Row] = []
    why_not: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[str, str, str, float]] = set()
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    for line, run in zip(lines, _runs(lines), strict=True):
        if line["framework"] not in FRAMEWORKS:
            continue
        row = _row(line, run)
        if isinstance(row, str):
            why_not[line["framework"], row] += 1
            continue
        key = (row.architecture, row.precision, row.config, row.latency_ms)
        if key in seen:
            why_not[line["framework"], "printed twice"] += 1
        else:
            seen.add(key)
            found.append(row)
    return found, why_not


@dataclass
class _Run:
    """Lines that one run of ncnn's benchmark printed: neighbours in its document."""

    number: int
    models: set[str]

    @property
    def era(self) -> str:
        """Which ncnn it was, by the models that its benchmark had."""
        if self.models & {"vision_transformer", "FastestDet"}:
            return "2023"
        return "2021" if self.models & {"nanodet_m", "efficientnetv2_b0", "yolov4-tiny"} else "2020"


def _runs(lines: list[dict[str, str]]) -> list[_Run | None]:
    """The run of each line; None for other tables."""
    found: list[_Run | None] = []
    last: tuple[str, str, str, int] | None = None
    run: _Run | None = None
    for line in lines:
        place = re.search(r"README\.md L(\d+)", line["source"]) if line["framework"] == "ncnn (CPU)" else None
        if place is None:
            found.append(None)
            continue
        at = int(place[1])
        if run is None or last is None or last[:3] != _who(line) or not 0 <= at - last[3] <= 6:
            run = _Run(run.number + 1 if run else 0, set())
        run.models.add(line["model"])
        last = (*_who(line), at)
        found.append(run)
    return found


def _who(line: dict[str, str]) -> tuple[str, str, str]:
    return line["device"], line["soc"], line["threads"]


def _row(line: dict[str, str], run: _Run | None) -> Row | str:
    """The row of a line, or why there is none."""
    library = FRAMEWORKS[line["framework"]]
    if library == "xnnpack" and "Raspberry Pi" in line["device"]:
        # XNNPACK's table of these boards was made with 32-bit builds: half the registers, other kernels.
        library = "xnnpack_32bit"
    precision = PRECISIONS.get(line["precision"])
    if line["device"] not in devices():
        return f"device not described ({line['device']})"
    if precision is None:
        return f"precision not clear ({line['precision'] or 'none given'})"
    architecture = _architecture(library, line["model"])
    if architecture is None:
        return f"model without a graph here ({line['model']})"
    if architecture in FLOAT_ONLY and precision != "fp32":
        return f"what its {precision} file computes in isn't clear ({line['model']})"
    whole, entry = machine(line["device"]), devices()[line["device"]]
    threads = _threads(line["threads"], whole, entry)
    if threads is None:
        return "threads not given"
    words = re.search(r"(all|big|little) cores", line["source"])
    allowed = _allowed(whole, words[0] if words else "")
    if threads > allowed.total_cores:
        return "more threads than the cores it was bound to"
    if run:
        allowed = _known_to(run.era, allowed)
    # What ncnn calls float is fp16 storage on Arm; elsewhere it computes and stores float32.
    if library == "ncnn" and precision == "fp16" and not (_is_arm(entry) or entry.get("stores_fp16")):
        precision = "fp32"
    kernels: tuple[Kernel, ...] = ()
    if line["model"] in EXECUTORCH:
        from executorch_networks import kernels as network_kernels

        kernels = network_kernels(architecture, "int8-static" if precision == "int8" else precision)
    source = re.search(r"@(\w+)", line["source"])
    place = f"run {run.number}" if run else source[1] if source else ""
    return Row(
        library, line["model"], architecture, precision, threads, line["device"], entry["chip"], entry["family"],
        f"{library}|{line['device']}|{words[0] if words else ''}|{threads}|{place}", allowed,
        float(line["latency_ms"]), line["source"].split(" ")[0], run.era if run else "",
        APP_NOISE if kernels else NOISE, kernels,
    )  # fmt: skip


def _is_arm(entry: dict[str, Any]) -> bool:
    return not entry["cores"][0][0].startswith(("x86", "loongson", "sunway", "riscv"))
