"""The suite as files: each network exported once in every format and precision, kept in the user's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..disk import cache_folder
from ..errors import EdgeoptError, GateError

PRECISIONS = ("fp32", "int8-static", "int8-dynamic")
FORMATS = ("pte", "tflite")
_RUNTIME = {"pte": "executorch", "tflite": "litert"}
# Networks that one process exports, one after another, and what the largest of them weighs.
_AT_ONCE = 16
_WEIGHT_BYTES = 50 * 2**20
_MAKERS = ("torch", "executorch", "litert-torch", "ai-edge-quantizer")


@dataclass(frozen=True)
class SuiteFile:
    """One file to measure: of which network, in which precision, for which runtime."""

    carrier: str
    precision: str
    runtime: str
    path: Path

    @property
    def key(self) -> str:
        """A name that no other file of the suite has."""
        return f"{self.carrier} {self.precision} {self.runtime}"


def suite_folder() -> Path:
    """Where the files of this suite, made by these versions, are kept."""
    from .suite import VERSION

    made_by = "-".join(metadata.version(name) for name in _MAKERS)
    return cache_folder() / "calibration" / f"suite{VERSION}-{made_by}"


def suite_files(
    carriers: Sequence[str],
    say: Callable[[str, float | None], None],
    *,
    folder: Path | None = None,
) -> list[SuiteFile]:
    """The files of ``carriers``, exported where they aren't there yet (seconds a network, one a core).

    Interrupted, it goes on where it stopped the next time.

    Raises:
        EdgeoptError: a network could be exported in no format at all.
    """
    folder = folder or suite_folder()
    missing = [name for name in carriers if not (folder / name).is_dir()]
    if len(missing) > 1:
        _export_side_by_side(missing, folder, say)
    found: list[SuiteFile] = []
    for name in carriers:
        bundle = folder / name
        if not bundle.is_dir():
            say(f"making the suite: {name}", None)
            _export(name, bundle)
        found += _files_of(name, bundle)
    return found


def _export_side_by_side(
    names: Sequence[str], folder: Path, say: Callable[[str, float | None], None]
) -> None:
    """Export networks in as many processes as fit, each with some after another: importing the exporters takes as long
    as two of these networks. What a process leaves undone is missing still."""
    from ..converters.workers import Task, parallel_processes, run_tasks

    processes = parallel_processes(_WEIGHT_BYTES, len(names))
    share = min(_AT_ONCE, -(-len(names) // processes))
    done: list[str] = []

    def task(some: Sequence[str]) -> Task[None]:
        def run(progress: Callable[[str], None]) -> None:
            for name in some:
                progress(name)
                _export(name, folder / name)

        return Task(some[0], run)

    def on_progress(task: str, name: str) -> None:
        done.append(name)
        say(f"making the suite: {name}", (len(done) - 1) / len(names))

    shares = [names[start : start + share] for start in range(0, len(names), share)]
    run_tasks([task(some) for some in shares], max_parallel=processes, on_progress=on_progress)


def _export(name: str, bundle: Path) -> None:
    import torch

    from ..pipeline import export
    from .suite import suite

    carrier = next(each for each in suite() if each.name == name)
    torch.manual_seed(0)
    model = carrier.make().eval()
    example = carrier.example()
    try:
        export(
            model,
            profile="host",
            formats=FORMATS,
            precision=",".join(PRECISIONS),
            example_inputs=example,
            calibration=[example],
            output=bundle,
            name=name,
        )
    except GateError as error:
        # Random weights may cost a quantised file its agreement; its speed is what counts here.
        if getattr(error, "bundle", None) is None:
            raise EdgeoptError(f"the calibration network {name} could not be exported: {error}") from error


def _files_of(name: str, bundle: Path) -> list[SuiteFile]:
    from ..bundle import load_bundle

    return [
        SuiteFile(name, entry.precision, _RUNTIME[entry.format], bundle / entry.file)
        for entry in load_bundle(bundle).artifacts
        if entry.format in _RUNTIME and (bundle / entry.file).is_file()
    ]
