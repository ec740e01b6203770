"""The child of ``profile_ops``: ``python -m edgeopt.android_harness.profile_worker FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtimes.worker import serve
from .measure_worker import inputs_of
from .op_profile import etdump_ops, litert_ops, open_for_profile


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Record the ops of one file."""
    model = open_for_profile(job)
    inputs = inputs_of(model, job)
    path = Path(job["path"])
    if job["runtime"] == "executorch":
        return {"ops": etdump_ops(path, model, inputs)}
    return {"ops": litert_ops(path, inputs, job["num_threads"])}


if __name__ == "__main__":
    serve(work)
