"""The tables of docs/methods.md: what each method makes of each model, on real data.

    python benchmarks/methods_table.py                      # all that isn't done yet, then the page
    python benchmarks/methods_table.py --model mnist --method qat,prune50 --stage export,count
    python benchmarks/methods_table.py --stage time         # alone on a quiet machine

Run it from the checkout. Stages: ``export`` (files, accuracy, size), ``students`` (distillation over several seeds),
``agree`` (how often a file's best class is the float32 file's), ``count`` (arm64 instructions on the emulated board;
needs ``edgeopt emulator setup``), ``time`` (latency on this machine, one thread), ``estimate`` (predicted latency on the
device), ``page``. Each finished cell stands in the user's cache, keyed by its recipe, so that an interrupted run goes
on where it stopped; ``--redo`` forgets the chosen ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import methods_page
import methods_students
from methods_catalog import MODELS, Method, Model

import edgeopt
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.disk import cache_folder

PROFILE = "pixel7"
STAGES = ("export", "students", "agree", "count", "time", "estimate", "page")
CELL, STUDENTS = "cell.json", "students.json"
# Seconds of measuring a file: three fresh processes and more until the interval is narrow.
TIME_S = 5.0


def folder() -> Path:
    """Where bundles and cells are kept."""
    return cache_folder() / "methods"


@dataclass(frozen=True)
class Cell:
    """One model made smaller by one method: a bundle, and beside it what was found out about its files."""

    model: Model
    method: Method

    @property
    def home(self) -> Path:
        return folder() / self.model.name / self.method.name

    @property
    def key(self) -> str:
        """Changes when the recipe does."""
        method, recipe = self.method, self.method.recipe_file
        text = repr((method.recipe, method.variant)) + (recipe.read_text() if recipe else "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self) -> dict[str, Any] | None:
        """What is known, or None when nothing is or it was another recipe."""
        path = self.home / CELL
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return found if found.get("key") == self.key else None

    def save(self, data: dict[str, Any]) -> None:
        path = self.home / CELL
        part = path.with_suffix(".part")
        part.write_text(json.dumps(data, indent=1))
        part.replace(path)

    @property
    def bundle(self) -> Path:
        return self.home / "bundle"


def export(cell: Cell) -> None:
    """Make the bundle, unless it is there."""
    if cell.load() is not None:
        return
    cell.home.mkdir(parents=True, exist_ok=True)
    model, method = cell.model, cell.method
    place = f"{model.source}:{model.name}"
    options: dict[str, Any] = {} if method.recipe_file else {"precision": method.recipe}
    if method.recipe_file:
        options["recipe"] = str(method.recipe_file)
    if model.trains:
        options["training"] = f"{place}_training"
    try:
        made = edgeopt.export(
            f"{place}{method.variant}",
            profile=PROFILE,
            formats=method.formats or model.formats,
            example_inputs=f"{place}_example",
            calibration=f"{place}_calibration",
            evaluate=f"{place}_evaluate",
            output=cell.bundle,
            force=True,
            max_parallel=1,
            progress=lambda what: print(f"  {what}", file=sys.stderr, flush=True),
            **options,
        )
    except edgeopt.GateError as error:
        # A file that isn't near enough to its model is a result too: the table says so.
        made = error.bundle
    manifest = made.manifest
    optimized = manifest.optimization
    assert manifest.evaluation is not None
    files = {}
    for artifact in made.artifacts:
        content = made.artifact_path(artifact).read_bytes()
        files[artifact.format] = {
            "file": artifact.file,
            "metric": artifact.metric,
            "size_bytes": len(content),
            "zlib_bytes": len(zlib.compress(content, 6)),
            "snr_db": min((p["snr_db"] for p in artifact.parity if p["snr_db"] is not None), default=None),
            "cosine": min((p["cosine"] for p in artifact.parity if p["cosine"] is not None), default=None),
            "status": artifact.status,
            "changes": artifact.changes,
            "warnings": artifact.warnings,
            "contents": artifact.contents,
        }
    cell.save(
        {
            "key": cell.key,
            "created": manifest.created,
            "versions": manifest.versions,
            "metric_name": manifest.evaluation.metric,
            "source_metric": manifest.evaluation.value,
            "optimized_metric": optimized["metric"] if optimized else None,
            "samples": manifest.evaluation.samples,
            "macs": optimized["macs"][1] if optimized else manifest.source["macs"],
            "parameters": optimized["parameters"][1] if optimized else manifest.source["parameters"],
            "passes": optimized["passes"] if optimized else [],
            "not_made": manifest.not_made,
            "warnings": manifest.warnings,
            "files": files,
        }
    )


def _each_file(cell: Cell, wanted: str, find: Callable[[Path], Any]) -> None:
    """Add what ``find`` says of each file, where it isn't known yet."""
    data = cell.load()
    for file in (data or {"files": {}})["files"].values():
        if wanted not in file:
            try:
                file[wanted] = find(cell.bundle / file["file"])
            except edgeopt.EdgeoptError as error:
                print(f"  {wanted} of {file['file']}: {error}", file=sys.stderr)
                continue
            assert data is not None
            cell.save(data)


