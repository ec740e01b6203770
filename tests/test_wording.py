"""Words that depend on a number, and quotations."""

from __future__ import annotations

import pytest

from edgeopt.wording import counted, shortened


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 threads"), (1, "1 thread"), (2, "2 threads"), (1200, "1,200 threads")],
)
def test_a_noun_follows_its_number(count: int, words: str) -> None:
    assert counted(count, "thread") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two three", "one two three"),
        ("one two three four", "one two…"),
        ("one, two; three four", "one, two…"),
        ("one two three? four", "one two…"),
        ("twenty characters it has", "twenty…"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaa…"),
    ],
)
def test_a_quotation_ends_with_a_word(text: str, words: str) -> None:
    assert shortened(text, 13) == words
