"""Words that depend on a number."""

from __future__ import annotations

import pytest

from edgeopt.wording import counted


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 threads"), (1, "1 thread"), (2, "2 threads"), (1200, "1,200 threads")],
)
def test_a_noun_follows_its_number(count: int, words: str) -> None:
    assert counted(count, "thread") == words
