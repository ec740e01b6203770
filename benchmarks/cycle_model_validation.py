"""Holds the emulator's cycle model against published latencies that it was not fitted to.

    python benchmarks/cycle_model_validation.py CSV [--work DIR] [--write]

CSV has the columns model, framework, precision, threads, device, soc, latency_ms, source (EDGEOPT_LATENCIES
names it when it isn't given). Exports MobileNet V1, V2, V3-Large and EfficientNet-Lite0, counts one inference of each on the
emulated core of each device, fits five global constants, and prints the error of every row. ``--write`` puts
the constants and the band into android_harness/emulator/cycle_fit.toml.

Only rows count whose core the model knows: the first Pixel's Kryo is Qualcomm's own, the Pi Zero and Pi 2
are 32-bit. Two groups: "XNNPACK" (the library that the runtimes here use, from its README) is what the
constants are fitted to, and each device is judged by a fit that left it out; "TFLite" (Android 10's kernels
of 2019, before XNNPACK was its default, other code for int8) is never fitted. The published Raspberry Pi 3+
rows were taken in 32-bit mode.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.android_harness.emulator import Cpu, run, setup
from edgeopt.android_harness.emulator import cycle_model as model
from edgeopt.android_harness.emulator.counts import Counts

sys.path.insert(0, str(Path(__file__).resolve().parent))

ARMV8 = ("neon",)
ARMV8_2 = ("neon", "fp16", "dotprod")


@dataclass(frozen=True)
class Device:
    """A published device: its big cores and the memory behind them."""

    cpu: Cpu
    bandwidth_gb_s: float
    big_cores: int


# Clocks and caches: the chips' data as published by their makers and by AnandTech's reviews.
DEVICES = {
    "Google Pixel 2": Device(
        Cpu("cortex-a73", 4, 2350, ARMV8, 64, 2048, None, "cortex-a72", l2_shared=True), 29.8, 4
    ),
    "Google Pixel 3a": Device(Cpu("cortex-a75", 2, 2000, ARMV8_2, 64, 256, 1024, "cortex-a76"), 14.9, 2),
    "Google Pixel 3": Device(Cpu("cortex-a75", 4, 2500, ARMV8_2, 64, 256, 2048, "cortex-a76"), 29.8, 4),
    "Google Pixel 4": Device(Cpu("cortex-a76", 4, 2840, ARMV8_2, 64, 512, 2048, "cortex-a76"), 34.1, 4),
    "Raspberry Pi 3+": Device(
        Cpu("cortex-a53", 4, 1400, ARMV8, 32, 512, None, "cortex-a53", l2_shared=True), 3.6, 4
    ),
}
# Published name → builder in mobilenets.py, its width (None = it has one only), and the image's side.
MODELS: dict[str, tuple[str, float | None, int]] = {
    "MobileNet v1 1.0X": ("mobilenet_v1", 1.0, 224),
    "MobileNet v2 1.0X": ("mobilenet_v2", 1.0, 224),
    "MobileNet v3 Large": ("mobilenet_v3_large", 1.0, 224),
    "Mobilenet_1.0_224(float)": ("mobilenet_v1", 1.0, 224),
    "Mobilenet_1.0_224 (quant)": ("mobilenet_v1", 1.0, 224),
    "Mobilenet_V1_1.0_224": ("mobilenet_v1", 1.0, 224),
    "Mobilenet_V1_0.50_224": ("mobilenet_v1", 0.5, 224),
    "Mobilenet_V1_0.50_128": ("mobilenet_v1", 0.5, 128),
    "Mobilenet_V2_1.0_224": ("mobilenet_v2", 1.0, 224),
    "efficientnet-lite0": ("efficientnet_lite0", None, 224),
}
FITTED = "XNNPACK"
GROUPS = {"XNNPACK end2end_bench": "XNNPACK", "TFLite CPU": "TFLite"}
# Where the fit starts from and is held to: what such cores are said to do, settled after a first look at the XNNPACK rows. The spread
# (of the logarithm) says how much the data may move each.
PRIOR = {
    "overlap_out_of_order": (2.0, 0.5),
    "overlap_in_order": (2.0, 0.3),
    "exposed_out_of_order": (0.25, 0.7),
    "exposed_in_order": (0.6, 0.5),
    "parallel_overhead": (0.1, 0.6),
}
NOISE = 0.1  # relative error expected of a row: clocks, governors and kernel versions are not known better


@dataclass(frozen=True)
class Row:
    """One published latency that the model can be asked for."""

    group: str
    model: tuple[str, float | None, int]
    precision: str
    device: str
    threads: int
    published_ms: float


def published_rows(path: Path) -> list[Row]:
    """The rows of the CSV that the model can be asked for."""
    found = []
    with path.open(newline="") as stream:
        for line in csv.DictReader(stream):
            device, name = DEVICES.get(line["device"]), MODELS.get(line["model"])
            group = GROUPS.get(line["framework"])
            if device is None or name is None or group is None or line["precision"] not in ("fp32", "int8"):
                continue
            threads = device.big_cores if line["threads"] in ("big cores", "multi") else int(line["threads"])
            row = Row(group, name, line["precision"], line["device"], threads, float(line["latency_ms"]))
            # Two documents give the same measurement of one device; it counts once.
            if not any(_same(row, other) for other in found):
                found.append(row)
    return found


def _same(left: Row, right: Row) -> bool:
    close = abs(left.published_ms / right.published_ms - 1) < 0.01
    return close and all(
        getattr(left, key) == getattr(right, key)
        for key in ("group", "model", "precision", "device", "threads")
    )


def label(of: tuple[str, float | None, int]) -> str:
    """A model's name as the table and the files have it."""
    builder, width, side = of
    return f"{builder.removeprefix('mobilenet_')}_{1.0 if width is None else width:g}_{side}"


