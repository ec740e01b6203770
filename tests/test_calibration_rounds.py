"""A calibration's rounds on this machine: a time that no other comes near is taken again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeopt.calibration import measuring
from edgeopt.calibration.files import SuiteFile
from edgeopt.calibration.measuring import AGAIN, Journal, measure_here, settle_here

SAID: Callable[..., None] = lambda what, share=None: None  # noqa: E731


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Instead of the processes that measure: the times that each file is going to take, one a round."""
    times: dict[str, list[float]] = {}

    def batch(files: Sequence[SuiteFile], runtime: str, threads: int, turn: int, journal: Journal) -> None:
        for file in files:
            journal.add(file.key, threads, turn, times[file.carrier].pop(0))

    monkeypatch.setattr(measuring, "_batch", batch)
    return times


def _files(tmp_path: Path, *names: str) -> list[SuiteFile]:
    return [SuiteFile(name, "fp32", "litert", tmp_path / f"{name}.tflite") for name in names]


def test_what_one_round_alone_says_is_measured_again_until_another_agrees(
    tmp_path: Path, machine: dict[str, list[float]]
) -> None:
    """A machine that others use: the first round of "slowed" is too slow, and so is the third."""
    machine |= {
        "steady": [1.0, 1.01],
        "slowed": [1.4, 1.0, 1.3, 1.02, 7.0],
        "restless": [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],
    }
    files = _files(tmp_path, *machine)
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 2, journal, SAID)
    assert settle_here(files, [1], 2, journal, SAID)
    assert machine == {"steady": [], "slowed": [7.0], "restless": [3.0]}
    steady, slowed, restless = journal.latencies(files, [1], 2)
    assert (steady.ms, slowed.ms, restless.ms) == (1.0, 1.0, 4.0)
    assert slowed.doubt == pytest.approx(0.02) and slowed.spread == pytest.approx(0.4)
    assert restless.doubt == pytest.approx(0.25)
    # Done is done: the same call measures nothing more, also after an interruption.
    again = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 2, again, SAID) and settle_here(files, [1], 2, again, SAID)
    assert len(machine["restless"]) == 2 + AGAIN - 5


def test_one_round_is_one_round(tmp_path: Path, machine: dict[str, list[float]]) -> None:
    machine |= {"n": [1.0]}
    files = _files(tmp_path, "n")
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 1, journal, SAID) and settle_here(files, [1], 1, journal, SAID)
    (latency,) = journal.latencies(files, [1], 1)
    assert (latency.spread, latency.doubt) == (0.0, 0.0)


def test_a_file_that_fails_does_not_come_back(tmp_path: Path, machine: dict[str, Any]) -> None:
    machine |= {"n": [1.0, None]}
    files = _files(tmp_path, "n")
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 2, journal, SAID) and settle_here(files, [1], 2, journal, SAID)


def test_a_budget_that_is_used_up_stops_it(tmp_path: Path, machine: dict[str, list[float]]) -> None:
    machine |= {"n": [1.0, 2.0]}
    files = _files(tmp_path, "n")
    journal = Journal.open(tmp_path / "j.jsonl", {})
    assert measure_here(files, [1], 2, journal, SAID)
    assert not settle_here(files, [1], 2, journal, SAID, budget_s=-1.0)
