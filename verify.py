"""verify: is this bundle still what was exported, and does it still compute the same here?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Artifact, Bundle, check_files, load_bundle
from .converters.file_report import inspect_file
from .converters.ordering import named_order
from .converters.verification import Parity, compare
from .errors import EdgeoptError
from .optimizers.precision import PRECISIONS
from .results.summary import worst_snr
from .runtimes import run_isolated, runtime_versions

# The package whose version decides whether a file of this format loads.
_RUNTIME_PACKAGES = {"executorch": "executorch", "litert": "ai-edge-litert"}


@dataclass
class Verification:
    """The checks made, in order, and what failed."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parity: dict[str, list[Parity]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def add(self, what: str, problems: list[str]) -> None:
        """Record a check and its problems, if any."""
        self.checks.append({"what": what, "passed": not problems, "problems": problems})
        self.failures += problems

    def measurements(self) -> list[dict[str, Any]]:
        """Parity as measurements with their grade."""
        return [
            {
                "metric": metric,
                "value": value,
                "grade": "measured",
                "artifact": file,
                "output": p.output,
                "target": "host",
            }
            for file, outputs in self.parity.items()
            for p in outputs
            for metric, value in (("snr_db", p.snr_db), ("cosine", p.cosine))
            if value is not None
        ]


def verify_bundle(path: Path | str, *, progress: Callable[[str], None] | None = None) -> Verification:
    """Check a bundle's hashes, versions and parity; or, for a lone file, that it can be read and runs.

    Raises:
        InputError: there is no bundle or file to check, or it is corrupt.
    """
    say = progress or (lambda what: None)
    path = Path(path)
    if path.is_file():
        return _verify_file(path)
    bundle = load_bundle(path)
    result = Verification()
    say("hashing the files")
    problems = check_files(bundle)
    result.add(f"{len(bundle.manifest.files)} files have the hashes in the manifest", problems)
    _check_versions(bundle, result)
    if not problems:
        inputs, outputs = bundle.golden()
        for artifact in bundle.artifacts:
            say(f"running {artifact.file}")
            _check_parity(bundle, artifact, inputs, outputs, result)
    if bundle.manifest.status != "verified":
        result.add("the export passed its gates", ["the export itself failed its gates (see SUMMARY.md)"])
    return result


def _verify_file(path: Path) -> Verification:
    result = Verification()
    report = inspect_file(path)
    result.add(f"{path.name} can be read ({len(report.ops)} operators)", [])
    result.warnings.append(
        f"{path.name} is a lone file: without a bundle there is nothing to compare its outputs with"
    )
    return result


def _check_versions(bundle: Bundle, result: Verification) -> None:
    here = runtime_versions()
    for runtime in sorted({artifact.runtime for artifact in bundle.artifacts}):
        made_with = bundle.manifest.versions.get(_RUNTIME_PACKAGES.get(runtime, runtime))
        if runtime not in here:
            result.add(
                f"{runtime} is installed", [f"{runtime} is not installed, so its file can't be run here"]
            )
        elif made_with != here[runtime]:
            result.warnings.append(f"made with {runtime} {made_with}, checked with {here[runtime]}")


def _check_parity(
    bundle: Bundle,
    artifact: Artifact,
    inputs: list[list[np.ndarray]],
    outputs: list[list[np.ndarray]],
    result: Verification,
) -> None:
    manifest = bundle.manifest
    in_order = named_order([t.name for t in artifact.inputs], [t.name for t in manifest.inputs])
    out_order = named_order([t.name for t in manifest.outputs], [t.name for t in artifact.outputs])
    what = f"{artifact.file} agrees with the source model on {len(inputs)} golden inputs"
    try:
        found = run_isolated(
            bundle.artifact_path(artifact), [[sample[i] for i in in_order] for sample in inputs]
        )
    except EdgeoptError as error:
        result.add(what, [f"{artifact.file}: {str(error).rstrip('.')}"])
        return
    parity = compare(
        outputs,
        [[sample[i] for i in out_order] for sample in found],
        [t.name for t in manifest.outputs],
        artifact.precision,
        min_snr_db=_bound_of_the_users_own(artifact),
    )
    result.parity[artifact.file] = parity
    failed = [f"{artifact.file}: output {p.output!r}: {p.reason}" for p in parity if not p.passed]
    worst = worst_snr(p.to_dict() for p in parity)
    result.add(what if worst == "–" else f"{what} (SNR {worst})", failed)


def _bound_of_the_users_own(artifact: Artifact) -> float | None:
    """What --min-snr-db was at the export; None where the precision's own rule held."""
    bounds = {p["min_snr_db"] for p in artifact.parity if p["snr_db"] is not None}
    return next(iter(bounds - {PRECISIONS[artifact.precision].min_snr_db}), None)
