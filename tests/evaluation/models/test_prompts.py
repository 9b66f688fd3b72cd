"""Where answers end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.evaluation.models.prompts import cut, holds_stop

TEXTS = st.text("ab \n.", max_size=20)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        (" Paris\n", (), "Paris"),
        ("Paris\n\nBecause", ("\n\n",), "Paris"),
        ("a;b,c", (",", ";"), "a"),
        ("a;b,c", ("!",), "a;b,c"),
        ("\n\nlate", ("\n\n",), ""),
        ("", ("x",), ""),
    ],
)
def test_the_first_of_the_stops_counts(text: str, stop: tuple[str, ...], expected: str) -> None:
    assert cut(text, stop) == expected


@given(TEXTS, st.lists(st.text("ab \n.", min_size=1, max_size=3), max_size=3))
def test_no_stop_survives(text: str, stop: list[str]) -> None:
    found = cut(text, stop)
    assert not holds_stop(found, stop)
    assert found == found.strip() and found in text
    assert cut(found, stop) == found
    if not holds_stop(text, stop):
        assert found == text.strip()
