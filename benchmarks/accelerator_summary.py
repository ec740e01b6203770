"""What published models take on a chip's GPU or NPU, as one line a chip: python benchmarks/accelerator_summary.py CSV

Writes cost_model/accelerators.json. Of the CSV (not part of the repository, see published_rows.py) it keeps no row:
for each chip, library and precision, latency = exp(a + b·ln(multiply-accumulates)) over the convolutional models
whose graphs architectures/ knows, and a band from leaving each model out.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from architectures import NCNN, OTHERS

TARGET = Path(__file__).resolve().parent.parent / "cost_model" / "accelerators.json"
LEAST = 8
# Words of the published chip → how a profile's soc names it. Only chips that a profile may have.
CHIPS = {
    r"Snapdragon 888": "snapdragon 888", r"Snapdragon 8 Gen 2": "snapdragon 8 gen 2",
    r"snapdragon-8gen3": "snapdragon 8 gen 3", r"BCM2712(?!.*Overclock)": "bcm2712",
    r"Jetson Orin Nano": "orin nano", r"RK3588": "rk3588", r"Tensor G3": "tensor g3",
}  # fmt: skip
LIBRARIES = {
    "ncnn (Vulkan GPU)": ("gpu", "ncnn's Vulkan kernels"),
    "Qualcomm AI Hub qnn_dlc": ("npu", "Qualcomm's QNN compiler"),
    "Qualcomm AI Hub tflite": ("npu", "LiteRT with Qualcomm's delegate"),
}
PRECISIONS = {
    "float": "float",
    "float (ncnn default fp16 storage/arith if hw allows)": "float",
    "w8a8": "int8",
}
AI_HUB = {
    "mobilenet_v2": "mobilenet_v2_1_224", "mobilenet_v3_large": "mobilenet_v3_large_1",
    "mobilenet_v3_small": "mobilenet_v3_small", "resnet50": "resnet50_torch", "inception_v3": "inception_v3",
    "squeezenet1_1/SqueezeNet-1.1": "squeezenet_1.1", "efficientnet_v2_s": "efficientnet_v2_s",
}  # fmt: skip
AI_HUB_AS_NCNN = {
    "googlenet": "googlenet", "resnet18": "resnet18", "efficientnet_b0": "efficientnet_b0", "shufflenet_v2": "shufflenet_v2",
}  # fmt: skip


def macs_of(library: str, model: str) -> int | None:
    """Multiply-accumulates of a published model whose graph is known and made of convolutions; else None."""
    if library.startswith("ncnn"):
        make = NCNN.get(model) if model != "vision_transformer" else None
    elif model in AI_HUB_AS_NCNN:
        make = NCNN[AI_HUB_AS_NCNN[model]]
    else:
        make = OTHERS.get(AI_HUB.get(model, ""))
    return make().macs if make is not None else None


def read(path: Path) -> dict[tuple[str, str, str, str], dict[int, list[float]]]:
    """(chip, kind, library, precision) → multiply-accumulates → latencies in ms."""
    found: dict[tuple[str, str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            library, precision = LIBRARIES.get(row["framework"]), PRECISIONS.get(row["precision"])
            chip = next((name for words, name in CHIPS.items() if re.search(words, row["soc"])), None)
            if library is None or precision is None or chip is None:
                continue
            if library[0] == "npu" and "unit=NPU" not in row["source"]:
                continue
            macs = macs_of(row["framework"], row["model"])
            if macs:
                found[chip, *library, precision][macs].append(float(row["latency_ms"]))
    return found


def summary(group: tuple[str, str, str, str], rows: dict[int, list[float]]) -> dict[str, Any]:
    """The line of one group, and how far it was off for each model that it was drawn without."""
    x = np.log([float(macs) for macs in rows])
    y = np.log([statistics.median(times) for times in rows.values()])
    slope, intercept = np.polyfit(x, y, 1)
    errors = []
    for index in range(len(x)):
        keep = np.arange(len(x)) != index
        b, a = np.polyfit(x[keep], y[keep], 1)
        errors.append(float(y[index] - (a + b * x[index])))
    chip, kind, via, precision = group
    return {
        "chip": chip, "kind": kind, "via": via, "precision": precision, "models": len(x),
        "least_macs": min(rows), "most_macs": max(rows), "intercept": round(float(intercept), 4),
        "slope": round(float(slope), 4),
        "band": [round(float(np.exp(np.quantile(errors, q))), 3) for q in (0.1, 0.9)],
        "median_error": round(float(np.expm1(np.median(np.abs(errors)))), 3),
    }  # fmt: skip


def main(path: Path) -> None:
    """Write the file and print its lines."""
    lines = [summary(group, rows) for group, rows in sorted(read(path).items()) if len(rows) >= LEAST]
    lines = [line for line in lines if line["slope"] > 0]
    made = {
        "schema_version": 1,
        "provenance": "benchmarks/accelerator_summary.py over published latencies: github:Tencent/ncnn benchmark/README.md "
        "(Vulkan), github:quic/ai-hub-models perf.yaml (unit=NPU)",
        "lines": lines,
    }
    TARGET.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for line in lines:
        print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
