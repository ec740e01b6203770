"""From a profile's name to a calibrated profile: make the suite, measure it, fit, write."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cost_model.calibrate import Fit, fit_device
from ..cost_model.constants import load_constants
from ..cost_model.observed import Observation
from ..device_profiles import load_profile
from ..errors import EdgeoptError, InputError
from .files import SuiteFile, suite_files, suite_folder
from .measuring import Journal, Latency, Say, measure_here, measure_on, profile_here, settle_here
from .op_times import kernel_times

if TYPE_CHECKING:
    from ..android_harness.payload import Payload
    from ..android_harness.remote import RemoteTarget
    from ..device_profiles import DeviceProfile

ROUNDS = 2
# Enough to try the whole road in a minute or two; far too few to trust.
QUICK = ("point_small", "depth_small", "conv_28", "linear_small", "together_14", "excited_28")


@dataclass(frozen=True)
class Calibrated:
    """What came of it: the file, its profile, the fit, the latencies, and sentences worth knowing."""

    path: Path
    profile: DeviceProfile
    fit: Fit
    latencies: tuple[Latency, ...]
    warnings: tuple[str, ...]

    @property
    def profiled(self) -> int:
        """Of how many latencies the operators were timed, too."""
        return sum(bool(each.ops) for each in self.latencies)

    @property
    def spread(self) -> float:
        """How far the rounds of a file lie apart, the median over all (relative)."""
        return float(np.median([each.spread for each in self.latencies]))


def calibrate(
    name: str | Path,
    output: Path,
    say: Say,
    *,
    target: RemoteTarget | None = None,
    threads: Sequence[int] = (),
    rounds: int = ROUNDS,
    carriers: Sequence[str] | None = None,
    force: bool = False,
    make_payload: Callable[[str], Payload] | None = None,
) -> Calibrated:
    """Calibrate profile ``name`` on ``target`` (None: this machine) and write the result to ``output``.

    What is measured is kept; interrupted, the next call goes on with it.

    Args:
        threads: numbers of threads to measure; by default 1 and all cores of the fastest kind.
        carriers: only these networks of the suite.
        make_payload: what runs a file on a device, instead of our own runner.

    Raises:
        InputError: the profile isn't of that device, the output exists, or an option can't be.
        EdgeoptError: nothing could be exported or measured.
    """
    from .suite import VERSION, suite

    base = load_profile(name)
    if output.exists() and not force:
        raise InputError(f"{output} exists: choose another --output, or say --force to replace it.")
    device = _check_device(base, target)
    counts = _threads(base, threads)
    names = tuple(carriers or (each.name for each in suite()))
    files = suite_files(names, say)
    place = target.name if target else "host"
    journal = Journal.open(
        suite_folder().parent / f"measured-{base.name}-{_slug(place)}.jsonl",
        {"profile": base.fingerprint(), "device": device, "suite": suite_folder().name, "rounds": rounds},
    )
    if target is None:
        measure_here(files, counts, rounds, journal, say)
        settle_here(files, counts, rounds, journal, say)
        profile_here(files, counts, rounds, journal, say)
    else:
        measure_on(target, base, files, counts, rounds, journal, say, make_payload=make_payload)
    latencies = journal.latencies(files, counts, rounds if target is None else 1)
    say("fitting", None)
    fit = fit_device(observations(latencies), base)
    conditions = "; ".join(journal.problems) or "no other load, no throttling seen"
    table = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "conditions": f"{place}; {conditions}",
        "runtimes": _versions(files),
        "suite": VERSION,
        "measurements": len(latencies),
        "threads": sorted(counts),
        **fields_of(fit),
    }
    profile = write_calibrated(base, name, output, table)
    journal.path.unlink(missing_ok=True)
    warnings = [f"measured under bad conditions: {conditions}"] if journal.problems else []
    lost = len(files) * len(counts) - len(latencies)
    if lost:
        warnings.append(
            f"{lost} of {len(files) * len(counts)} latencies could not be taken; the rest is used"
        )
    untold = sum(not each.ops for each in latencies)
    if untold and target is None:
        warnings.append(
            f"the operators of {untold} of {len(latencies)} latencies could not be timed; their sums are used alone"
        )
    return Calibrated(output, profile, fit, tuple(latencies), tuple(warnings))


def observations(latencies: Sequence[Latency]) -> list[Observation]:
    """Latencies with the kernels of their files, as the cost model learns from them."""
    from ..converters.kernels import file_kernels

    kernels = {each.file.path: tuple(file_kernels(each.file.path)) for each in latencies}
    return [
        Observation(
            each.file.carrier,
            each.file.runtime,
            each.threads,
            kernels[each.file.path],
            each.ms,
            each.doubt,
            kernel_times(kernels[each.file.path], each.ops) if each.ops else (),
        )
        for each in latencies
        if kernels[each.file.path]
    ]


def fields_of(fit: Fit) -> dict[str, Any]:
    """A fit's part of the table ``[calibration]``."""
    return {
        "constants": load_constants().fingerprint,
        "factors": fit.factors,
        "call_ms": fit.call_ms,
        "start_ms": fit.start_ms,
        "settings": list(fit.settings),
        "band": [round(value, 4) for value in fit.band],
        "within_10": round(fit.within(0.1), 4),
        "within_20": round(fit.within(0.2), 4),
        "median_error": round(fit.median_error, 4),
        "anchors": list(fit.anchors),
    }


