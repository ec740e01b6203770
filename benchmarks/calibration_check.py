"""How well a calibrated profile predicts networks that are not in the calibration's suite.

Three steps, each of which goes on where it was stopped:

    python benchmarks/calibration_check.py export FOLDER       the networks of calibration_models.py as files
    python benchmarks/calibration_check.py measure FOLDER      their latency on this machine, fresh processes
    python benchmarks/calibration_check.py report FOLDER --profile host_calibrated [--before host]

Measure close in time to the calibration and on a quiet machine. The report gives every point (network ×
runtime × precision × threads) with the prediction of either profile, and the shares within ±10, 20 and 30%.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from calibration_models import MODELS, build, example

PRECISIONS = "fp32,int8-static,int8-dynamic"
PROCESSES = 3


def export_all(folder: Path, names: list[str]) -> None:
    """Write a bundle a network; one that is there is kept."""
    from edgeopt import GateError, export

    for name in names:
        if (folder / name).is_dir():
            continue
        sample = (example(name),)
        started = time.monotonic()
        try:
            export(
                build(name), profile="host", precision=PRECISIONS, example_inputs=sample,
                calibration=[sample], output=folder / name, name=name,
            )  # fmt: skip
        except GateError as error:
            # Random weights: a quantised file need not agree with the float one to be timed.
            print(f"{name}: {error}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def measure_all(folder: Path, threads: list[int], budget_s: float) -> None:
    """Take the latency of every file in fresh processes; ``measured.jsonl`` gets a line each."""
    from edgeopt.android_harness.measure import MeasureOptions, measure

    log = folder / "measured.jsonl"
    done = {(row["file"], row["threads"]) for row in read_measured(folder)}
    started = time.monotonic()
    for path in sorted([*folder.glob("*/*.pte"), *folder.glob("*/*.tflite")]):
        for count in threads:
            name = str(path.relative_to(folder))
            if (name, count) in done:
                continue
            if time.monotonic() - started > budget_s:
                print("out of time: call again to go on")
                return
            options = MeasureOptions(num_threads=count, processes=PROCESSES, max_time_s=3.0, run_time_s=0.4)
            taken = measure(path, options)
            medians = [statistics.median(take.result["times_ms"]) for take in taken.takes]
            row = {
                "file": name, "threads": count, "runtime": taken.runtime, "medians_ms": medians,
                "problems": taken.conditions["problems"],
            }  # fmt: skip
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{name} {count}: {statistics.median(medians):.3f} ms", flush=True)


def read_measured(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``measured.jsonl``."""
    log = folder / "measured.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def points(folder: Path, after: str, before: str) -> list[dict[str, Any]]:
    """Every measured point with both predictions."""
    from edgeopt import load_bundle, load_profile
    from edgeopt.converters.kernels import file_kernels
    from edgeopt.cost_model import predict

    profiles = {"before": load_profile(before), "after": load_profile(after)}
    kernels: dict[str, Any] = {}
    found = []
    for row in read_measured(folder):
        path = folder / row["file"]
        if row["file"] not in kernels:
            kernels[row["file"]] = file_kernels(path)
        entry = next(each for each in load_bundle(path.parent).artifacts if each.file == path.name)
        taken = row["medians_ms"]
        point = {
            "network": path.parent.name, "runtime": row["runtime"], "precision": entry.precision,
            "threads": row["threads"], "ms": statistics.median(taken),
            "spread": (max(taken) - min(taken)) / statistics.median(taken),
        }  # fmt: skip
        for key, profile in profiles.items():
            estimate = predict(
                kernels[row["file"]], profile, runtime=row["runtime"], num_threads=row["threads"]
            )
            point[key], point[f"{key}_grade"] = estimate.latency_ms, estimate.grade
            point[f"{key}_in_band"] = estimate.low_ms <= point["ms"] <= estimate.high_ms
        found.append(point)
    return found


def report(found: list[dict[str, Any]]) -> str:
    """The table and the shares, as Markdown."""
    lines = [
        "| network | runtime | precision | threads | measured ms | spread | before | after | error after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for p in sorted(found, key=lambda p: (p["network"], p["runtime"], p["precision"], p["threads"])):
        lines.append(
            f"| {p['network']} | {p['runtime']} | {p['precision']} | {p['threads']} | {p['ms']:.3f} | "
            f"{p['spread']:.1%} | {p['before']:.3f} | {p['after']:.3f} | {p['after'] / p['ms'] - 1:+.1%} |"
        )
    lines += [
        "",
        "| " + " | ".join(["prediction", "points", "±10%", "±20%", "±30%", "median error", "in band"]) + " |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    groups = {"before": found, "after": found}
    for key, rows in groups.items():
        lines.append(_shares(key, rows, key))
    for runtime in sorted({p["runtime"] for p in found}):
        for threads in sorted({p["threads"] for p in found}):
            rows = [p for p in found if p["runtime"] == runtime and p["threads"] == threads]
            if rows:
                lines.append(_shares(f"after, {runtime}, {threads} thread(s)", rows, "after"))
    return "\n".join(lines)


def _shares(title: str, rows: list[dict[str, Any]], key: str) -> str:
    errors = [abs(p[key] / p["ms"] - 1) for p in rows]
    shares = [f"{sum(e <= limit for e in errors) / len(errors):.0%}" for limit in (0.1, 0.2, 0.3)]
    band = sum(p[f"{key}_in_band"] for p in rows) / len(rows)
    return f"| {title} | {len(rows)} | {' | '.join(shares)} | {statistics.median(errors):.1%} | {band:.0%} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("export", "measure", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS), help="only these networks")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--budget", type=float, default=460.0, help="seconds that measuring may take in one call"
    )
    parser.add_argument("--profile", default="host_calibrated")
    parser.add_argument("--before", default="host")
    parser.add_argument("--json", type=Path, help="write the points here too")
    given = parser.parse_args()
    if given.step == "export":
        export_all(given.folder, given.models.split(","))
    elif given.step == "measure":
        measure_all(given.folder, [int(count) for count in given.threads.split(",")], given.budget)
    else:
        found = points(given.folder, given.profile, given.before)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
        print(report(found))


if __name__ == "__main__":
    main()
