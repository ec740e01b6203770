"""What can be said about one series of run times: location, interval, and warnings about its own weakness.

Timings are skewed, have outliers and depend on their neighbours. So: medians; intervals by a moving-block
bootstrap (Künsch 1989), which keeps neighbouring runs together; and, over several processes, Student's t
over the process medians, because a process keeps its luck (memory layout, core) for life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_OUTLIER_Z = 5.0  # modified z-score; Iglewicz and Hoaglin propose 3.5, too eager for skewed run times
_MAD_TO_SIGMA = 1.4826  # makes the median absolute deviation estimate sigma of a normal distribution


# Two-sided 97.5% quantiles of Student's t for 1..30 degrees of freedom (Abramowitz and Stegun, table 26.10).
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """What makes run times less trustworthy than their interval looks, in numbers.

    Shares of the run time: ``process_spread`` is (slowest - fastest) / fastest of the processes' medians (0 for
    one process), ``drift`` the strongest change within a process, ``outlier_share`` a share of the runs.
    ``modes_ms`` are the two groups the runs of a process fall into, if they do.
    """

    process_spread: float = 0.0
    drift: float = 0.0
    outlier_share: float = 0.0
    modes_ms: tuple[float, float] | None = None

    def sentences(self) -> list[str]:
        """Each kind that is strong enough to matter, in words."""
        found = []
        if self.outlier_share > 0.02:
            found.append(
                f"{self.outlier_share:.0%} of the runs are outliers (something else ran on these cores)"
            )
        if abs(self.drift) > 0.03:
            direction = "slower" if self.drift > 0 else "faster"
            found.append(f"the runs grew {abs(self.drift):.0%} {direction} from start to end (drift)")
        if self.modes_ms:
            low, high = self.modes_ms
            found.append(
                f"the runs fall into two groups, near {low:.3g} and {high:.3g} ms: the median hides one"
            )
        if self.process_spread > 0.1:
            found.append(f"fresh processes differ by {self.process_spread:.0%} among themselves")
        return found


@dataclass(frozen=True)
class Summary:
    """A series of run times in words and numbers; all times in milliseconds.

    ``ci95`` is the bootstrap interval of the median; ``warnings`` are the sentences of ``noise``.
    """

    runs: int
    median_ms: float
    ci95: tuple[float, float] | None
    p90_ms: float
    p99_ms: float
    min_ms: float
    mad_ms: float
    warnings: tuple[str, ...]
    noise: Noise


def summarize(processes: Sequence[Sequence[float]], *, resamples: int = 1000, seed: int = 0) -> Summary:
    """Summarise run times that were taken in one or more fresh processes.

    Args:
        processes: for each process its run times in ms, in the order they were taken; none empty.
        resamples: bootstrap resamples.
    """
    series = [np.asarray(times, dtype=np.float64) for times in processes]
    everything = np.concatenate(series)
    median = float(np.median(everything))
    # One process weighs as much as another however many runs it managed.
    center = float(np.median([np.median(times) for times in series]))
    noise = noise_of(series)
    return Summary(
        runs=len(everything),
        median_ms=center,
        ci95=median_interval(processes, resamples=resamples, seed=seed),
        p90_ms=float(np.percentile(everything, 90)),
        p99_ms=float(np.percentile(everything, 99)),
        min_ms=float(everything.min()),
        mad_ms=float(np.median(np.abs(everything - median))),
        warnings=tuple(noise.sentences()),
        noise=noise,
    )


def median_interval(
    processes: Sequence[Sequence[float]], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """95% interval of the median run time; None when fewer than five runs are there.

    One process: the block bootstrap, which knows nothing of how another process would have fared. Several:
    Student's t interval over the logarithms of the process medians, which holds both kinds of scatter.
    """
    if sum(len(times) for times in processes) < 5:
        return None
    if len(processes) > 1:
        logs = np.log([np.median(times) for times in processes])
        half = t975(len(logs) - 1) * float(logs.std(ddof=1)) / np.sqrt(len(logs))
        # The median of the process medians is the estimate: the interval always holds it, to the last bit.
        middle = float(np.median([np.median(times) for times in processes]))
        low, high = np.exp(logs.mean() - half), np.exp(logs.mean() + half)
        return min(middle, float(low)), max(middle, float(high))
    generator = np.random.default_rng(seed)
    medians = _bootstrap_medians(np.asarray(processes[0], dtype=np.float64), resamples, generator)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def t975(degrees: int) -> float:
    """Two-sided 95% quantile of Student's t; 1.96 + 2.5/degrees beyond the table (error below 0.002)."""
    return _T975[degrees - 1] if degrees <= len(_T975) else 1.96 + 2.5 / degrees


def relative_half_width(times: Sequence[float], *, seed: int = 0) -> float:
    """Half the width of the median's interval over the median; infinite while there are too few runs."""
    interval = median_interval([times], resamples=200, seed=seed)
    if interval is None:
        return float("inf")
    return (interval[1] - interval[0]) / 2 / max(float(np.median(times)), 1e-12)


