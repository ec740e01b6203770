"""Learns the cost model's constants from published latencies and says how well it predicts what it never saw.

    python benchmarks/fit_cost_model.py CSV [--write] [--report FILE.md] [--plot FILE.svg] [--no-validation]

CSV (columns model, framework, precision, threads, device, soc, latency_ms, source; EDGEOPT_LATENCIES names it
when it isn't given) isn't part of the repository. The fit is a maximum a posteriori estimate: logarithms of
predicted over published latency with a robust loss, and a normal prior for every constant, wide for what all
devices share, narrow for what one core, chip or run may deviate by (partial pooling). The slopes are
PyTorch's, the least squares SciPy's. Rows of the emulator's cycle model (emulated_rows.py) join the published ones
where XNNPACK has few, and what we measured ourselves (measured_rows.py) those of x86. ``--write`` puts the constants into cost_model/fitted.json,
``--write-cores`` those of a newly measured core alone, whose rows shape nothing else: no held-out figure changes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cost_model_report as report
import cost_model_validation as validation
import numpy as np
from cost_model_fit import Fit
from cost_model_problem import Problem
from cost_model_write import constants_of, prior_constants, write_constants, write_parts
from emulated_rows import emulated_rows
from measured_rows import measured_rows
from published_rows import sort_rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="?", default=os.environ.get("EDGEOPT_LATENCIES"), type=Path)
    parser.add_argument("--write", action="store_true", help="write cost_model/fitted.json")
    parser.add_argument("--write-cores", help="write only these measured cores, e.g. x86-zen4", metavar="A,B")
    parser.add_argument(
        "--write-library",
        action="store_true",
        help="with it, also what is XNNPACK's own and emulated counts shape",
    )
    parser.add_argument("--report", type=Path, help="write the tables as Markdown")
    parser.add_argument("--plot", type=Path, help="write predicted against published as SVG or PNG")
    parser.add_argument("--iterations", type=int, default=40, help="of the optimiser, whole data")
    parser.add_argument("--folds", type=int, default=0, help="groups to hold out instead of one by one")
    parser.add_argument("--jobs", type=int, default=1, help="folds at once")
    parser.add_argument("--no-validation", action="store_true", help="fit only")
    parser.add_argument("--prior", action="store_true", help="write the constants that the fit starts from")
    given = parser.parse_args()
    if given.prior:
        write_constants(prior_constants(), {})
        return 0
    if given.csv is None:
        parser.error("give the CSV of published latencies, or set EDGEOPT_LATENCIES")
    rows, left_out = sort_rows(given.csv)
    emulated, measured = emulated_rows(), measured_rows()
    problem = Problem([*rows, *emulated, *measured])
    print(
        f"{len(rows)} published rows, {len(emulated)} emulated, {len(measured)} measured ones, {len(problem.chips)} chips, {len(problem.cores)} cores",
        file=sys.stderr,
    )
    fit = Fit(problem)
    fit.solve(given.iterations)
    fit.learn_measured(given.iterations)
    errors = np.split(fit.log_errors(), [len(rows), len(rows) + len(emulated)])
    for origin, those in zip(("published", "emulated", "measured"), errors, strict=True):
        print(f"fitted, {origin}: {report.shares(those)}", file=sys.stderr)
    held = None
    if not given.no_validation:
        held = validation.validate(problem, fit, given.folds, given.jobs)
        text = report.tables(rows, held, left_out)
        print(text)
        if given.report:
            given.report.write_text(text, encoding="utf-8")
        if given.plot:
            report.plot(rows, held, given.plot)
    of_measured = {
        "measured_rows": len(measured),
        "measured_cores": sorted({row.machine.clusters[0].core for row in measured}),
    }
    if given.write:
        origin = report.provenance(rows, held) | {"emulated_rows": len(emulated)} | of_measured
        write_constants(constants_of(fit, report.bands(held)), origin)
    elif given.write_cores:
        cores = given.write_cores.split(",")
        of_measured["parts"] = f"fit_cost_model.py CSV {' '.join(sys.argv[2:])}"
        write_parts(constants_of(fit, report.bands(None)), cores, of_measured, library=given.write_library)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
