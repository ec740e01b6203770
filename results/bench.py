"""``edgeopt bench``: every artefact in every configuration, measured, recorded, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..android_harness.measure import MeasureOptions, Progress, measure, silent
from ..errors import EdgeoptError, InputError
from .artifacts import Artifact
from .records import Record, Run, records_of


@dataclass(frozen=True)
class BenchResult:
    """What was measured, what failed (one sentence a file), and whether the user cut it short."""

    run: Run
    failures: tuple[EdgeoptError, ...]
    interrupted: bool


def bench(
    artifacts: Sequence[Artifact],
    options: MeasureOptions,
    *,
    threads: Sequence[int] = (1,),
    subject: str = "",
    progress: Progress = silent,
) -> BenchResult:
    """Measure every artefact with every number of threads on this machine.

    A file that fails doesn't keep the others from being measured; when all fail, the first failure is raised.

    Raises:
        InputError, EdgeoptError: nothing could be measured.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    records: list[Record] = []
    failures: list[EdgeoptError] = []
    interrupted = False
    for artifact in artifacts:
        for count in threads:
            chosen = replace(options, num_threads=count, inputs=options.inputs or artifact.inputs)
            try:
                measurement = measure(artifact.path, chosen, progress)
            except EdgeoptError as error:
                failures.append(error)
                break
            except KeyboardInterrupt:
                interrupted = True
                break
            records += _without_known_sizes(records_of(artifact, measurement), records)
            interrupted = measurement.partial
        if interrupted:
            break
    if not records:
        if interrupted:
            raise KeyboardInterrupt
        raise failures[0] if failures else InputError("there is nothing to measure.")
    return BenchResult(Run("bench", subject, tuple(records)), tuple(failures), interrupted)


def _without_known_sizes(new: list[Record], known: list[Record]) -> list[Record]:
    sizes = {record.artifact_sha256 for record in known if record.metric == "size_bytes"}
    return [r for r in new if r.metric != "size_bytes" or r.artifact_sha256 not in sizes]
