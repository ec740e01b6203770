"""``edgeopt bench``: every artefact in every configuration, measured, recorded, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..android_harness.measure import MeasureOptions, Progress, measure, silent
from ..android_harness.op_profile import profile_ops
from ..android_harness.power import PowerMeter, measure_energy
from ..android_harness.session import Session
from ..errors import EdgeoptError, InputError
from ..wording import counted
from .artifacts import Artifact
from .records import Record, Run, energy_records, records_of, sizes_once


@dataclass(frozen=True)
class BenchResult:
    """What was measured, what failed (one sentence a file), and whether the user cut it short."""

    run: Run
    failures: tuple[EdgeoptError, ...]
    interrupted: bool
    profiles: tuple[dict[str, Any], ...] = ()


def bench(
    artifacts: Sequence[Artifact],
    options: MeasureOptions,
    *,
    threads: Sequence[int] = (1,),
    profile: bool = False,
    meter: PowerMeter | None = None,
    subject: str = "",
    progress: Progress = silent,
) -> BenchResult:
    """Measure every artefact with every number of threads on this machine.

    With ``profile`` each file's op times are taken too, and with ``meter`` its energy, each in a process of
    its own.

    A file that fails doesn't keep the others from being measured; when all fail, the first failure is raised.

    Raises:
        InputError, EdgeoptError: nothing could be measured.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    records: list[Record] = []
    failures: list[EdgeoptError] = []
    profiles: list[dict[str, Any]] = []
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
            records += records_of(artifact, measurement)
            interrupted = measurement.partial
            if meter is not None and not interrupted:
                progress(f"{artifact.name} · {counted(count, 'thread')} · energy by {meter.name}", None)
                try:
                    with Session(artifact.path, chosen) as session:
                        _ = session.start
                        energy = measure_energy(meter, session.count)
                    records += energy_records(energy, artifact, measurement)
                except EdgeoptError as error:
                    failures.append(error)
            if profile and not interrupted:
                progress(f"{artifact.name} · {counted(count, 'thread')} · ops", None)
                try:
                    ops = [op.as_json() for op in profile_ops(artifact.path, chosen)]
                    profiles.append({"artifact": artifact.name, "threads": count, "ops": ops})
                except EdgeoptError as error:
                    failures.append(error)
        if interrupted:
            break
    if not records:
        if interrupted:
            raise KeyboardInterrupt
        raise first_of(failures)
    return BenchResult(
        Run("bench", subject, tuple(sizes_once(records))), tuple(failures), interrupted, tuple(profiles)
    )


def first_of(failures: Sequence[EdgeoptError]) -> EdgeoptError:
    """What to raise when nothing could be measured: the first failure, with those that say something else."""
    if not failures:
        return InputError("there is nothing to measure.")
    by_words: dict[str, EdgeoptError] = {}
    for failure in failures:
        by_words.setdefault(str(failure), failure)
    first, *others = by_words.values()
    first.others = tuple(others)
    return first
