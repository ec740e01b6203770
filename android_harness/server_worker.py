"""The child of ``measure_server``: ``python -m edgeopt.android_harness.server_worker FOLDER``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EdgeoptError
from ..runtimes.worker import serve
from .accuracy import task_metric
from .power import choose_meter, find_meters, measure_energy
from .server import ServerModel, ServerOptions

if TYPE_CHECKING:
    from ..models import SourceModel


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Load the source model, compare its outputs with float32, sweep the batches, weigh the energy."""
    sys.path.insert(0, str(Path.cwd()))  # the user's module stands where edgeopt was called
    from ..models import load_source_model

    source = load_source_model(job["model"])
    module, example = source.module, list(source.example)
    options = ServerOptions(**job["options"])
    reference = ServerModel(module, example, ServerOptions()).outputs()
    server = ServerModel(module, example, options)
    snr = min(_snr_db(a, b) for a, b in zip(reference, server.outputs(), strict=True))
    accuracy = _accuracy(source, server, job["evaluate"]) if job["evaluate"] else None
    points, notes = server.sweep(options.largest_batch, options.seconds)
    energy = None
    if options.energy:
        best = max(points, key=lambda p: p.items_per_s).batch
        try:
            energy = _energy(server, best)
        except EdgeoptError as error:
            notes.append(str(error).rstrip("."))
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
        "accuracy": accuracy,
        "int8_share": server.int8_share,
    }


def _energy(server: ServerModel, batch: int) -> dict[str, Any]:
    meter = choose_meter("nvml:0" if server.device.type == "cuda" else None, find_meters())
    return {**asdict(measure_energy(meter, lambda s: server.count(s, batch))), "batch": batch}


def _accuracy(source: SourceModel, server: ServerModel, evaluate: str) -> dict[str, Any]:
    from ..converters.checks import predictor
    from ..models import load_evaluation

    return task_metric(load_evaluation(source, evaluate), predictor(source, server.run), "the server's model")


def _snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10(signal power / error power); infinite for equal arrays."""
    error = float(np.square(reference.astype(np.float64) - other).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return float("inf") if error == 0 else 10 * float(np.log10(max(signal, 1e-300) / error))


if __name__ == "__main__":
    serve(work)
