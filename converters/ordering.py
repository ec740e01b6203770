"""Matches a file's tensors with the model's by name, where the format kept the names."""

from __future__ import annotations

from collections.abc import Sequence


def named_order(have: Sequence[str], want: Sequence[str]) -> list[int]:
    """A permutation between two lists of the same tensors.

    ``[want.index(name) for name in have]`` when both hold the same names (LiteRT), the identity when the
    file has names of its own (ExecuTorch keeps the order and loses the names).
    """
    if sorted(have) == sorted(want):
        return [list(want).index(name) for name in have]
    return list(range(len(want)))
