"""The child that times a batch of the suite: ``python -m edgeopt.calibration.worker FOLDER``.

One process for many files, so that the runtime is loaded once; each file is loaded, warmed up, timed (or, where the
job asks for ``ops``, its operators are) and given back. Every time is written down at once: an interrupted batch
keeps what it has.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..android_harness.measure_worker import Bench, Stop, warm_up
from ..android_harness.profile_worker import recorded_ops
from ..errors import EdgeoptError
from ..runtimes import preload
from ..runtimes.worker import serve

_WARMUP_S = 1.0
_LEAST_RUNS = 5


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Time each file of the job; ``times.jsonl`` in the folder gets a line a file."""
    stop = Stop()
    preload(job["runtime"])
    # What the imports left is never garbage: looking through it costs more than a file's whole measurement.
    gc.freeze()
    with (folder / "times.jsonl").open("w", buffering=1) as stream:
        for file in job["files"]:
            if stop.asked:
                break
            taken = _ops(file["path"], job) if job["ops"] else _one(file["path"], job, stop)
            stream.write(json.dumps({"key": file["key"], **taken}) + "\n")
    return {"partial": stop.asked}


def _one(path: str, job: dict[str, Any], stop: Stop) -> dict[str, Any]:
    try:
        bench = Bench({**job, "path": path, "cpu_affinity": [], "use_xnnpack": True, "inputs": None})
    except EdgeoptError as error:
        return {"error": str(error)}
    warm_up(bench, _LEAST_RUNS, _WARMUP_S, stop)
    times = bench.for_seconds(job["seconds"], least=_LEAST_RUNS, most=20_000)
    bench.model.close()
    gc.enable()
    del bench
    gc.collect()
    return {"median_ms": float(np.median(times)), "runs": len(times)}


def _ops(path: str, job: dict[str, Any]) -> dict[str, Any]:
    try:
        ops = recorded_ops({**job, "path": path, "inputs": None})
    except EdgeoptError as error:
        return {"error": str(error)}
    gc.enable()
    gc.collect()
    return {"ops": [(op["name"], op["ms"], op["delegated"]) for op in ops]}


if __name__ == "__main__":
    serve(work)
