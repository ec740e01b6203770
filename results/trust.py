"""How far figures can be trusted, in one line a configuration, worst first.

The full sentences stay with each measurement (``warnings``, ``conditions.problems``, ``details.noise``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..android_harness.measure import worst_of
from ..android_harness.sampling import Noise
from ..wording import counted

_CONDITIONS = "measured under bad conditions: "
_WORTH_SAYING = 0.03  # bench aims at an interval of ±3%: below it nobody needs to be warned


@dataclass(frozen=True)
class Trust:
    """One configuration: bad conditions, what its run times show, and the smallest difference that counts."""

    name: str
    problems: tuple[str, ...]
    signs: tuple[str, ...]
    resolution: float

    def line(self, common: frozenset[str] = frozenset()) -> str | None:
        """The sentence about it, without the kinds of problem in ``common``; None when there is nothing to say."""
        problems = [p for p in self.problems if _kind(p) not in common]
        parts = [*problems, ", ".join(self.signs)] if self.signs else problems
        if not parts:
            return None
        advice = ""
        if self.resolution >= _WORTH_SAYING:
            advice = f": don't trust differences below {self.resolution:.0%}"
        return f"{self.name}: {'; '.join(parts)}{advice}"


def trust_lines(measurements: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a configuration that has something to be warned of, the least trustworthy first.

    A bad condition that every configuration shares is said once, before them.

    Args:
        measurements: objects of the JSON list ``measurements``.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for m in measurements:
        if m["metric"] != "size_bytes":
            key = (m["artifact"], m["artifact_sha256"], m["target"], m["runtime"], m["threads"])
            groups.setdefault(key, []).append(m)
    judged = sorted((_judge(group) for group in groups.values()), key=lambda t: -t.resolution)
    kinds = [{_kind(p) for p in trust.problems} for trust in judged]
    common = frozenset(set.intersection(*kinds)) if len(kinds) > 1 else frozenset()
    lines = []
    if common:
        shared = worst_of(p for trust in judged for p in trust.problems if _kind(p) in common)
        lines.append(
            f"{'both' if len(judged) == 2 else f'all {len(judged)}'} configurations were measured under bad conditions: {'; '.join(shared)}"
        )
    return lines + [line for trust in judged if (line := trust.line(common))]


def _judge(group: Sequence[Mapping[str, Any]]) -> Trust:
    first = group[0]
    threads = first["threads"]
    where = "" if first["target"] == "host" else f" on {first['target']}"
    name = f"{first['artifact']}{where}, {counted(threads, 'thread')}"
    signs: list[tuple[float, str]] = []
    said: set[str] = set()
    resolution = 0.0
    latency = next((m for m in group if m["metric"] == "latency_ms"), None)
    if latency is not None and "noise" in latency["details"]:
        noise = Noise(**latency["details"]["noise"])
        said = set(noise.sentences())
        signs, resolution = _signs(noise), _resolution(noise, latency)
    others = [
        sentence
        for sentence in dict.fromkeys(w for m in group for w in m["warnings"])
        if sentence not in said and not sentence.startswith(_CONDITIONS)
    ]
    problems = tuple(dict.fromkeys(p for m in group for p in m["conditions"].get("problems", ())))
    words = [text for _, text in sorted(signs, key=lambda pair: -pair[0])]
    return Trust(name, problems, (*words, *others), resolution)


def _signs(noise: Noise) -> list[tuple[float, str]]:
    """(size, a few words) of each kind of noise that Noise.sentences() would speak of."""
    found: list[tuple[float, str]] = []
    if noise.process_spread > 0.1:
        found.append((noise.process_spread, f"processes differ by {noise.process_spread:.0%}"))
    if noise.modes_ms:
        low, high = noise.modes_ms
        found.append((_gap(noise), f"runs fall into two groups ({low:.3g} and {high:.3g} ms)"))
    if abs(noise.drift) > 0.03:
        found.append((abs(noise.drift), f"runs drift {abs(noise.drift):.0%}"))
    if noise.outlier_share > 0.02:
        found.append((0.0, f"{noise.outlier_share:.0%} outliers"))  # a median isn't moved by them
    return found


def _resolution(noise: Noise, latency: Mapping[str, Any]) -> float:
    half = (latency["ci95"][1] - latency["ci95"][0]) / 2 / latency["value"] if latency["ci95"] else 0.0
    return max(half, noise.process_spread, abs(noise.drift), _gap(noise))


def _gap(noise: Noise) -> float:
    return noise.modes_ms[1] / noise.modes_ms[0] - 1 if noise.modes_ms else 0.0


def _kind(problem: str) -> str:
    return re.sub(r"[\d.]+", "#", problem)
