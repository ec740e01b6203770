"""The one line a configuration that says how far its figures can be trusted."""

from __future__ import annotations

from typing import Any

from edgeopt.android_harness.sampling import Noise, summarize
from edgeopt.results.trust import trust_lines

BUSY = "other processes used {:.0%} of the CPUs meanwhile"


def latency(
    name: str, noise: Noise, *, busy: float = 0.0, threads: int = 1, width: float = 0.01
) -> dict[str, Any]:
    problems = [BUSY.format(busy)] if busy else []
    warnings = [*noise.sentences(), *(["measured under bad conditions: " + p for p in problems])]
    return {
        "metric": "latency_ms",
        "value": 2.0,
        "ci95": [2.0 * (1 - width), 2.0 * (1 + width)],
        "artifact": name,
        "artifact_sha256": name,
        "target": "host",
        "runtime": "litert",
        "threads": threads,
        "conditions": {"problems": problems},
        "details": {"noise": vars(noise)},
        "warnings": warnings,
    }


def test_one_configuration_is_one_line_with_the_worst_first() -> None:
    noise = Noise(process_spread=0.34, drift=-0.22, outlier_share=0.08)
    assert len(noise.sentences()) == 3
    (line,) = trust_lines([latency("model.pte", noise, busy=0.76)])
    assert line == (
        "model.pte, 1 thread: other processes used 76% of the CPUs meanwhile; "
        "processes differ by 34%, runs drift 22%, 8% outliers: don't trust differences below 34%"
    )


def test_a_condition_that_all_share_is_said_once() -> None:
    quiet, noisy = Noise(), Noise(drift=0.15)
    lines = trust_lines([latency("a", quiet, busy=0.5), latency("b", noisy, busy=0.7, threads=2)])
    assert lines == [
        "both configurations were measured under bad conditions: other processes used 70% of the CPUs meanwhile",
        "b, 2 threads: runs drift 15%: don't trust differences below 15%",
    ]
    assert lines[1:] == trust_lines([latency("a", quiet), latency("b", noisy, threads=2)])


def test_the_least_trustworthy_configuration_comes_first() -> None:
    found = trust_lines([latency("a", Noise(drift=0.05)), latency("b", Noise(process_spread=0.4))])
    assert [line[0] for line in found] == ["b", "a"]


def test_a_wide_interval_limits_trust_even_where_the_runs_are_even() -> None:
    (line,) = trust_lines([latency("a", Noise(), busy=0.3, width=0.09)])
    assert line.endswith("don't trust differences below 9%")
    assert trust_lines([latency("a", Noise())]) == []


def test_what_is_not_noise_is_kept() -> None:
    found = latency("a", Noise(modes_ms=(1.0, 1.5)))
    found["warnings"].append("4 threads share 2 CPUs")
    energy = {
        **found,
        "metric": "energy_mj",
        "warnings": ["the idle power changed by more than 20%"],
        "details": {},
    }
    (line,) = trust_lines([found, energy])
    assert line == (
        "a, 1 thread: runs fall into two groups (1 and 1.5 ms), 4 threads share 2 CPUs, "
        "the idle power changed by more than 20%: don't trust differences below 50%"
    )


def test_the_noise_of_real_series_is_what_the_line_says() -> None:
    noise = summarize([[1.0] * 20, [1.3] * 20]).noise
    assert abs(noise.process_spread - 0.3) < 1e-9
    assert (noise.drift, noise.modes_ms) == (0.0, None)
