"""``edgeopt.bench`` and ``edgeopt.compare``: what the commands of these names do, from Python.

Nothing is kept in the store and nothing is printed; the results are plain dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..android_harness.measure import MeasureOptions, Progress, silent
from .artifacts import find_artifacts
from .bench import BenchResult
from .bench import bench as bench_artifacts
from .comparison import Comparison, Effort, contenders_of
from .comparison import compare as compare_contenders
from .records import subject_of

Files = str | Path | Sequence[str | Path]


def bench(
    files: Files,
    options: MeasureOptions | None = None,
    *,
    threads: Sequence[int] = (1,),
    formats: Sequence[str] = (),
    profile_ops: bool = False,
    progress: Progress = silent,
) -> BenchResult:
    """Measure files or bundles on this machine.

    Args:
        files: model files or bundle folders, one or several.
        options: how to measure; ``num_threads`` in it is overruled by ``threads``.
        threads: each file is measured with each of these numbers of CPU threads.
        formats: of a bundle only these, e.g. ``["tflite"]``.
        profile_ops: time each op too, in a run of its own.
        progress: called with (what, fraction or None) as it goes on.

    Returns:
        ``run.records`` with every figure (times in ms, memory in MiB), its interval and conditions;
        ``failures`` of files that couldn't be measured; ``profiles`` of the ops.

    Raises:
        InputError: a file or an option is wrong.
        EdgeoptError: no file could be measured.
    """
    paths = _paths(files)
    return bench_artifacts(
        find_artifacts(paths, formats),
        options or MeasureOptions(),
        threads=threads,
        profile=profile_ops,
        subject=subject_of(paths),
        progress=progress,
    )


def compare(
    files: Sequence[str | Path],
    options: MeasureOptions | None = None,
    *,
    rounds: int = 6,
    margin: float = 0.01,
    formats: Sequence[str] = (),
    progress: Progress = silent,
) -> Comparison:
    """Measure files side by side; the first is the reference.

    Args:
        files: two or more model files, or bundle folders.
        options: how to run them.
        rounds: rounds of fresh processes; a difference is measured in a second set of as many.
        margin: relative difference below which nobody is called slower or faster.
        formats: of bundles only these.

    Returns:
        ``duels`` with the ratio of each file's time to the reference's, its 95% interval and the verdict
        ("slower", "faster", "same", "undecided"); ``summaries`` of the times in ms.

    Raises:
        InputError: fewer than two files, or a file or an option is wrong.
        EdgeoptError: a runtime failed.
    """
    artifacts = find_artifacts(_paths(files), formats)
    contenders = contenders_of(artifacts, options or MeasureOptions())
    return compare_contenders(contenders, Effort(rounds=rounds, margin=margin), progress)


def _paths(files: Files) -> list[Path]:
    return [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
