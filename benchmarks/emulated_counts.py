"""Counts what XNNPACK executes on emulated Arm cores: the calibration suite and a few real networks, every precision.

    python benchmarks/emulated_counts.py FOLDER [--networks FOLDER2] [--keep] [--write]

FOLDER keeps the files that are made (half precision ones; the suite's own stand in the user's cache) and every count,
so that an interrupted run goes on. ``--networks`` is a folder of calibration_check.py (its ``export``). ``--write`` puts
kernels and counts into benchmarks/emulated_counts.json.gz, which the cost model's fit reads (emulated_rows.py).
``--keep`` leaves what that file has as it is where the kernels are still the same, half precision unseen, and counts
only what is missing of its files: a core that was added to CORES. Needs ``edgeopt emulator setup``; about half an hour
on one core, a few minutes for one more core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.android_harness.emulator import Cpu, cpu_of, run, setup
from edgeopt.android_harness.emulator.counts import Counts
from edgeopt.bundle import load_bundle
from edgeopt.converters.kernels import file_kernels
from edgeopt.cost_model import Kernel
from edgeopt.device_profiles import load_profile

HERE = Path(__file__).resolve().parent
DATA = HERE / "emulated_counts.json.gz"
# Networks with no relatives among the published rows, lest a model held out be known from here.
NETWORKS = ("bert_tiny", "mobilevit_xxs", "vit_tiny")
# Core -> (profile, cluster): one of every kind of kernels that XNNPACK has for Arm.
CORES = {
    "cortex-a53": ("raspberry_pi_3b_plus", 0),
    "cortex-a72": ("raspberry_pi_4", 0),
    "cortex-a55": ("pixel7", 0),
    "cortex-a76": ("raspberry_pi_5", 0),
    "cortex-x1": ("pixel7", 2),
    "cortex-x3": ("galaxy_s23", 3),
}
# Both runtimes call the same kernels; .pte files have them in half precision too.
FORMAT = "pte"
_DEFAULTS = {field.name: field.default for field in fields(Kernel)}


@dataclass(frozen=True)
class Counted:
    """A file to be counted, with the inputs to run it with."""

    key: str
    path: Path
    inputs: tuple[np.ndarray, ...]


def suite(folder: Path, *, half: bool = True) -> Iterator[Counted]:
    """The calibration suite's files, and with ``half`` those in half precision, made into ``folder``."""
    import torch

    from edgeopt import GateError, export
    from edgeopt.calibration.files import suite_files
    from edgeopt.calibration.suite import suite as carriers

    known = {each.name: each for each in carriers()}

    def inputs(name: str) -> tuple[np.ndarray, ...]:
        torch.manual_seed(0)
        return tuple(tensor.numpy() for tensor in known[name].example())

    for file in suite_files(list(known), lambda *_: None):
        if file.path.suffix == f".{FORMAT}":
            yield Counted(f"{file.carrier} {file.precision}", file.path, inputs(file.carrier))
    for name, carrier in known.items() if half else ():
        bundle = folder / "half" / name
        if not bundle.is_dir():
            torch.manual_seed(0)
            example = tuple(torch.from_numpy(array) for array in inputs(name))
            try:
                export(
                    carrier.make().eval(), profile="pixel7", formats=("pte",), precision="fp16",
                    example_inputs=example, output=bundle, name=name,
                )  # fmt: skip
            except GateError as error:
                # Its speed counts here, whatever its random weights lose in half precision.
                print(f"{name}: {error}", file=sys.stderr)
        if (bundle / "model.pte").is_file():
            yield Counted(f"{name} fp16", bundle / "model.pte", inputs(name))


def networks(folder: Path) -> Iterator[Counted]:
    """The files of the bundles in ``folder``, as calibration_check.py exports them."""
    sys.path.insert(0, str(HERE))
    from calibration_models import example

    for name in NETWORKS:
        manifest = folder / name / "manifest.json"
        for entry in load_bundle(manifest.parent).artifacts:
            if entry.format == FORMAT:
                inputs = (example(name).numpy(),)
                yield Counted(f"{name} {entry.precision}", manifest.parent / entry.file, inputs)


def kernels_of(path: Path) -> list[dict[str, Any]]:
    """The kernels of a file, without what is as usual."""
    return [
        {name: value for name, value in asdict(kernel).items() if value != _DEFAULTS[name] and name != "name"}
        for kernel in file_kernels(path)
    ]


def count(folder: Path, chosen: Iterable[Counted], kept: dict[str, Any]) -> dict[str, Any]:
    """Count every file on every core of :data:`CORES`, and bring ``kept`` (an earlier answer of this function) up to date
    with it. What is in ``folder`` already isn't counted again, nor what ``kept`` has of a file with the same kernels."""
    store = folder / f"counts-{setup().fingerprint}.jsonl"
    lines = store.read_text().splitlines() if store.exists() else []
    done: dict[tuple[str, str], dict[str, Any]] = {}
    for line in map(json.loads, lines):
        done[line["key"], line["core"]] = line["counts"]
    cpus: dict[str, Cpu] = {core: cpu_of(load_profile(name), at) for core, (name, at) in CORES.items()}
    found = dict(kept)
    with store.open("a", encoding="utf-8") as stream:
        for each in chosen:
            counts = {}
            kernels = kernels_of(each.path)
            earlier = kept.get(each.key, {})
            if earlier.get("kernels") == kernels:
                done |= {(each.key, core): counted for core, counted in earlier["counts"].items()}
            for core, cpu in cpus.items():
                if each.key.endswith(" fp16") and "fp16" not in cpu.isa:
                    continue
                if (each.key, core) not in done:
                    taken = run(each.path, list(each.inputs), cpu).counts
                    assert taken is not None
                    done[each.key, core] = _packed(taken)
                    line = {"key": each.key, "core": core, "counts": done[each.key, core]}
                    stream.write(json.dumps(line) + "\n")
                    stream.flush()
                counts[core] = done[each.key, core]
            found[each.key] = {"kernels": kernels, "counts": counts}
            if found[each.key] == found.get(f"{each.key.rsplit(' ', 1)[0]} fp32") and not each.key.endswith(
                " fp32"
            ):
                del found[each.key]  # nothing in it could be quantised dynamically
            print(each.key, file=sys.stderr, flush=True)
    return found


def _packed(counts: Counts) -> dict[str, Any]:
    whole = vars(counts)
    return {
        name: {k: v for k, v in value.items() if v} if isinstance(value, dict) else value
        for name, value in whole.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--keep", action="store_true", help=f"count only what {DATA.name} lacks of its files")
    parser.add_argument("--write", action="store_true", help=f"write {DATA.name}")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = json.loads(gzip.decompress(DATA.read_bytes())) if given.keep else {}
    chosen = [suite(given.folder, half=not given.keep)]
    chosen += [networks(given.networks)] if given.networks else []
    wanted = (each for each in chain(*chosen) if each.key in kept or not given.keep)
    found = count(given.folder, wanted, kept)
    if given.write:
        lines = [
            f"{json.dumps(key)}: {json.dumps(found[key], separators=(',', ':'))}" for key in sorted(found)
        ]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        DATA.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
