"""Latencies of the calibration's suite on machines of ours, as rows for the cost model's fit.

    python benchmarks/measured_rows.py FOLDER --rounds 4     FOLDER of calibration_check.py, after its ``measure``

puts this machine into benchmarks/measured_latencies.json.gz, instead of an earlier measurement of the same processor:
its data, and of each file the kernels and the fastest round. Published rows
of x86 are few, none of ExecuTorch or LiteRT and none with AVX-512: these say what XNNPACK makes of such cores. They shape
the constants of those cores alone, in a step of their own.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from published_rows import Row

from edgeopt.cost_model import Kernel
from edgeopt.cost_model.machine import Machine, cluster_of

DATA = Path(__file__).resolve().parent / "measured_latencies.json.gz"
# Networks of one kind of kernel each: the formula is off by more than a real network, which mixes them.
NOISE = 0.25
# Below it a call's own cost counts for more than the kernels. (Zen 5 and Golden Cove were stored with 0.05.)
SHORTEST_MS = 0.01
_DEFAULTS = {field.name: field.default for field in fields(Kernel)}


def measured_rows() -> list[Row]:
    """A row for each machine, file, runtime and number of threads."""
    return [row for machine in _stored() for row in _rows(machine)]


def _stored() -> list[dict[str, Any]]:
    machines: list[dict[str, Any]] = json.loads(gzip.decompress(DATA.read_bytes()))["machines"]
    return machines


def _rows(data: dict[str, Any]) -> Iterator[Row]:
    where = data["machine"]
    cluster = cluster_of(
        where["core"], where["count"], where["mhz"], where["isa"], arch=where["arch"], l2_kib=where["l2_kib"],
        l2_shared=where["l2_shared"],
    )  # fmt: skip
    machine = Machine(_name(where), _name(where), (cluster,), where["l3_kib"], where["bandwidth_gb_s"])
    for key, entry in data["latencies"].items():
        kernels = tuple(Kernel(name=str(i), **each) for i, each in enumerate(entry["kernels"]))
        network, precision, runtime = key.split(" ")
        for threads, latency_ms in entry["latency_ms"].items():
            yield Row(
                library="xnnpack", model=network, architecture=key, precision=precision.split("-")[0],
                threads=int(threads), device=machine.name, chip=machine.name, family="x86",
                config=f"measured {machine.name} {runtime} {threads}", machine=machine, latency_ms=latency_ms,
                source=DATA.name, era="", noise=NOISE, kernels=kernels, origin="measured",
            )  # fmt: skip


def _name(machine: dict[str, Any]) -> str:
    return f"{machine['soc']} ({machine['core']})"


def write(folder: Path, rounds: int) -> None:
    """Put what ``folder`` holds of the suite, or of a part of it, into :data:`DATA`."""
    from edgeopt.calibration.files import suite_files, suite_folder
    from edgeopt.calibration.measuring import Journal
    from edgeopt.calibration.suite import VERSION, suite
    from edgeopt.converters.kernels import file_kernels
    from edgeopt.cost_model.machine import machine_of
    from edgeopt.device_profiles import load_profile
    from edgeopt.runtimes import version_of

    host = load_profile("host")
    machine, (cluster,) = machine_of(host), host.cpu.clusters
    made = [each.name for each in suite() if (suite_folder() / each.name).is_dir()]
    files = suite_files(made, lambda *_: None)
    latencies: dict[str, dict[str, Any]] = {}
    for taken in Journal.read(folder / "suite.jsonl").latencies(files, (1, 2), rounds):
        kernels = file_kernels(taken.file.path)
        if kernels and taken.ms >= SHORTEST_MS:
            entry = latencies.setdefault(
                taken.file.key, {"kernels": [_fields(each) for each in kernels], "latency_ms": {}}
            )
            entry["latency_ms"][str(taken.threads)] = round(taken.ms, 5)
    data = {
        "date": datetime.date.today().isoformat(),
        "suite": VERSION,
        "runtimes": {name: str(version_of(name)) for name in ("executorch", "litert")},
        "machine": {
            "soc": host.soc, "arch": host.arch, "core": cluster.core, "count": cluster.count, "mhz": cluster.max_mhz,
            "isa": list(cluster.isa), "l2_kib": cluster.l2_kib, "l2_shared": cluster.l2_shared,
            "l3_kib": machine.llc_kib, "bandwidth_gb_s": machine.bandwidth_gb_s,
        },
        "latencies": latencies,
    }  # fmt: skip
    # Virtual machines name their processors alike: the core tells them apart.
    machines = {_name(each["machine"]): each for each in [*_stored(), data]}
    part = DATA.with_suffix(".part")
    part.write_bytes(
        gzip.compress(
            json.dumps({"machines": [each for _, each in sorted(machines.items())]}).encode(), mtime=0
        )
    )
    part.replace(DATA)


def _fields(kernel: Kernel) -> dict[str, Any]:
    """What differs from the defaults; names aren't needed."""
    return {
        name: value for name, value in asdict(kernel).items() if name != "name" and value != _DEFAULTS[name]
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    write(given.folder, given.rounds)


if __name__ == "__main__":
    main()
