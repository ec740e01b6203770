"""The child of ``measure_server``: ``python -m edgeopt.android_harness.server_worker FOLDER``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..runtimes.worker import serve
from .power import choose_meter, find_meters, measure_energy
from .server import ServerModel, ServerOptions


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Load the source model, compare its outputs with float32, sweep the batches, weigh the energy."""
    sys.path.insert(0, str(Path.cwd()))  # the user's module stands where edgeopt was called
    module, example = _load(job.pop("model"))
    options = ServerOptions(**job)
    reference = ServerModel(module, example, ServerOptions()).outputs()
    server = ServerModel(module, example, options)
    snr = min(_snr_db(a, b) for a, b in zip(reference, server.outputs(), strict=True))
    points, notes = server.sweep(options.largest_batch, options.seconds)
    energy = None
    if options.energy:
        meters = [m for m in find_meters() if m.name.startswith("nvml") == (server.device.type == "cuda")]
        best = max(points, key=lambda p: p.items_per_s).batch
        weighed = measure_energy(choose_meter(None, meters), lambda s: server.count(s, best))
        energy = {**asdict(weighed), "batch": best}
    import torch

    cuda = server.device.type == "cuda"
    return {
        "points": [asdict(point) for point in points],
        "notes": notes,
        "snr_db": None if np.isinf(snr) else snr,
        "device": torch.cuda.get_device_name() if cuda else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "energy": energy,
    }


def _load(spec: str) -> tuple[Any, list[Any]]:
    from ..models import load_source_model

    source = load_source_model(spec)
    return source.module, list(source.example)


def _snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10(signal power / error power); infinite for equal arrays."""
    error = float(np.square(reference.astype(np.float64) - other).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return float("inf") if error == 0 else 10 * float(np.log10(max(signal, 1e-300) / error))


if __name__ == "__main__":
    serve(work)