def agree(cell: Cell) -> None:
    """Agreement with the float32 file of the same format."""
    from methods_agreement import agreement

    base = Cell(cell.model, cell.model.methods[0])
    evaluate = f"{cell.model.source.stem}:{cell.model.name}_evaluate"

    def same(path: Path) -> float | None:
        reference = base.bundle / f"model{path.suffix}"
        return agreement(path, reference, evaluate) if reference.is_file() else None

    _each_file(cell, "agreement", same)


def count(cell: Cell) -> None:
    """Instructions of one inference on the emulated big core."""
    from edgeopt.android_harness.emulator import cpu_of, run
    from edgeopt.bundle import load_bundle
    from edgeopt.device_profiles import load_profile

    def instructions(path: Path) -> dict[str, Any]:
        inputs = load_bundle(cell.bundle).golden()[0][0]
        found = run(path, inputs, cpu_of(load_profile(PROFILE)))
        assert found.counts is not None
        return {"instructions": found.counts.instructions, "mix": found.counts.mix()}

    _each_file(cell, "emulated", instructions)


def time(cell: Cell) -> None:
    """Latency on this machine."""

    def latency(path: Path) -> dict[str, Any]:
        records = edgeopt.bench(path, MeasureOptions(max_time_s=TIME_S)).run.records
        found = next(record for record in records if record.metric == "latency_ms")
        return {"latency_ms": found.value, "band": list(found.ci95 or ())}

    _each_file(cell, "host", latency)


def estimate(cell: Cell) -> None:
    """Predicted latency on the device, from the cost model."""
    if not hasattr(edgeopt, "estimate"):
        return

    def predicted(path: Path) -> dict[str, Any]:
        found = edgeopt.estimate(str(path), profile=PROFILE).items[0].latency
        return {"latency_ms": found.latency_ms, "band": [found.low_ms, found.high_ms], "grade": found.grade}

    _each_file(cell, "predicted", predicted)


def students(model: str) -> dict[str, Any] | None:
    """What the study of distillation has found so far."""
    path = folder() / model / STUDENTS
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def run_students(model: str) -> None:
    """The study of distillation, from where it stopped."""
    home = folder() / model
    home.mkdir(parents=True, exist_ok=True)

    def save(found: dict[str, Any]) -> None:
        part = home / f"{STUDENTS}.part"
        part.write_text(json.dumps(found))
        part.replace(home / STUDENTS)

    methods_students.study(model, students(model) or {}, home, save)


def cells(models: list[str], methods: list[str]) -> Iterator[Cell]:
    for model in MODELS.values():
        if models and model.name not in models:
            continue
        for method in model.methods:
            if not methods or method.name in methods:
                yield Cell(model, method)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="", help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument("--method", default="", help="comma-separated names of methods")
    parser.add_argument("--stage", default=",".join(STAGES), help=f"comma-separated, of {', '.join(STAGES)}")
    parser.add_argument("--redo", action="store_true", help="make the chosen cells anew")
    arguments = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)  # recipes name their teachers from here
    stages = arguments.stage.split(",")
    wanted = list(
        cells([m for m in arguments.model.split(",") if m], [m for m in arguments.method.split(",") if m])
    )
    for cell in wanted if arguments.redo else ():
        (cell.home / CELL).unlink(missing_ok=True)
    failed = 0
    by_name = {"export": export, "agree": agree, "count": count, "time": time, "estimate": estimate}
    for name, stage in by_name.items():
        for cell in wanted if name in stages else ():
            print(f"{name}: {cell.model.name} {cell.method.name}", file=sys.stderr, flush=True)
            try:
                stage(cell)
            except edgeopt.EdgeoptError as error:
                failed += 1
                print(f"  failed: {error}", file=sys.stderr, flush=True)
    chosen = dict.fromkeys(cell.model.name for cell in wanted if cell.model.name in methods_students.SETS)
    for name in chosen if "students" in stages and not arguments.method else ():
        print(f"students: {name}", file=sys.stderr, flush=True)
        run_students(name)
    if "page" in stages:
        found = {(c.model.name, c.method.name): c.load() for c in cells([], [])}
        methods_page.write(found | {(name, "students"): students(name) for name in methods_students.SETS})
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