def write_calibrated(
    base: DeviceProfile, name: str | Path, output: Path, table: dict[str, Any]
) -> DeviceProfile:
    """Write the profile that extends ``name`` with ``table``, and load it again.

    Raises:
        EdgeoptError: it can't be written.
    """
    from ..android_harness.device_profile import to_toml, write_profile

    extends = str(Path(name).resolve()) if str(name).endswith(".toml") else base.name
    title = f"{base.title.removesuffix(', calibrated')}, calibrated"
    head = to_toml({"extends": extends, "title": title, "aliases": []})
    anchors = table["anchors"]
    rest = to_toml({"calibration": {key: value for key, value in table.items() if key != "anchors"}})
    # One line an anchor: a table of its own each would make a file of thousands of lines.
    rows = "\n".join(f"  {_inline(anchor)}," for anchor in anchors)
    head_of_table, _, tables = rest.strip().partition("\n\n")
    text = f"{head}\n{head_of_table}\nanchors = [\n{rows}\n]\n\n{tables}\n"
    write_profile(text, output, force=True)
    return load_profile(output)


def _inline(anchor: dict[str, Any]) -> str:
    words = ", ".join(f'{key} = "{value}"' for key, value in anchor.items() if isinstance(value, str))
    figures = ", ".join(f"{key} = {value:.6g}" for key, value in anchor.items() if isinstance(value, float))
    weights = ", ".join(f"{value:.6g}" for value in anchor["weights"])
    return f"{{ {words}, {figures}, weights = [{weights}] }}"


def _check_device(base: DeviceProfile, target: RemoteTarget | None) -> str:
    """The device in words.

    Raises:
        InputError: it isn't the one that the profile describes, or an emulated one.
    """
    from ..android_harness.conditions import cpu_model
    from ..android_harness.discovery import mismatch

    if target is None:
        machine = {"aarch64": "arm64", "amd64": "x86_64"}.get(
            platform.machine().lower(), platform.machine().lower()
        )
        if machine != base.arch:
            raise InputError(
                f"profile {base.name} describes an {base.arch} device and this machine is {machine}: connect the "
                "device and say --on adb or --on ssh:USER@HOST."
            )
        return cpu_model()
    facts = target.facts()
    problem = facts.problem() or mismatch(base, facts)
    if problem:
        raise InputError(f"{base.name} can't be calibrated on {target.name}: {problem}.")
    if facts.emulated_by:
        raise InputError(
            f"{target.name} is emulated by {facts.emulated_by}: its times say nothing about a device, so nothing "
            "can be calibrated there."
        )
    return facts.title


def _threads(base: DeviceProfile, asked: Sequence[int]) -> tuple[int, ...]:
    wrong = [count for count in asked if not 1 <= count <= base.total_cores]
    if wrong:
        raise InputError(f"--num-threads {wrong[0]}: {base.name} has {base.total_cores} cores.")
    return tuple(sorted(set(asked) or {1, base.big_cluster.count}))


def _versions(files: Sequence[SuiteFile]) -> dict[str, str]:
    from ..runtimes import version_of

    found = {runtime: version_of(runtime) for runtime in sorted({file.runtime for file in files})}
    if not found:
        raise EdgeoptError("the suite has no files: nothing could be exported.")
    return {runtime: str(version) for runtime, version in found.items()}


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())
