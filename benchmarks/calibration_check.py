"""How well a calibrated profile predicts networks that are not in the calibration's suite.

Three steps, each of which goes on where it was stopped:

    python benchmarks/calibration_check.py export FOLDER       the networks of calibration_models.py as files
    python benchmarks/calibration_check.py measure FOLDER      suite and networks in turns, on this machine
    python benchmarks/calibration_check.py report FOLDER

Measure on a quiet machine. The report fits the calibration as `edgeopt profiles calibrate host` does, from the
suite's latencies alone (FOLDER/host_calibrated.toml), and gives every point (network × runtime × precision × threads)
with the prediction of either profile, and the shares within ±10, 20 and 30%. ``--profile`` takes a calibration that
was made before instead.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from calibration_models import MODELS, build, example

from edgeopt import GateError, export, load_bundle, load_profile
from edgeopt.calibration.files import SuiteFile, suite_files, suite_folder
from edgeopt.calibration.measuring import Journal, measure_here, profile_here, settle_here
from edgeopt.calibration.run import fields_of, observations, write_calibrated
from edgeopt.calibration.suite import VERSION, suite
from edgeopt.converters.kernels import file_kernels
from edgeopt.cost_model import predict
from edgeopt.cost_model.calibrate import fit_device
from edgeopt.runtimes import version_of
from edgeopt.wording import counted

RUNTIME = {"pte": "executorch", "tflite": "litert"}
PRECISIONS = "fp32,int8-static,int8-dynamic"


def export_all(folder: Path, names: list[str]) -> None:
    """Write a bundle a network; one that is there is kept."""
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


def files_of(folder: Path) -> list[SuiteFile]:
    """The files of all bundles in ``folder``."""
    found = []
    for manifest in sorted(folder.glob("*/manifest.json")):
        bundle = manifest.parent
        found += [
            SuiteFile(bundle.name, entry.precision, RUNTIME[entry.format], bundle / entry.file)
            for entry in load_bundle(bundle).artifacts
        ]
    return found


def measure_all(folder: Path, threads: list[int], rounds: int, budget_s: float) -> None:
    """Take the latency of every file, each round in a fresh process; suite and networks take turns, so that both see
    the machine in the same hour. A line a time goes to ``suite.jsonl`` and ``measured.jsonl``."""
    started = time.monotonic()
    say = lambda what, fraction=None: print(f"{fraction or 0:.0%} {what}", flush=True)  # noqa: E731
    sides = [
        (suite_files([each.name for each in suite()], say), _journal(folder, "suite", threads)),
        (files_of(folder), _journal(folder, "measured", threads)),
    ]
    steps = [(measure_here, side, turn) for turn in range(1, rounds + 1) for side in sides]
    steps += [(settle_here, side, rounds) for side in sides] + [(profile_here, sides[0], rounds)]
    for step, (files, journal), turns in steps:
        left = budget_s - (time.monotonic() - started)
        if left <= 0 or not step(files, threads, turns, journal, say, budget_s=left):
            print("out of time: call again to go on")
            return
    for problem in {problem for _, journal in sides for problem in journal.problems}:
        print(problem)


def _journal(folder: Path, name: str, threads: list[int]) -> Journal:
    return Journal.open(folder / f"{name}.jsonl", {"threads": threads, "suite": suite_folder().name})


def fitted(folder: Path, threads: list[int], rounds: int, before: str) -> str:
    """The profile that the suite's latencies make of ``before``."""
    files = suite_files([each.name for each in suite()], lambda *_: None)
    latencies = Journal.read(folder / "suite.jsonl").latencies(files, threads, rounds)
    base = load_profile(before)
    table = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "device": "this machine",
        "conditions": "host", "runtimes": {name: str(version_of(name)) for name in sorted(RUNTIME.values())},
        "suite": VERSION, "measurements": len(latencies), "threads": threads,
        **fields_of(fit_device(observations(latencies), base)),
    }  # fmt: skip
    write_calibrated(base, before, folder / "host_calibrated.toml", table)
    return str(folder / "host_calibrated.toml")


def points(folder: Path, threads: list[int], rounds: int, after: str, before: str) -> list[dict[str, Any]]:
    """Every measured point with both predictions."""
    profiles = {"before": load_profile(before), "after": load_profile(after)}
    journal = Journal.read(folder / "measured.jsonl")
    found = []
    for taken in journal.latencies(files_of(folder), threads, rounds):
        file = taken.file
        point: dict[str, Any] = {
            "network": file.carrier, "runtime": file.runtime, "precision": file.precision, "threads": taken.threads,
            "ms": taken.ms, "spread": taken.spread,
        }  # fmt: skip
        kernels = file_kernels(file.path)
        for key, profile in profiles.items():
            estimate = predict(kernels, profile, runtime=file.runtime, num_threads=taken.threads)
            point[key], point[f"{key}_grade"] = estimate.latency_ms, estimate.grade
            point[f"{key}_in_band"] = estimate.low_ms <= taken.ms <= estimate.high_ms
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
                lines.append(_shares(f"after, {runtime}, {counted(threads, 'thread')}", rows, "after"))
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--budget", type=float, default=450.0, help="seconds that measuring may take in one call"
    )
    parser.add_argument(
        "--profile", help="a calibrated profile, instead of one fitted to the suite's latencies"
    )
    parser.add_argument("--before", default="host")
    parser.add_argument("--json", type=Path, help="write the points here too")
    given = parser.parse_args()
    threads = [int(count) for count in given.threads.split(",")]
    if given.step == "export":
        export_all(given.folder, given.models.split(","))
    elif given.step == "measure":
        measure_all(given.folder, threads, given.rounds, given.budget)
    else:
        profile = given.profile or fitted(given.folder, threads, given.rounds, given.before)
        found = points(given.folder, threads, given.rounds, profile, given.before)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
        print(report(found))


if __name__ == "__main__":
    main()
