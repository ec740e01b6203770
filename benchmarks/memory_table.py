"""Estimated against measured memory of model files on this machine: python benchmarks/memory_table.py FILES...

Each file is loaded and run once in a process of its own; what its resident set grew by at the most, above the
runtime's own after its packages were imported, is set beside estimate_memory(). ``--fit`` prints what a runtime
takes beyond that sum (the median over the files), as it stands in cost_model/memory.toml.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from edgeopt.converters.kernels import read_work
from edgeopt.cost_model.memory import MemoryEstimate, estimate_memory, runtime_mib

_CHILD = """
import json, sys
from pathlib import Path
from edgeopt.android_harness.measure_worker import Bench, cold_start
job = {"cpu_affinity": None, "path": Path(sys.argv[1]), "runtime": sys.argv[2], "num_threads": 1, "use_xnnpack": True}
print("MEMORY", json.dumps(cold_start(Bench(job))))
"""


def measured_mib(path: Path, runtime: str) -> float:
    """Peak growth of the resident set of a fresh process that loads and runs the file once."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path.resolve()), runtime],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.rpartition("MEMORY")[2])["peak_mib"])


def main() -> None:
    """Print the table and its errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--fit", action="store_true", help="print what each runtime takes beyond the sum")
    options = parser.parse_args()
    rows: list[tuple[Path, str, MemoryEstimate, float]] = []
    for path in options.files:
        work = read_work(path)
        found = estimate_memory(work.memory, work.kernels, work.runtime)
        rows.append((path, work.runtime, found, measured_mib(path, work.runtime)))
        print(_line(*rows[-1]), flush=True)
    for runtime in sorted({row[1] for row in rows}):
        mine = [row for row in rows if row[1] == runtime]
        errors = [abs(found.peak_mib / measured - 1) for _, _, found, measured in mine]
        print(
            f"{runtime}: {len(mine)} files, median error {statistics.median(errors):.0%}, worst {max(errors):.0%}"
        )
        if options.fit:
            beyond = [measured - (found.peak_mib - runtime_mib(runtime)) for _, _, found, measured in mine]
            print(f"  {runtime} = {statistics.median(beyond):.1f}  # {min(beyond):.1f} to {max(beyond):.1f}")


def _line(path: Path, runtime: str, found: MemoryEstimate, measured: float) -> str:
    name = "/".join(path.parts[-2:])
    return (
        f"{name:44} weights {found.weights_mib:7.2f}  packed {found.packed_mib:7.2f}  arena {found.arena_mib:6.2f}"
        f"  peak {found.peak_mib:7.2f}  measured {measured:7.2f} MiB  {found.peak_mib / measured - 1:+.0%}"
    )


if __name__ == "__main__":
    main()
