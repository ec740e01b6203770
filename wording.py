"""Words that depend on a number, and quotations of a bearable length."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``count`` with its noun: "1 thread", "2 threads"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortened(text: str, most: int = 200) -> str:
    """``text``, or its beginning up to the end of a word and an ellipsis when it has more than ``most`` characters."""
    if len(text) <= most:
        return text
    kept = text[: most - 1]
    if not text[most - 1].isspace() and " " in kept:
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip(" ,;:.([{") + "…"
