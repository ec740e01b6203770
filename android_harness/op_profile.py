"""Where a file's time goes, op by op: ETDump for .pte, LiteRT's profiler for .tflite.

Taken in a process of its own and never mixed with the latency: profiling slows the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError
from ..runtimes import check_file, open_model, runtime_for
from ..runtimes.isolation import run_job
from ..runtimes.protocol import LoadedModel
from ..runtimes.scratch import ScratchFolder
from .measure import MeasureOptions, check_options, job_of

_RUNS = 30
_LAYOUT_WORDS = ("transpose", "permute", "_to_dim_order_copy", "clone_dim_order", "copy")


@dataclass(frozen=True)
class OpTime:
    """One op: typical time in ms of a run (mean of the middle half), its share of all ops, and where it ran.

    ``layout`` marks ops that only move data about; ``source`` is the module and line, where an ETRecord
    beside the file (``model.etrecord`` for ``model.pte``) knows it.
    """

    name: str
    ms: float
    share: float
    delegated: bool
    layout: bool
    source: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The object in the JSON list ``ops``."""
        return asdict(self)


def profile_ops(path: Path, options: MeasureOptions) -> list[OpTime]:
    """The op times of a file, in the order of execution.

    Raises:
        InputError: a wrong file or wrong inputs.
        EdgeoptError: the runtime has no profiler, or failed.
    """
    check_file(path)
    check_options(options)
    runtime = options.runtime or runtime_for(path)
    if runtime not in ("executorch", "litert"):
        raise EdgeoptError(f"--profile-ops knows .pte and .tflite files, not files run by {runtime}.")
    with ScratchFolder("profile") as folder:
        result = run_job(
            "android_harness.profile_worker",
            job_of(path, runtime, options, "profile"),
            Path(folder),
            what=path,
            runtime=runtime,
            timeout_s=600,
        )
    return [OpTime(**op) for op in result["ops"]]


def op_times(runs: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Fold recorded runs (each the same ops in the same order) into one entry an op.

    Args:
        runs: for each run its events with ``name``, ``ms``, ``delegated`` and perhaps ``source``.
    """
    recorded = [run for run in runs if run]
    if not recorded:
        raise EdgeoptError("the runtime's profiler recorded no operators.")
    length = int(np.median([len(run) for run in recorded]))
    same = [run for run in recorded if len(run) == length]
    typical = [_middle([run[i]["ms"] for run in same]) for i in range(length)]
    total = sum(typical) or 1.0
    return [
        {
            "name": event["name"],
            "ms": ms,
            "share": ms / total,
            "delegated": event["delegated"],
            "layout": any(word in event["name"].lower() for word in _LAYOUT_WORDS),
            "source": event.get("source"),
        }
        for event, ms in zip(same[0], typical, strict=True)
    ]


def _middle(values: list[float]) -> float:
    """Mean of the middle half: as robust as needed, and finer than the recorder's whole microseconds."""
    ordered = np.sort(values)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def etdump_ops(path: Path, model: LoadedModel, inputs: list[np.ndarray]) -> list[dict[str, Any]]:
    """Op times of a .pte file: ETDump read by ExecuTorch's Inspector."""
    from ..runtimes.executorch import ExecutorchModel

    assert isinstance(model, ExecutorchModel)
    for _ in range(_RUNS):
        model.prepare(inputs)
        model.invoke()
    with ScratchFolder("etdump") as folder:
        dump = Path(folder) / "dump.etdp"
        model.write_etdump(dump)
        return read_etdump(dump, path)


def read_etdump(dump: Path, path: Path) -> list[dict[str, Any]]:
    """Op times from an ETDump of the file ``path``, whose ETRecord is used when it lies beside it."""
    from executorch.devtools import Inspector

    record = path.with_suffix(".etrecord")
    inspector = Inspector(etdump_path=str(dump), etrecord=str(record) if record.is_file() else None)
    events = [event for block in inspector.event_blocks for event in block.events]
    # Kept: operators inside delegates, kernels outside, and the calls of delegates that record nothing.
    detailed = {event._instruction_id for event in events if event.is_delegated_op}
    kept = [
        event
        for event in events
        if event.perf_data is not None
        and (
            event.is_delegated_op
            or event.name.startswith("native_call_")
            or (event.name == "DELEGATE_CALL" and event._instruction_id not in detailed)
        )
    ]
    runs = min((len(event.perf_data.raw) for event in kept), default=0)
    sources = _sources(events, kept)
    # The first runs warm up.
    return op_times(
        [
            [_et_event(event, i, source) for event, source in zip(kept, sources, strict=True)]
            for i in range(min(5, runs - 1), runs)
        ]
    )


def _sources(events: list[Any], kept: list[Any]) -> list[str | None]:
    from .op_sources import delegated_sources, source_of

    found: dict[int, str] = {}
    for call in (event for event in events if event.name == "DELEGATE_CALL"):
        inside = [e for e in kept if e.is_delegated_op and e._instruction_id == call._instruction_id]
        found |= {id(inside[i]): source for i, source in delegated_sources(inside, call).items()}
    return [found.get(id(event)) if event.is_delegated_op else source_of(event) for event in kept]


def _et_event(event: Any, run: int, source: str | None) -> dict[str, Any]:
    return {
        "name": event.name.removeprefix("native_call_"),
        "ms": float(event.perf_data.raw[run]),
        "delegated": bool(event.is_delegated_op) or event.name == "DELEGATE_CALL",
        "source": source,
    }


def litert_ops(path: Path, inputs: list[np.ndarray], num_threads: int) -> list[dict[str, Any]]:
    """Op times of a .tflite file from LiteRT's profiler."""
    from ..runtimes.litert_profile import profile

    events = profile(path, inputs, runs=_RUNS, num_threads=num_threads)
    # A delegate's whole call is shown only where the delegate doesn't tell its operators.
    if any(event["delegated"] for event in events):
        events = [event for event in events if not event["call"]]
    if not events or len(events) % _RUNS:
        raise EdgeoptError(
            f"LiteRT's profiler recorded {len(events)} events in {_RUNS} runs of {path.name}: "
            "they can't be told apart."
        )
    each = len(events) // _RUNS
    folded = op_times([events[i : i + each] for i in range(0, len(events), each)])
    for op, event in zip(folded, events, strict=False):
        op["delegated"] = event["delegated"] or event["call"]
    return folded


def open_for_profile(job: dict[str, Any]) -> LoadedModel:
    """The file, opened so that its ops can be recorded."""
    path = Path(job["path"])
    if job["runtime"] == "executorch":
        from ..runtimes.executorch import ExecutorchModel

        return ExecutorchModel(path, num_threads=job["num_threads"], etdump=True)
    return open_model(path, runtime=job["runtime"], num_threads=job["num_threads"])