def export(of: tuple[str, float | None, int], precision: str, folder: Path) -> Path:
    """The .pte of a network, exported once into ``folder``."""
    target = folder / f"{label(of)}_{precision}.pte"
    if target.exists():
        return target
    import mobilenets
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    torch.manual_seed(0)
    builder, width, side = of
    image = (torch.randn(1, 3, side, side),)
    network: Any = getattr(mobilenets, builder)(*([] if width is None else [width]))
    if precision == "int8":
        config = get_symmetric_quantization_config(is_per_channel=True)
        prepared = prepare_pt2e(
            torch.export.export(network, image).module(), XNNPACKQuantizer().set_global(config)
        )
        prepared(*image)
        network = convert_pt2e(prepared)
    program = to_edge_transform_and_lower(
        torch.export.export(network, image), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    part = target.with_suffix(".part")
    part.write_bytes(program.buffer)
    part.replace(target)
    return target


Counted = dict[tuple[tuple[str, float | None, int], str, str], Counts]


def count(rows: Sequence[Row], folder: Path) -> Counted:
    """Counts of each (model, precision, device), kept in ``folder`` between calls."""
    fingerprint = setup().fingerprint
    store = folder / f"counts-{fingerprint}.json"
    kept: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    found: Counted = {}
    for row in rows:
        key = (row.model, row.precision, row.device)
        if key in found:
            continue
        name = "|".join((label(row.model), row.precision, row.device))
        if name not in kept:
            print(f"  counting {name}", file=sys.stderr)
            side = row.model[2]
            image = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
            done = run(export(row.model, row.precision, folder), [image], DEVICES[row.device].cpu)
            assert done.counts is not None
            kept[name] = vars(done.counts)
            store.write_text(json.dumps(kept))
        found[key] = Counts(**kept[name])
    return found


class Validation:
    """Fits and judges the model on published rows."""

    def __init__(self, rows: Sequence[Row], counts: Counted) -> None:
        self.rows = [row for row in rows if row.group == FITTED]
        self.counts = counts

    def predicted_ms(self, row: Row, constants: dict[str, float]) -> float:
        """The model's latency of a row."""
        device = DEVICES[row.device]
        fit = model.Fit(**constants, low=1.0, high=1.0, rows=0)
        guess = model.estimate(
            self.counts[row.model, row.precision, row.device],
            device.cpu.core,
            device.cpu.max_mhz,
            threads=row.threads,
            bandwidth_gb_s=device.bandwidth_gb_s,
            fit=fit,
        )
        return guess.latency_ms

    def fit(self, rows: Sequence[Row]) -> dict[str, float]:
        """Least squares of the logarithms, robust, held to the prior."""
        from scipy.optimize import least_squares

        names = list(PRIOR)
        middle = np.log([PRIOR[name][0] for name in names])
        spread = np.array([PRIOR[name][1] for name in names])

        def residuals(logs: np.ndarray) -> np.ndarray:
            constants = dict(zip(names, np.exp(logs), strict=True))
            errors = [np.log(self.predicted_ms(row, constants) / row.published_ms) / NOISE for row in rows]
            return np.array([*errors, *((logs - middle) / spread)])

        low, high = np.log([1.0, 1.0, 0.01, 0.01, 0.005]), np.log([8.0, 8.0, 1.5, 1.5, 0.5])
        solved = least_squares(residuals, middle, bounds=(low, high), loss="soft_l1")
        return {name: float(value) for name, value in zip(names, np.exp(solved.x), strict=True)}

    def leave_one_device_out(self) -> list[tuple[Row, float]]:
        """Each row with what a model that never saw its device says."""
        found = []
        for device in dict.fromkeys(row.device for row in self.rows):
            constants = self.fit([row for row in self.rows if row.device != device])
            found += [(row, self.predicted_ms(row, constants)) for row in self.rows if row.device == device]
        return found


def shares(errors: np.ndarray) -> str:
    """Median error and the shares within ±10, ±20 and ±30%."""
    within = ", ".join(
        f"±{100 * limit:.0f}%: {100 * np.mean(errors <= limit):.0f}%" for limit in (0.1, 0.2, 0.3)
    )
    return f"median {100 * np.median(errors):.1f}%, within {within} (n = {len(errors)})"


def report(pairs: Sequence[tuple[Row, float]]) -> None:
    """Print the table of all rows and the summaries of each group."""
    print(
        f"{'group':<8} {'model':<24} {'prec':<5} {'device':<16} {'thr':>3} {'published':>10} {'estimate':>9} error"
    )
    for row, guess in pairs:
        error = 100 * (guess / row.published_ms - 1)
        print(
            f"{row.group:<8} {label(row.model):<24} {row.precision:<5} {row.device:<16} {row.threads:>3} "
            f"{row.published_ms:>7.1f} ms {guess:>6.1f} ms {error:+5.0f}%"
        )
    for name in ("all", *dict.fromkeys(row.group for row, _ in pairs)):
        chosen = [(row, guess) for row, guess in pairs if name in ("all", row.group)]
        errors = np.array([abs(guess / row.published_ms - 1) for row, guess in chosen])
        print(f"{name:<8} {shares(errors)}")


def write_fit(constants: dict[str, float], pairs: Sequence[tuple[Row, float]]) -> None:
    """Write the constants and the band of published over estimated latency."""
    ratios = np.array([row.published_ms / guess for row, guess in pairs])
    low, high = np.quantile(ratios, [0.1, 0.9])
    errors = np.abs(1 / ratios - 1)
    lines = [
        "# Written by benchmarks/cycle_model_validation.py: five global constants fitted to published",
        "# latencies, and the 10th and 90th percentile of published over estimated latency where each",
        f"# device was left out of its own fit: {shares(errors)}.",
        *(f"{name} = {value:.4f}" for name, value in constants.items()),
        f"low = {min(low, 1.0):.4f}",
        f"high = {max(high, 1.0):.4f}",
        f"rows = {len(pairs)}",
        "",
    ]
    Path(model.__file__).with_name("cycle_fit.toml").write_text("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="?", default=os.environ.get("EDGEOPT_LATENCIES"), type=Path)
    parser.add_argument("--work", default=Path(".build/cycle-model"), type=Path, help="exports and counts")
    parser.add_argument("--write", action="store_true", help="write cycle_fit.toml")
    given = parser.parse_args()
    if given.csv is None:
        parser.error("give the CSV of published latencies, or set EDGEOPT_LATENCIES")
    given.work.mkdir(parents=True, exist_ok=True)
    rows = published_rows(given.csv)
    validation = Validation(rows, count(rows, given.work))
    pairs = validation.leave_one_device_out()
    constants = validation.fit(validation.rows)
    print("constants: " + ", ".join(f"{name} {value:.3f}" for name, value in constants.items()))
    print("\nno row here was part of the fit that its estimate comes from:")
    others = [(row, validation.predicted_ms(row, constants)) for row in rows if row.group != FITTED]
    report([*pairs, *others])
    if given.write:
        write_fit(constants, pairs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