def block_length(times: np.ndarray) -> int:
    """Length of the bootstrap's blocks: where the autocorrelation of the ranks has died away.

    At least the cube root of n (the usual rate for the block bootstrap), at most a tenth of n.
    """
    n = len(times)
    floor = max(1, round(n ** (1 / 3)))
    if n < 20:
        return 1
    ranks = np.argsort(np.argsort(times)).astype(np.float64)
    ranks -= ranks.mean()
    variance = float(ranks @ ranks)
    if variance == 0:
        return floor
    limit = 2 / np.sqrt(n)
    for lag in range(1, n // 10):
        if float(ranks[:-lag] @ ranks[lag:]) / variance < limit:
            return min(max(floor, 2 * lag), max(1, n // 10))
    return max(1, n // 10)


def _bootstrap_medians(times: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    # More than a few thousand runs add nothing to the interval but time: thin evenly, keeping the order.
    if len(times) > 4000:
        times = times[:: len(times) // 2000]
    n = len(times)
    length = block_length(times)
    blocks = -(-n // length)
    starts = generator.integers(0, n, size=(resamples, blocks))
    # Circular blocks: every run is as likely as any other.
    index = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :n] % n
    return np.asarray(np.median(times[index], axis=1))


def noise_of(series: Sequence[np.ndarray]) -> Noise:
    """The noise of run times taken in one or more processes."""
    medians = [float(np.median(times)) for times in series]
    return Noise(
        process_spread=(max(medians) - min(medians)) / min(medians) if len(medians) > 1 else 0.0,
        drift=max((drift(times) for times in series), key=abs, default=0.0),
        outlier_share=outlier_share(np.concatenate(series)),
        modes_ms=next((pair for pair in map(bimodal, series) if pair), None),
    )


def outlier_share(times: np.ndarray) -> float:
    """Share of runs whose modified z-score, (x - median) / (1.4826 MAD), exceeds 5."""
    center = np.median(times)
    # A clock's grain can make the MAD zero: half a percent of the median is no outlier.
    scale = max(_MAD_TO_SIGMA * float(np.median(np.abs(times - center))), 0.005 * float(center), 1e-12)
    return float(np.mean(np.abs(times - center) > _OUTLIER_Z * scale))


def drift(times: np.ndarray) -> float:
    """Relative change from the first to the last third; 0 when it could be chance.

    Chance is judged by a rank correlation with time (Spearman) on block medians, so that neighbours that
    resemble each other don't count as evidence twice.
    """
    if len(times) < 60:
        return 0.0
    blocks = np.array([np.median(part) for part in np.array_split(times, 30)])
    ranks = np.argsort(np.argsort(blocks)).astype(np.float64)
    correlation = float(np.corrcoef(ranks, np.arange(30))[0, 1]) if np.ptp(blocks) > 0 else 0.0
    if abs(correlation) < 0.6:  # p < 0.001 for 30 independent blocks
        return 0.0
    first, last = np.median(blocks[:10]), np.median(blocks[-10:])
    return float((last - first) / first)


def bimodal(times: np.ndarray) -> tuple[float, float] | None:
    """The two modes in ms when the times clearly have two, else None.

    A kernel density of the central 98% must have two peaks at least 5% apart with a valley below half of the
    lower one, and the smaller group must hold at least 15% of the runs.
    """
    if len(times) < 50:
        return None
    low, high = np.percentile(times, [1, 99])
    core = times[(times >= low) & (times <= high)]
    deviation = min(float(core.std()), float(np.subtract(*np.percentile(core, [75, 25]))) / 1.34 or np.inf)
    if not 0 < deviation < np.inf:
        return None
    # Half of Silverman's rule: the rule is made for one peak and smears two together.
    bandwidth = 0.45 * deviation * len(core) ** -0.2
    grid = np.linspace(low, high, 256)
    sample = core if len(core) <= 2000 else core[:: len(core) // 1000]
    density = np.exp(-0.5 * ((grid[:, None] - sample) / bandwidth) ** 2).sum(axis=1)
    peaks = [i for i in range(1, 255) if density[i] >= density[i - 1] and density[i] > density[i + 1]]
    best: tuple[float, float, float] | None = None
    for position, i in enumerate(peaks):
        for j in peaks[position + 1 :]:
            valley = i + int(np.argmin(density[i : j + 1]))
            below = float(np.mean(core < grid[valley]))
            apart = (grid[j] - grid[i]) / grid[i] > 0.05
            deep = density[valley] < 0.5 * min(density[i], density[j])
            minor = min(below, 1 - below)
            if apart and deep and minor >= 0.15 and (best is None or minor > best[0]):
                best = (minor, float(grid[i]), float(grid[j]))
    return (best[1], best[2]) if best else None
