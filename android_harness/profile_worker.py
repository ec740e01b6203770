"""The child of ``profile_ops``: ``python -m edgeopt.android_harness.profile_worker FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtimes.worker import serve
from .measure_worker import inputs_of
from .op_profile import etdump_ops, litert_ops, open_for_profile


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Record the ops of one file."""
    return {"ops": recorded_ops(job)}


def recorded_ops(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The ops of the job's file, in this process."""
    model = open_for_profile(job)
    try:
        inputs = inputs_of(model, job)
        path = Path(job["path"])
        if job["runtime"] == "executorch":
            return etdump_ops(path, model, inputs)
        return litert_ops(path, inputs, job["num_threads"])
    finally:
        model.close()


if __name__ == "__main__":
    serve(work)
