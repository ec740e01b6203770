"""Records as a store holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt.android_harness.conditions import machine_facts
from edgeopt.results.records import Record


def stored(value: float, path: Path, **changes: Any) -> Record:
    base: dict[str, Any] = {
        "metric": "latency_ms",
        "value": value,
        "ci95": (value * 0.98, value * 1.02),
        "grade": "measured",
        "artifact": path.name,
        "target": "host",
        "threads": 1,
        "conditions": machine_facts(),
        "artifact_sha256": "00",
        "runtime": "litert",
        "details": {"path": str(path)},
    }
    return Record(**{**base, **changes})
