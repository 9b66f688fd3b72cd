"""What makes a conversation whole, and where white space goes."""

from __future__ import annotations

from typing import Any

import pytest

from alignvlm.data.formats.conversation import Conversation, Turn, split_text, text_of
from alignvlm.data.rows.base import BadRowError


def said(*turns: tuple[str, list[Any]], images: int = 0) -> list[tuple[str, str]]:
    messages = Conversation([Turn(role, parts) for role, parts in turns], ["x"] * images).messages()
    return [
        (m["role"], "".join("[i]" if p["type"] == "image" else p["text"] for p in m["content"]))
        for m in messages
    ]


def test_placeholders_split_text() -> None:
    assert split_text("a<image>b<image>") == ["a", None, "b", None, ""]
    assert split_text("a") == ["a"]
    assert split_text("<|image|>a", "<|image|>") == ["", None, "a"]


def test_white_space_around_images_and_at_the_ends_goes() -> None:
    user = ("user", ["  Look:\n", None, "\n ", None, "\n what is it? \n"])
    answer = ("assistant", ["\n A cat. "])
    assert said(user, answer, images=2) == [
        ("user", "Look:\n[i][i]what is it?"),
        ("assistant", "A cat."),
    ]


def test_a_system_message_comes_first_and_may_be_empty() -> None:
    rest = [("user", ["a"]), ("assistant", ["b"])]
    assert said(("system", ["s"]), *rest)[0] == ("system", "s")
    assert said(("system", [" "]), *rest)[0] == ("user", "a")


def test_an_answer_alone_is_pretraining() -> None:
    assert said(("assistant", [None, "\na caption"]), images=1) == [
        ("user", "[i]"),
        ("assistant", "a caption"),
    ]
    assert said(("system", ["s"]), ("assistant", ["plain text"])) == [
        ("system", "s"),
        ("user", ""),
        ("assistant", "plain text"),
    ]


@pytest.mark.parametrize(
    ("turns", "images", "reason"),
    [
        ([], 0, "does not end with an answer"),
        ([("user", ["a"])], 0, "does not end with an answer"),
        ([("system", ["a"])], 0, "does not end with an answer"),
        ([("user", ["a"]), ("assistant", [" "])], 0, "an empty answer in turn 1: fill it in"),
        ([("user", [" "]), ("assistant", ["a"]), ("user", [""]), ("assistant", ["b"])], 0,
         "an empty question in turn 2"),
        ([("user", ["a"]), ("user", ["b"]), ("assistant", ["c"])], 0,
         "has 'user' where the answer of turn 1 is due"),
        ([("user", ["a"]), ("assistant", ["b"]), ("assistant", ["c"])], 0,
         "has 'assistant' where the question of turn 2 is due"),
        ([("user", ["a"]), ("system", ["b"]), ("assistant", ["c"])], 0, "has 'system' where"),
        ([("user", ["a"]), ("assistant", [None, "b"])], 1, "an image in an answer"),
        ([("system", [None]), ("user", ["a"]), ("assistant", ["b"])], 1, "in its system message"),
        ([("user", [None, "a"]), ("assistant", ["b"])], 0, "1 image placeholder and 0 images"),
        ([("user", ["a"]), ("assistant", ["b"])], 2, "0 image placeholders and 2 images"),
        ([("user", [None, None]), ("assistant", ["b"])], 1, "2 image placeholders and 1 image:"),
    ],
)  # fmt: skip
def test_what_is_no_conversation(turns: list[Any], images: int, reason: str) -> None:
    with pytest.raises(BadRowError, match=reason):
        said(*turns, images=images)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "has no answer: give"),
        (True, "has a bool as answer"),
        (["a"], "has a list as answer"),
        (b"a", "has a bytes as answer"),
        ("a\ud800", "half a character"),
    ],
)
def test_what_is_no_text(value: Any, reason: str) -> None:
    with pytest.raises(BadRowError, match=reason):
        text_of(value, "answer")


def test_numbers_are_spelled() -> None:
    assert [text_of(value, "x") for value in (7, 1.5, "a")] == ["7", "1.5", "a"]
