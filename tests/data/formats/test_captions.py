"""CC-12M: odd members that are legal, and broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Said = Callable[[Any], list[tuple[str, str]]]


def test_captions_come_from_text_or_json(one: Any, said: Said, files: Any) -> None:
    for members, caption in (
        ([("1.txt", b" from text "), ("1.json", b"{}")], "from text"),
        ([("1.json", b'{"caption": "from json"}')], "from json"),
    ):
        sample = one("cc12m", [("1.png", files.png()), *members]).read(0)
        assert said(sample) == [("user", "[i]"), ("assistant", caption)]
    sample = one("cc12m", [("1.png", files.png()), ("1.txt", b"x")], prompt="Caption it.")
    assert said(sample.read(0))[0] == ("user", "[i]Caption it.")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("1.txt", b"x")], "has no image"),
        ([("1.jpg", b""), ("1.txt", b"x")], "has no image"),
        ([("1.jpg", b"x")], "has no caption"),
        ([("1.jpg", b"x"), ("1.txt", b" ")], "an empty answer"),
        ([("1.jpg", b"x"), ("1.txt", b"\xff")], "not valid JSON in UTF-8"),
        ([("1.jpg", b"x"), ("1.json", b"[")], "not valid JSON in UTF-8"),
        ([("1.jpg", b"x"), ("1.json", b"[]")], "has no caption"),
        ([("1.jpg", b"x"), ("1.json", b"[" * 100_000)], "not valid JSON in UTF-8"),
    ],
)
def test_broken_rows(broken: Any, members: Any, reason: str) -> None:
    broken("cc12m", members, reason)
