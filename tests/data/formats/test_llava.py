"""LLaVA: odd rows that are legal, and broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sources import open_source

Said = Callable[[Any], list[tuple[str, str]]]


def test_rows_without_images_and_with_several(one: Any, said: Said, files: Any) -> None:
    text = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert said(one("llava", text).read(0)) == [("user", "a"), ("assistant", "b")]
    two = [{"from": "human", "value": "<image>\nOr <image>?"}, {"from": "gpt", "value": "b"}]
    sample = one("llava", {"image": ["0.png", "1.png"], "conversations": two}).read(0)
    assert said(sample)[0] == ("user", "[i]Or [i]?")


def test_parquet_rows_without_an_image(tmp_path: Path, files: Any, said: Said) -> None:
    text = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    rows = [
        files.llava_row(0, image=files.struct(0)),
        files.llava_row(1, image=None, conversations=text),
    ]
    path = files.parquet(tmp_path / "x.parquet", rows)
    source = open_source("llava_next", str(path))
    assert said(source.read(1)) == [("user", "a"), ("assistant", "b")]
    assert len(source.read(0).images) == 1


def test_the_prompt_of_pretraining_can_be_kept(one: Any, said: Said, files: Any) -> None:
    row = files.llava_row(0)
    assert said(one("llava_pretrain", row).read(0))[0] == ("user", "[i]")
    kept = one("llava_pretrain", row, keep_prompt=True).read(0)
    assert said(kept)[0][1].startswith("Render a clear")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conversations": None}, "has no list of conversations"),
        ({"conversations": [{"from": "bard", "value": "a"}]}, "a turn from 'bard': use system"),
        ({"conversations": [{"from": ["x"], "value": "a"}]}, "a turn from "),
        ({"conversations": [{"from": "human"}]}, "has no value of a turn"),
        ({"image": None}, "1 image placeholder and 0 images"),
        ({"image": ["0.png", "1.png"]}, "1 image placeholder and 2 images"),
        ({"image": 5}, "neither a path"),
        ({"video": "x.mp4"}, "has a video"),
    ],
)
def test_broken_rows(broken: Any, files: Any, change: Any, reason: str) -> None:
    broken("llava", files.llava_row(0) | change, reason)
