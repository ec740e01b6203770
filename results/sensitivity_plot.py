"""Draws which layers lose to int8, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..disk import check_writable, written_whole
from ..errors import InputError

_FORMATS = (".png", ".svg", ".pdf")
_MOST_LAYERS = 40
# Beyond this a layer does no harm; the axis ends there.
_END_DB = 80.0


def check_plot(path: Path) -> Any:
    """matplotlib's Figure when a plot can be written to ``path``: to know before minutes of work.

    Raises:
        InputError: matplotlib isn't installed, a file name with an ending it can't write, or a place that can't be
            written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"--plot {path}: the file's name must end in {', '.join(_FORMATS)}.")
    check_writable(path, "--plot")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'edgeopt[report]'.") from error
    return Figure


def draw_sensitivity(
    path: Path,
    title: str,
    names: Sequence[str],
    snr_db: Sequence[float],
    cost_share: Sequence[float],
    all_int8_snr_db: float,
    cost_label: str,
) -> None:
    """Write a bar chart: a layer a row, the most damaging on top; SNR on the left, cost on the right.

    Raises:
        InputError: as :func:`check_plot`.
    """
    figure_class = check_plot(path)
    count = min(len(names), _MOST_LAYERS)
    rows = range(count)
    figure = figure_class(figsize=(10, 1.6 + 0.26 * count), layout="constrained")
    damage, cost = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    shown = [min(value, _END_DB) for value in snr_db[:count]]
    end = max([*shown, all_int8_snr_db]) + 2.0
    damage.barh(rows, [end - value for value in shown], left=shown, color="#3b6ea8")
    damage.set_xlim(min([*shown, all_int8_snr_db]) - 3.0, end)
    damage.axvline(all_int8_snr_db, color="#b03a2e", linestyle="--", linewidth=1)
    damage.set_title(
        f"dashed: every layer in int8, {all_int8_snr_db:.1f} dB", color="#b03a2e", fontsize=9, loc="left"
    )
    damage.set_yticks(
        rows, [name if len(name) <= 44 else "…" + name[-43:] for name in names[:count]], fontsize=8
    )
    damage.set_ylim(count - 0.4, -0.6)
    damage.set_xlabel("SNR of the outputs when this layer alone is int8 (dB; the longer the bar, the worse)")
    cost.barh(rows, [100.0 * share for share in cost_share[:count]], color="#8a8a8a")
    cost.set_xlabel(cost_label)
    for axis in (damage, cost):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    left_out = len(names) - count
    figure.suptitle(title + (f" (the worst {count} of {len(names)} layers)" if left_out else ""), fontsize=11)
    with written_whole(path, "--plot") as partial:
        figure.savefig(partial, dpi=120)
