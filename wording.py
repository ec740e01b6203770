"""Words that depend on a number."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``count`` with its noun: "1 thread", "2 threads"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
