"""The child of ``measure_accuracy``: ``python -m edgeopt.android_harness.accuracy_worker FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtimes import open_model
from ..runtimes.worker import serve
from .accuracy import task_metric

if TYPE_CHECKING:
    from ..models import Evaluation, SourceModel


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Load the source model for its names and types, the file for its outputs, and evaluate."""
    from ..converters.checks import predictor, reordered

    sys.path.insert(0, str(Path.cwd()))  # the user's module stands where edgeopt was called
    path = Path(job["path"])
    model = open_model(
        path, runtime=job["runtime"], num_threads=job["num_threads"], use_xnnpack=job["use_xnnpack"]
    )
    source, evaluation = _source(job["model"], job["evaluate"])
    run = reordered(model, [info.name for info in source.inputs], [info.name for info in source.outputs])
    return task_metric(evaluation, predictor(source, run), path.name)


def _source(model: str, evaluate: str) -> tuple[SourceModel, Evaluation]:
    """The source model, of whatever framework, and the user's metric."""
    from ..converters.keras.spec import is_keras
    from ..models import load_evaluation, load_source_model

    if not is_keras(model):
        source = load_source_model(model)
        return source, load_evaluation(source, evaluate)
    from ..converters.keras.client import KerasWorker
    from ..converters.keras.source import keras_evaluation, load_keras_source
    from ..converters.keras.spec import plain_spec

    worker = KerasWorker(lambda doing: None)
    try:
        keras = load_keras_source(worker, plain_spec(model), model, model_args={}, trust_pickle=False)
        return keras.source, keras_evaluation(keras, evaluate)
    finally:
        worker.close()


if __name__ == "__main__":
    serve(work)
