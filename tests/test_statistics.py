"""What is said about run times: intervals that cover, warnings that fire, verdicts that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.android_harness.sampling import (
    bimodal,
    block_length,
    drift,
    median_interval,
    outlier_share,
    summarize,
    t975,
)
from edgeopt.results.records import spread as spread_of
from edgeopt.results.statistics import Ratio, ratio_of_rounds, round_log_ratio, verdict


def skewed(generator: np.random.Generator, n: int) -> np.ndarray:
    return 1 + generator.gamma(2, 0.02, n)


def test_the_median_interval_of_one_process_covers_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    truth = float(np.median(skewed(generator, 200_000)))
    hits = 0
    for trial in range(120):
        low, high = median_interval([skewed(generator, 200)], resamples=300, seed=trial) or (0, 0)
        hits += low <= truth <= high
    assert hits >= 105  # 95% of 120 is 114; below 105 has probability under 0.001


def test_the_interval_over_processes_covers_their_scatter() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        processes = [np.exp(generator.normal(0, 0.05)) * skewed(generator, 60) for _ in range(4)]
        low, high = median_interval(processes) or (0, 0)
        hits += low <= 1.034 <= high  # the median of 1 + gamma(2, 0.02)
    assert hits >= 132


def test_neighbours_that_resemble_each_other_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    steps = np.repeat(generator.normal(1, 0.05, 40), 25)
    shuffled = generator.permutation(steps)
    wide, narrow = median_interval([steps], seed=1), median_interval([shuffled], seed=1)
    assert wide is not None and narrow is not None
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert block_length(steps) > block_length(shuffled)


def test_a_summary_says_what_it_rests_on() -> None:
    summary = summarize([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [1.0, 2.0, 9.0]])
    assert summary.runs == 9
    assert summary.median_ms == 2.0
    assert summary.min_ms == 1.0
    assert summary.ci95 is not None
    assert summary.ci95[0] <= 2.0 <= summary.ci95[1]
    assert summarize([[1.0, 2.0]]).ci95 is None


@given(st.lists(st.lists(st.floats(0.01, 100), min_size=2, max_size=20), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_interval_always_holds_the_estimate_over_processes(processes: list[list[float]]) -> None:
    summary = summarize(processes, resamples=100)
    assert summary.min_ms <= summary.median_ms * (1 + 1e-9)
    assert summary.p90_ms <= summary.p99_ms * (1 + 1e-9)
    if summary.ci95 and len(processes) > 1:
        assert summary.ci95[0] <= summary.median_ms * (1 + 1e-9)
        assert summary.ci95[1] >= summary.median_ms * (1 - 1e-9)


def test_bimodality_is_seen_and_not_imagined() -> None:
    generator = np.random.default_rng(4)
    two = np.concatenate([generator.normal(1, 0.02, 600), generator.normal(1.5, 0.02, 400)])
    found = bimodal(generator.permutation(two))
    assert found is not None
    assert found == pytest.approx((1.0, 1.5), rel=0.03)
    imagined = sum(bimodal(skewed(generator, 500)) is not None for _ in range(100))
    assert imagined <= 5
    assert bimodal(np.full(100, 2.0)) is None


def test_drift_is_seen_and_not_imagined() -> None:
    generator = np.random.default_rng(5)
    heating = skewed(generator, 900) * np.linspace(1, 1.3, 900)
    assert drift(heating) == pytest.approx(0.2, abs=0.05)
    imagined = sum(abs(drift(skewed(generator, 900))) > 0 for _ in range(100))
    assert imagined <= 3
    assert drift(np.ones(1000)) == 0


def test_outliers_are_counted() -> None:
    times = np.concatenate([np.random.default_rng(6).normal(1, 0.01, 950), np.full(50, 3.0)])
    assert outlier_share(times) == pytest.approx(0.05, abs=0.005)
    assert outlier_share(np.full(100, 1.0)) == 0
    words = " ".join(summarize([times]).warnings)
    assert "5% of the runs are outliers" in words


def test_t_quantiles() -> None:
    from scipy import stats

    for degrees in (1, 2, 5, 10, 30, 31, 60, 200):
        assert t975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=0.005)


def test_a_round_is_robust_against_bursts() -> None:
    a = [[1.0, 1.01, 1.0]] * 16
    b = [[1.1, 1.11, 1.1]] * 12 + [[5.0, 6.0, 5.0]] * 4
    assert np.exp(round_log_ratio(a, b)) == pytest.approx(1.1)


def noisy_rounds(generator: np.random.Generator, ratio: float, spread: float, n: int = 6) -> Ratio:
    return ratio_of_rounds(list(np.log(ratio) + generator.normal(0, spread, n)))


def decide(generator: np.random.Generator, ratio: float, spread: float) -> str:
    first = list(np.log(ratio) + generator.normal(0, spread, 6))
    one = ratio_of_rounds(first)
    if not one.excludes_equality(0.01):
        return verdict(one, None, one, 0.01)
    second = list(np.log(ratio) + generator.normal(0, spread, 6))
    return verdict(one, ratio_of_rounds(second), ratio_of_rounds(first + second), 0.01)


def test_equal_files_are_hardly_ever_told_apart_and_ten_percent_nearly_always() -> None:
    generator = np.random.default_rng(7)
    false = sum(decide(generator, 1.0, 0.02) in ("slower", "faster") for _ in range(400))
    assert false <= 4
    found = sum(decide(generator, 1.1, 0.02) == "slower" for _ in range(200))
    assert found >= 196


def test_verdicts_need_both_sets_on_the_same_side() -> None:
    up, down, flat = Ratio(1.1, 1.05, 1.15, 6), Ratio(0.9, 0.85, 0.95, 6), Ratio(1.0, 0.995, 1.005, 6)
    assert verdict(up, up, up, 0.01) == "slower"
    assert verdict(down, down, down, 0.01) == "faster"
    assert verdict(up, down, up, 0.01) == "undecided"
    assert verdict(up, None, up, 0.01) == "undecided"
    assert verdict(flat, None, flat, 0.01) == "same"
    assert verdict(Ratio(1.0, 0.9, 1.1, 6), None, Ratio(1.0, 0.9, 1.1, 6), 0.01) == "undecided"


def test_one_round_tells_nothing() -> None:
    assert ratio_of_rounds([0.1]).excludes_equality(0.01) == 0


def test_an_interval_of_equal_processes_holds_its_estimate() -> None:
    from edgeopt.android_harness.sampling import median_interval

    for value in (0.1, 0.3, 0.0517, 1.7):
        interval = median_interval([[value] * 5] * 3)
        assert interval is not None and interval[0] <= value <= interval[1]


def test_an_interval_is_made_of_plain_numbers() -> None:
    """docs/bench.md prints ci95: load_ms showed (0.0, np.float64(3.1585485959220367))."""
    interval = spread_of([1.0, 2.0, 4.0])
    assert interval is not None and [type(bound) for bound in interval] == [float, float]
