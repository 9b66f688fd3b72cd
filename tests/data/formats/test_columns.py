"""Data sets of any columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Said = Callable[[Any], list[tuple[str, str]]]


def test_columns_by_name(one: Any, files: Any, said: Said) -> None:
    row = {"picture": files.struct(0), "q": "Who?", "a": "Me", "n": 3}
    source = one("hf", row, image="picture", question="q", answer="a", prompt="In one word.")
    assert said(source.read(0)) == [("user", "[i]Who?\nIn one word."), ("assistant", "Me")]
    source = one("hf", row, image="", question="q", answer="n")
    assert said(source.read(0)) == [("user", "Who?"), ("assistant", "3")]
    source = one("hf", row, image="picture", question="", answer="a")
    assert said(source.read(0)) == [("user", "[i]"), ("assistant", "Me")]


def test_missing_columns(broken: Any, files: Any) -> None:
    row = {"image": files.struct(0), "question": "Who?", "answer": []}
    broken("hf", row, "has no answer in its list")
    broken("hf", row, "has no 'q': add it", question="q")
