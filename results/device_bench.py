"""``edgeopt bench`` on phones and boards: every artefact on every device, several devices at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..android_harness.device_facts import printable
from ..android_harness.device_measure import (
    DeviceMeasurement,
    DeviceOptions,
    measure_on_device,
    on_cpus,
)
from ..android_harness.device_op_profile import profile_ops_on_device
from ..android_harness.device_power import check_meter_name, choose_device_meter, energy_on_device
from ..android_harness.device_session import DeviceSession, no_word
from ..android_harness.discovery import matching_profiles, mismatch
from ..android_harness.measure import MeasureOptions, check_protocol
from ..android_harness.payload import Payload, own_payload, user_payload
from ..android_harness.remote import DeviceError, RemoteTarget, last_line
from ..device_profiles import DeviceProfile
from ..errors import EdgeoptError, InputError
from ..wording import counted
from .artifacts import Artifact
from .bench import BenchResult, first_of
from .device_inputs import big_cpus, inputs_for_device
from .device_records import device_energy_records, device_records
from .in_app import bench_in_app
from .records import Record, Run, sizes_once

if TYPE_CHECKING:
    import numpy as np

RUNTIME_OF_FORMAT = {"pte": "executorch", "tflite": "litert"}
Say = Callable[[str, str], None]  # (device, what)


@dataclass(frozen=True)
class DeviceBenchOptions:
    """How devices are used. Times in seconds.

    ``runner`` is a binary of the user's instead of our own runner; ``make_payload`` replaces both (tests).
    ``cool_down`` waits for the profile's temperature; ``power`` measures energy ("" takes the best meter,
    and a device without one is a warning);
    ``profile_ops`` takes the time of each op too, in a process of its own; ``in_app`` is the id of an installed
    sample app, in which the file it carries is measured before the shell.
    """

    profile: DeviceProfile | None = None
    runner: Path | None = None
    wait_s: float = 60.0
    recover_s: float = 60.0
    cool_down: bool = True
    cool_timeout_s: float = 300.0
    timeout_s: float = 300.0
    power: str | None = None
    while_charging: bool = False
    allow_root: bool = False
    make_payload: Callable[[str], Payload] | None = None
    compare_with_host: bool = True
    profile_ops: bool = False
    in_app: str | None = None


@dataclass
class _Outcome:
    """What one device gave: records, op profiles, failures and sentences about the device."""

    records: list[Record] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    failures: list[EdgeoptError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False


class _Stopped(EdgeoptError):
    """The user stopped all devices."""


def bench_on_devices(
    targets: Sequence[RemoteTarget],
    artifacts: Sequence[Artifact],
    options: MeasureOptions,
    device: DeviceBenchOptions,
    *,
    threads: Sequence[int] = (1,),
    subject: str = "",
    say: Say = lambda name, what: None,
    tell: Callable[[str], None] = no_word,
) -> tuple[BenchResult, list[str]]:
    """Measure every artefact on every device; a device that fails leaves the others' results alone.

    Args:
        say: told (device, what) as it goes on.
        tell: told the sentences about the devices when there is no result to return them with.

    Returns:
        the result, and sentences about the devices.

    Raises:
        InputError, EdgeoptError: nothing could be measured; ``others`` are the other devices' failures.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    for artifact in artifacts:
        if artifact.format not in RUNTIME_OF_FORMAT:
            raise InputError(f"{artifact.name} can't be run on a device: .pte and .tflite files can.")
    for count in threads:
        check_protocol(replace(options, num_threads=count))
    if not 0 <= device.wait_s < float("inf"):  # NaN would wait for ever
        raise InputError(f"--wait must be 0 or more seconds, not {device.wait_s:g}.")
    if device.power:
        check_meter_name(device.power)
    # Before any contact: a wrong --runner or a missing toolchain has nothing to do with the devices.
    payloads = {runtime: _payload(device, runtime) for runtime in _runtimes(artifacts)}
    stop = threading.Event()
    outcomes = [_Outcome() for _ in targets]

    def work(position: int) -> None:
        one = _Device(
            targets[position], artifacts, options, device, payloads, threads, stop, say, outcomes[position]
        )
        one.run()

    interrupted = False
    if len(targets) == 1:
        work(0)
    else:
        with ThreadPoolExecutor(max_workers=len(targets)) as pool:
            futures = [pool.submit(work, position) for position in range(len(targets))]
            try:
                for future in futures:
                    future.result()
            except KeyboardInterrupt:
                stop.set()
                for target in targets:
                    target.interrupt()
                interrupted = True
    interrupted = interrupted or any(outcome.interrupted for outcome in outcomes)
    records = [record for outcome in outcomes for record in outcome.records]
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    warnings = list(dict.fromkeys(warning for outcome in outcomes for warning in outcome.warnings))
    if not records:
        for warning in warnings:
            tell(warning)
        if interrupted:
            raise KeyboardInterrupt
        raise first_of(failures)
    run = Run("bench", subject, tuple(sizes_once(records)))
    profiles = tuple(profile for outcome in outcomes for profile in outcome.profiles)
    return BenchResult(run, tuple(failures), interrupted, profiles), warnings


