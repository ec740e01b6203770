"""What stands beside the latency of compared files: the task metric and the energy of an inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..android_harness.accuracy import measure_accuracy
from ..android_harness.measure import MeasureOptions, Progress, silent
from ..android_harness.power import PowerMeter, measure_energy
from ..android_harness.session import Session
from ..errors import EdgeoptError
from .artifacts import Artifact
from .records import Record
from .server_records import accuracy_beside, energy_beside


def measure_beside(
    latencies: Sequence[Record],
    artifacts: Sequence[Artifact],
    options: MeasureOptions,
    *,
    model: str | None = None,
    evaluate: str | None = None,
    meter: PowerMeter | None = None,
    progress: Progress = silent,
) -> tuple[list[Record], list[EdgeoptError]]:
    """Accuracy (with ``evaluate``, on ``model``'s inputs) and energy (with ``meter``) of each artefact.

    Args:
        latencies: one latency record an artefact, in the same order.

    Returns:
        the records, and what failed: a file that can't be evaluated doesn't take the others' figures away.
    """
    records: list[Record] = []
    failures: list[EdgeoptError] = []
    for latency, artifact in zip(latencies, artifacts, strict=True):
        try:
            if model is not None and evaluate is not None:
                progress(f"{artifact.name} · {evaluate}", None)
                found = measure_accuracy(artifact.path, model, evaluate, options)
                records.append(accuracy_beside(latency, found))
            if meter is not None:
                progress(f"{artifact.name} · energy by {meter.name}", None)
                inputs = options.inputs or artifact.inputs
                with Session(artifact.path, replace(options, inputs=inputs)) as session:
                    _ = session.start  # loaded and warm before the idle power is taken
                    records.append(energy_beside(latency, measure_energy(meter, session.count)))
        except EdgeoptError as error:
            failures.append(error)
    return records, failures
