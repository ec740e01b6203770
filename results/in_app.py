"""The same file in a shell and inside an app: measured one after the other, kept and shown apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..android_harness.device_measure import DeviceOptions
from ..android_harness.device_session import DeviceSession
from ..android_harness.in_app import AppRunner, app_job, measure_in_app
from ..android_harness.measure import MeasureOptions
from ..android_harness.payload import Report
from ..errors import EdgeoptError, InputError
from ..wording import counted
from .artifacts import Artifact
from .device_records import app_records
from .records import Record


@dataclass(frozen=True)
class InApp:
    """What the app gave: the artefact it carries, records, sentences, and what cut it short."""

    artifact: Artifact
    records: tuple[Record, ...]
    warnings: tuple[str, ...]
    failure: EdgeoptError | KeyboardInterrupt | None = None


def bench_in_app(
    session: DeviceSession,
    package: str,
    artifacts: Sequence[Artifact],
    options: MeasureOptions,
    device: DeviceOptions,
    *,
    threads: Sequence[int],
    profile: str | None,
    say: Callable[[str], None],
) -> InApp:
    """Measure the sample app ``package`` with each number of threads.

    Raises:
        InputError: not installed, not the sample app, or it carries none of ``artifacts``.
        DeviceError: it crashed, was too slow, or its log was lost, before anything was measured.
    """
    if session.facts.emulated_by:
        raise InputError(
            f"{session.target.name} is emulated: no time measured in an app there means anything."
        )
    runner = AppRunner(session, package)
    say("in the app, first process")
    first = runner.run(app_job(threads[0]), device.timeout_s)
    artifact = carried(first, artifacts, package, session.target.name)
    records: list[Record] = []
    warnings: list[str] = []
    if first.details["fallback"]:
        warnings.append(f"{package}: {first.details['fallback']}")
    for count in threads:
        done = measure_in_app(runner, artifact.path, first, replace(options, num_threads=count), device, say)
        records += app_records(artifact, done, session, profile, package)
        if done.failure is not None:
            return InApp(artifact, tuple(records), tuple(warnings), done.failure)
    return InApp(artifact, tuple(records), tuple(warnings))


def carried(report: Report, artifacts: Sequence[Artifact], package: str, where: str) -> Artifact:
    """The artefact whose bytes the app carries.

    Raises:
        InputError: none of them.
    """
    digest = str(report.details["model_sha256"])
    found = next((artifact for artifact in artifacts if artifact.sha256() == digest), None)
    if found is None:
        names = ", ".join(artifact.name for artifact in artifacts)
        raise InputError(
            f"{package} on {where} carries another model (SHA-256 {digest[:12]}...) than {names}: renew it with "
            "`edgeopt app BUNDLE --update` and install it again."
        )
    return found


def beside_shell(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One comparison for each latency in an app that has its like in a shell of the same device.

    Args:
        measurements: objects of the JSON list ``measurements``.
    """
    latencies = [m for m in measurements if m["metric"] == "latency_ms"]

    def key(m: Mapping[str, Any]) -> tuple[Any, ...]:
        return m["artifact_sha256"], m["threads"], str(m["target"]).partition(":")[2]

    shell = {key(m): m for m in latencies if not str(m["target"]).startswith("app:")}
    found = []
    for m in latencies:
        if not str(m["target"]).startswith("app:") or key(m) not in shell:
            continue
        beside = shell[key(m)]
        ratio = m["value"] / beside["value"]
        threads = counted(m["threads"], "thread")
        found.append(
            {
                "artifact": m["artifact"],
                "threads": m["threads"],
                "shell": beside["target"],
                "app": m["target"],
                "shell_ms": beside["value"],
                "app_ms": m["value"],
                "ratio": ratio,
                "sentence": f"{m['artifact']}, {threads}: shell {beside['value']:.3g} ms, in the app "
                f"{m['value']:.3g} ms, {ratio:.1f}x",
            }
        )
    return found
