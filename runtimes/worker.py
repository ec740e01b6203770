"""The child of ``run_isolated``: loads one file, runs the batches, leaves outputs and a result behind.

Run as ``python -m edgeopt.runtimes.worker FOLDER``; needs numpy and the runtime, nothing else of edgeopt.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError
from . import open_model
from .isolation import load_batches, save_batches
from .lifetime import end_with_parent


def serve(work: Callable[[dict[str, Any], Path], dict[str, Any]]) -> None:
    """Run ``work(job, folder)`` and write its result, or the error it raised, to ``result.json``.

    Leaves by ``os._exit``: some runtimes crash in their static destructors after the work is done.
    """
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    end_with_parent(job.pop("parent"))
    try:
        result = work(job, folder)
    except EdgeoptError as error:
        kind = "input" if isinstance(error, InputError) else "edgeopt"
        result = {"error": {"kind": kind, "message": str(error)}}
    except MemoryError:
        result = {"error": {"kind": "edgeopt", "message": "the model does not fit into memory"}}
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        result = {
            "error": {"kind": "edgeopt", "message": f"the runtime failed: {type(error).__name__}: {text}"}
        }
    partial = folder / "result.json.part"
    partial.write_text(json.dumps(result))
    partial.replace(folder / "result.json")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_batches(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run every batch of ``inputs.npz`` and write ``outputs.npz``."""
    batches = load_batches(folder / "inputs.npz", job["batches"])
    model = open_model(
        job["path"],
        runtime=job["runtime"],
        num_threads=job["num_threads"],
        use_xnnpack=job["use_xnnpack"],
    )
    save_batches(folder / "outputs.npz", [model.run(batch) for batch in batches])
    return {"ok": True}


if __name__ == "__main__":
    serve(run_batches)
