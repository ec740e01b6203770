"""A gate without noise: instruction counts against a committed baseline file.

The baseline is a small JSON file that belongs into the app's repository. Counts of one artefact are equal in
every run, on every machine with the same toolchain fingerprint, so a limit of 1% means 1%.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from .cache import write_json

SCHEMA_VERSION = 1
METRICS = ("instructions", "macs_executed", "bytes_moved")


@dataclass(frozen=True)
class CountCheck:
    """One count against its baseline. ``ratio`` is new over old."""

    artifact: str
    profile: str
    metric: str
    baseline: float
    value: float
    ratio: float
    limit: float
    ok: bool
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """The object in the JSON list ``checks``."""
        return asdict(self)


def write_counts_baseline(path: Path, measurements: Iterable[Mapping[str, Any]]) -> None:
    """Write the counts of ``measurements`` (of :func:`measure_on_emulator`) as a baseline to commit."""
    entries = [
        {
            "artifact": m["artifact"],
            "profile": m["conditions"]["profile"],
            "metric": m["metric"],
            "value": m["value"],
            "toolchain": m["conditions"]["toolchain"],
        }
        for m in measurements
        if m["metric"] in METRICS
    ]
    if not entries:
        raise InputError("there are no emulated counts to write as a baseline")
    entries.sort(key=_key)
    for before, after in itertools.pairwise(entries):
        if _key(before) == _key(after):
            raise InputError(
                f"two of the files are named {after['artifact']}: give each a baseline file of its own"
            )
    write_json(path, {"schema_version": SCHEMA_VERSION, "kind": "edgeopt emulator counts", "counts": entries})


def read_counts_baseline(path: Path) -> list[dict[str, Any]]:
    """The entries of a baseline file.

    Raises:
        InputError: missing, not JSON, or of another kind.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); write it with --write-baseline"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION or "counts" not in data:
        raise InputError(f"{path} is not a baseline of emulator counts (schema {SCHEMA_VERSION})")
    entries = data["counts"]
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise InputError(
            f"{path} is damaged: an entry lacks its artefact, profile, metric, value or toolchain"
        )
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("value"), int | float):
        return False
    return all(isinstance(entry.get(name), str) for name in ("artifact", "profile", "metric", "toolchain"))


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["artifact"], entry["profile"], entry["metric"]


def gate_counts(
    measurements: Iterable[Mapping[str, Any]],
    baseline: Path,
    *,
    max_regression: float = 0.01,
    metrics: Iterable[str] = ("instructions",),
) -> tuple[list[CountCheck], list[str]]:
    """Check counts against a baseline file.

    Args:
        max_regression: the share by which a count may grow, e.g. 0.01.

    Returns:
        the checks, and warnings (a toolchain that differs, an artefact without a baseline).

    Raises:
        InputError: the baseline is unreadable, or holds none of what was counted.
    """
    known = {_key(entry): entry for entry in read_counts_baseline(baseline)}
    wanted = set(metrics)
    if wanted - set(METRICS):
        raise InputError(
            f"{sorted(wanted - set(METRICS))[0]!r} cannot be gated; choose from {', '.join(METRICS)}"
        )
    checks: list[CountCheck] = []
    warnings: list[str] = []
    for measured in measurements:
        if measured["metric"] not in wanted:
            continue
        key = (measured["artifact"], measured["conditions"]["profile"], measured["metric"])
        entry = known.get(key)
        if entry is None:
            warnings.append(f"{key[0]} on {key[1]} has no {key[2]} in {baseline.name}")
            continue
        if entry["toolchain"] != measured["conditions"]["toolchain"]:
            warnings.append(
                f"{key[0]}: the baseline was counted with another toolchain "
                f"({entry['toolchain']}, now {measured['conditions']['toolchain']}); write it anew"
            )
        checks.append(_check(key, entry["value"], measured["value"], max_regression))
    if not checks:
        raise InputError(f"{baseline} holds no count of these files and this profile")
    return checks, warnings


def _check(key: tuple[str, str, str], old: float, new: float, limit: float) -> CountCheck:
    artifact, profile, metric = key
    ratio = new / old if old else float("inf") if new else 1.0
    ok = new <= old * (1.0 + limit)
    verdict = "within" if ok else "MORE than"
    sentence = (
        f"{artifact} on {profile}: {metric} {new:,.0f} against {old:,.0f} "
        f"({100 * (ratio - 1):+.2f}%), {verdict} the {100 * limit:g}% allowed"
    )
    return CountCheck(artifact, profile, metric, old, new, ratio, limit, ok, sentence)