def _runtimes(artifacts: Sequence[Artifact]) -> list[str]:
    return list(dict.fromkeys(RUNTIME_OF_FORMAT[artifact.format] for artifact in artifacts))


def _payload(device: DeviceBenchOptions, runtime: str) -> Payload:
    if device.make_payload is not None:
        return device.make_payload(runtime)
    if device.runner is not None:
        return user_payload(device.runner, runtime)
    return own_payload(runtime)


class _Device:
    """One device's part of the work."""

    def __init__(
        self, target: RemoteTarget, artifacts: Sequence[Artifact], options: MeasureOptions,
        device: DeviceBenchOptions, payloads: Mapping[str, Payload], threads: Sequence[int],
        stop: threading.Event, say: Say, outcome: _Outcome,
    ) -> None:  # fmt: skip
        self._payloads = payloads
        self.target, self.artifacts, self.options, self.device = target, artifacts, options, device
        self.threads, self._stop, self._say, self.outcome = threads, stop, say, outcome
        self._given_up = False

    def run(self) -> None:
        session = DeviceSession(
            self.target, wait_s=self.device.wait_s, recover_s=self.device.recover_s, say=self.say
        )
        try:
            with session:
                self._all(session)
        except (_Stopped, KeyboardInterrupt):
            self.outcome.interrupted = True
        except EdgeoptError as error:
            self.outcome.failures.append(error)
        finally:
            self.outcome.warnings += session.warnings
            self.target.close()
            failed = self.outcome.failures or self.outcome.interrupted
            self._say(self.target.name, "ended" if failed else "done")

    def say(self, what: str) -> None:
        if self._stop.is_set():
            raise _Stopped("stopped")
        self._say(self.target.name, what)

    def _all(self, session: DeviceSession) -> None:
        profile = self._profile(session)
        with self._governors(session):
            artifacts = self._in_app(session, profile) if self.device.in_app else self.artifacts
            for artifact in artifacts:
                for count in self.threads:
                    if not self._try(session, artifact, count, profile):
                        break
                if self._given_up:
                    return

    def _in_app(self, session: DeviceSession, profile: DeviceProfile | None) -> Sequence[Artifact]:
        """Measure the app; the one artefact that it carries is what the shell is measured with."""
        found = bench_in_app(
            session, self.device.in_app or "", self.artifacts, self.options, self._chosen(profile),
            threads=self.threads, profile=profile.name if profile else None, say=self.say,
        )  # fmt: skip
        self.outcome.records += found.records
        self.outcome.warnings += found.warnings
        if found.failure is not None:
            raise found.failure
        return [found.artifact]

    def _chosen(self, profile: DeviceProfile | None) -> DeviceOptions:
        return DeviceOptions(
            cool_c=profile.thermal.cool_down_c if profile and self.device.cool_down else None,
            cool_timeout_s=self.device.cool_timeout_s,
            timeout_s=self.device.timeout_s,
            compare_with_host=self.device.compare_with_host,
        )

    def _try(
        self, session: DeviceSession, artifact: Artifact, count: int, profile: DeviceProfile | None
    ) -> bool:
        """Measure one file; False when it failed, and ``_given_up`` when the device did."""
        try:
            self._one(session, artifact, count, profile)
        except _Stopped:
            raise
        except EdgeoptError as error:
            self.outcome.failures.append(error)
            self._given_up = isinstance(error, DeviceError) and error.kind in ("lost", "unusable", "space")
            return False
        return True

    def _one(
        self, session: DeviceSession, artifact: Artifact, count: int, profile: DeviceProfile | None
    ) -> None:
        payload = self._payloads[RUNTIME_OF_FORMAT[artifact.format]]
        options = replace(self.options, num_threads=count)

        def say(what: str) -> None:
            self.say(f"{printable(artifact.name)} · {counted(count, 'thread')} · {what}")

        arrays, reference = self._inputs(session, artifact, payload)
        cpus = self._cpus(session, profile, count)
        chosen = replace(self._chosen(profile), cpus=cpus, reference=reference)
        done = measure_on_device(session, artifact.path, payload, arrays, options, chosen, say)
        name = profile.name if profile else None
        self.outcome.records += device_records(artifact, done, session, name)
        if done.summary is None:
            self.outcome.warnings += done.warnings
        if done.failure is not None:
            raise done.failure
        if self.device.power is not None and done.summary is not None:
            self._energy(session, artifact, done, profile, say)
        if self.device.profile_ops:
            say("ops")
            ops = profile_ops_on_device(session, done)
            entry = {"artifact": artifact.name, "target": self.target.name, "threads": count, "ops": ops}
            self.outcome.profiles.append(entry)

    def _energy(
        self, session: DeviceSession, artifact: Artifact, done: DeviceMeasurement, profile: DeviceProfile | None,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        from .expected_energy import expected_energy

        try:
            meter = choose_device_meter(
                session.target, self.device.power or None, while_charging=self.device.while_charging
            )
            say(f"energy by {meter.name}")
            energy = energy_on_device(session, meter, done)
        except DeviceError:
            raise
        except EdgeoptError as error:
            expected = expected_energy(artifact.path, profile, done)
            more = f" {expected}" if expected else ""
            if self.device.power:  # asked for by name: as on the host, it isn't done without
                self.outcome.failures.append(InputError(f"{error}{more}"))
            else:
                self.outcome.warnings.append(f"{self.target.name}: no energy figure: {error}{more}")
            return
        name = profile.name if profile else None
        self.outcome.records += device_energy_records(energy, artifact, done, session, name)

    def _profile(self, session: DeviceSession) -> DeviceProfile | None:
        given = self.device.profile
        if given is not None:
            differs = mismatch(given, session.facts)
            if differs:
                self.outcome.warnings.append(f"{self.target.name}: {differs}")
            return given
        return next(iter(matching_profiles(session.facts)), None)

    def _cpus(
        self, session: DeviceSession, profile: DeviceProfile | None, count: int
    ) -> tuple[int, ...] | None:
        """The CPUs asked for, or the big cluster's where the profile or the device tells which it is.

        Raises:
            InputError: the CPUs asked for can't be had.
        """
        asked = self.options.cpu_affinity or None
        chosen = asked or big_cpus(session, profile)
        if chosen is None or (asked is None and len(chosen) < count):
            return None
        tried = session.target.script(" ".join([*on_cpus([], chosen), "true"]))
        if tried.returncode == 0:
            return chosen
        words = (
            f"{self.target.name} can't run on CPUs {', '.join(map(str, chosen))} ({last_line(tried.stderr)})"
        )
        if asked:
            raise InputError(f"{words}: choose others with --cpu-affinity.")
        self.outcome.warnings.append(f"{words}: the scheduler chose")
        return None

    def _inputs(
        self, session: DeviceSession, artifact: Artifact, payload: Payload
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        if not payload.gives_outputs:
            return [], None
        return inputs_for_device(session, artifact, payload, self.options.inputs, self.device.timeout_s)

    @contextmanager
    def _governors(self, session: DeviceSession) -> Iterator[None]:
        """With ``allow_root``: the governor ``performance``, and the old one back at the end."""
        from ..android_harness.device_conditions import find_root, pin_governor, set_governors

        if not self.device.allow_root:
            yield
            return
        try:
            root = find_root(session.target)
            before = pin_governor(session.target, root)
        except DeviceError as error:
            self.outcome.warnings.append(f"the governor was not set: {str(error).rstrip('.')}")
            yield
            return
        try:
            yield
        finally:
            try:
                set_governors(session.target, root, before)
            except DeviceError as error:
                self.outcome.warnings.append(f"the old governor was not given back: {str(error).rstrip('.')}")
