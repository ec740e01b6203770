"""Whether energy = power of the device × latency holds on published figures: python benchmarks/energy_sanity.py CSV

The CSV (columns model, submitter, device, energy_uJ_per_inference, latency_ms_in_energy_mode, source; MLPerf Tiny's
energy mode) isn't part of the repository. For every board the power is taken from all models but one, and the
energy of that one is predicted from its latency alone.
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path


def main(path: Path) -> None:
    """Print the errors of leaving each model out, and the range of the boards' powers."""
    boards: dict[tuple[str, str], list[tuple[str, float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            try:
                energy_uj = float(row["energy_uJ_per_inference"])
                latency_ms = float(row["latency_ms_in_energy_mode"])
            except ValueError:
                continue
            if energy_uj > 0 and latency_ms > 0:
                boards[row["submitter"], row["device"]].append((row["model"], energy_uj, latency_ms))
    errors, powers = [], []
    for rows in boards.values():
        if len(rows) < 3:
            continue
        powers.append(statistics.median(energy / latency for _, energy, latency in rows))
        for left_out in rows:
            power_mw = statistics.median(e / t for model, e, t in rows if model != left_out[0])
            errors.append(math.log(power_mw * left_out[2] / left_out[1]))
    sizes = [abs(math.expm1(error)) for error in errors]
    print(
        f"{len(errors)} figures of {len(powers)} boards; their powers are {min(powers):.1f} to {max(powers):.0f} mW"
    )
    print(
        f"energy from latency × the board's power with the other models: median error {statistics.median(sizes):.0%}"
    )
    for limit in (0.1, 0.2, 0.5):
        print(f"  within ±{limit:.0%}: {sum(size <= limit for size in sizes) / len(sizes):.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
