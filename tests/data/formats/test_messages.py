"""Messages: odd rows that are legal, and broken ones."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError

Said = Callable[[Any], list[tuple[str, str]]]


ANSWER = {"role": "assistant", "content": "b"}


def test_parts_take_the_next_image_or_bring_their_own(one: Any, said: Said, files: Any) -> None:
    uri = "data:image/png;base64," + base64.b64encode(files.png(2)).decode()
    content = [
        {"type": "image"},
        {"type": "text", "text": "An <image> is "},
        {"type": "image_url", "image_url": {"url": uri}},
        "so.",
        {"type": "image", "image": "0.png"},
        {"type": "image", "image": None, "text": None},
    ]
    row = {"messages": [{"role": "user", "content": content}, ANSWER],
           "images": ["1.png", {"path": "2.png"}]}  # fmt: skip
    sample = one("messages", row).read(0)
    assert said(sample)[0] == ("user", "[i]An <image> is [i]so.[i][i]")
    assert [image.size() for image in sample.images] == [
        files.sizes[number] for number in (1, 2, 0, 2)
    ]
    assert sample.key == "row.jsonl:1"


def test_queries_and_responses(one: Any, said: Said) -> None:
    row = {"system": "s", "query": "<image>now?", "response": "yes", "images": "0.png",
           "history": [["a", "b"], ["c", "d"]]}  # fmt: skip
    assert said(one("messages", row).read(0)) == [
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"),
        ("assistant", "d"), ("user", "[i]now?"), ("assistant", "yes"),
    ]  # fmt: skip


def test_pretraining(one: Any, said: Said) -> None:
    caption = {"role": "assistant", "content": "<image>a caption"}
    row = {"messages": [caption], "images": ["0.png"]}
    assert said(one("messages", row).read(0)) == [("user", "[i]"), ("assistant", "a caption")]
    row = {"response": "<image>a caption", "images": ["0.png"]}
    assert said(one("messages", row).read(0)) == [("user", "[i]"), ("assistant", "a caption")]


def test_absolute_paths_below_the_images_option(one: Any, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "<image>a"}, ANSWER],
           "images": [str(tmp_path / "0.png")]}  # fmt: skip
    assert one("messages", row, images=str(tmp_path)).read(0).images[0].size() == (40, 30)
    with pytest.raises(InputError, match="outside the images folder"):
        one("messages", row).read(0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "has no 'response'"),
        ({"messages": []}, "has no list of messages"),
        ({"messages": "x"}, "has no list of messages"),
        ({"messages": ["x"]}, "messages that are no objects"),
        ({"messages": [{"role": "tool", "content": "a"}, ANSWER]}, "of role 'tool': use"),
        ({"messages": [{"content": "a"}, ANSWER]}, "of role 'None'"),
        ({"messages": [{"role": "user"}, ANSWER]}, "has no content of a message"),
        ({"messages": [{"role": "user", "content": [3]}, ANSWER]}, "neither text nor object"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}, ANSWER]},
         "of type 'video': use text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
         "1 image placeholder and 0 images"),
        ({"messages": [{"role": "user", "content": "a"}, ANSWER], "images": ["0.png"]},
         "0 image placeholders and 1 image"),
        ({"messages": [{"role": "user", "content": "<image>"}, ANSWER], "images": ["http://a"]},
         "is no file: download it"),
        ({"messages": [{"role": "user", "content": "a"}, ANSWER | {"loss": False}]},
         "weighs the loss"),
        ({"messages": [{"role": "user", "content": "a"}, ANSWER | {"loss_scale": 0.5}]},
         "weighs the loss"),
        ({"messages": [{"role": "user", "content": "a"}, ANSWER], "videos": ["a"]},
         "has 'videos', which training does not use"),
        ({"query": "a", "response": "b", "history": [["a"]]}, "that is no list of pairs"),
        ({"query": "a", "response": " "}, "an empty answer"),
    ],
)  # fmt: skip
def test_broken_rows(broken: Any, row: Any, reason: str) -> None:
    broken("messages", row, reason)
