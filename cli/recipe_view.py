"""Draws what a recipe's passes did, and says that an interrupted run can go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from .reporter import Reporter


@contextmanager
def going_on(reporter: Reporter, *, trains: bool = True) -> Iterator[None]:
    """Say on Ctrl-C what a recipe that trains has kept."""
    try:
        yield
    except KeyboardInterrupt:
        if trains:
            reporter.note("finished passes and epochs are kept: the same command goes on from there")
        raise


def draw_passes(console: Console, optimization: Mapping[str, Any]) -> None:
    """One line a pass, then what became of the whole model."""
    for index, entry in enumerate(optimization["passes"], 1):
        console.print(f"{index}. [bold]{entry['pass']}[/]: {entry['change']}", soft_wrap=True)
    parts = [
        f"{title} {_count(before)} → {_count(after)} ({_change(before, after)})"
        for title, (before, after) in (
            ("parameters", optimization["parameters"]),
            ("multiply-accumulates", optimization["macs"]),
            ("weight bytes", optimization["weight_bytes"]),
        )
        if before != after
    ]
    if parts:
        console.print("; ".join(parts), soft_wrap=True)
    if "predicted_ms" in optimization:
        before, after = optimization["predicted_ms"]
        console.print(
            f"latency in float32, one thread ({optimization['predicted_grade']}): {before:.3g} → {after:.3g} ms "
            f"({_change(before, after)})",
            soft_wrap=True,
        )
    metric = optimization.get("metric")
    if isinstance(metric, list):
        name = optimization.get("metric_name", "metric")
        console.print(f"{name}: {metric[0]:.4f} before, {metric[1]:.4f} after (in PyTorch)", soft_wrap=True)


def _count(value: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _change(before: float, after: float) -> str:
    return f"{(after - before) / before:+.0%}" if before else "new"
