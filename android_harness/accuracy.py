"""The user's task metric on a file, beside its latency: taken in the file's own runtime, in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EdgeoptError
from ..runtimes import check_file, runtime_for
from ..runtimes.isolation import run_job
from ..runtimes.scratch import ScratchFolder
from .measure import MeasureOptions, job_of

if TYPE_CHECKING:
    from ..models import Evaluation

_TIMEOUT_S = 3600.0


def measure_accuracy(path: Path, model_spec: str, evaluate: str, options: MeasureOptions) -> dict[str, Any]:
    """The metric of one file.

    Args:
        model_spec: the source model, as ``edgeopt export`` takes it: it tells names and types of the inputs.
        evaluate: ``module:function`` or an .npz, as ``edgeopt export --eval`` takes it.

    Returns:
        ``metric`` (its name), ``value``, ``samples`` (None when the function doesn't say).

    Raises:
        InputError: the model, the evaluation or the file is wrong.
        EdgeoptError: the runtime can't be combined with an evaluation, crashed or failed.
    """
    check_file(path)
    runtime = options.runtime or runtime_for(path)
    if runtime == "tflite_runtime":
        raise EdgeoptError(
            "--eval runs in the environment of the source model, which tflite_runtime can't share."
        )
    job = {
        **job_of(path, runtime, options, "accuracy"),
        "model": absolute_spec(model_spec),
        "evaluate": absolute_spec(evaluate),
    }
    with ScratchFolder("accuracy") as folder:
        return run_job(
            "android_harness.accuracy_worker",
            job,
            Path(folder),
            what=path,
            runtime=runtime,
            timeout_s=_TIMEOUT_S,
        )


def task_metric(evaluation: Evaluation, predict: Callable[..., Any], whose: str) -> dict[str, Any]:
    """Call the user's evaluation.

    Raises:
        InputError: it failed, or gave no finite number.
    """
    value, samples = evaluation(predict, whose)
    return {"metric": evaluation.metric, "value": value, "samples": samples}


def absolute_spec(spec: str) -> str:
    """A model or evaluation as another process finds it: files by their absolute path."""
    return str(Path(spec).resolve()) if Path(spec).is_file() else spec
