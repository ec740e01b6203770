"""The child of ``measure_accuracy``: ``python -m edgeopt.android_harness.accuracy_worker FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..runtimes import open_model
from ..runtimes.worker import serve
from .accuracy import task_metric


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Load the source model for its names and types, the file for its outputs, and evaluate."""
    from ..converters.checks import predictor, reordered
    from ..models import load_evaluation, load_source_model

    sys.path.insert(0, str(Path.cwd()))  # the user's module stands where edgeopt was called
    path = Path(job["path"])
    model = open_model(
        path, runtime=job["runtime"], num_threads=job["num_threads"], use_xnnpack=job["use_xnnpack"]
    )
    source = load_source_model(job["model"])
    evaluation = load_evaluation(source, job["evaluate"])
    run = reordered(model, [info.name for info in source.inputs], [info.name for info in source.outputs])
    return task_metric(evaluation, predictor(source, run), path.name)


if __name__ == "__main__":
    serve(work)
