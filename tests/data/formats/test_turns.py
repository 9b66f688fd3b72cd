"""The Cauldron and FineVision: ratings, odd rows, broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sources import open_source
from alignvlm.errors import InputError

Said = Callable[[Any], list[tuple[str, str]]]


def test_low_ratings_leave_turns_and_rows_out(tmp_path: Path, files: Any, said: Said) -> None:
    rows = [files.fine_row(number) for number in range(6)]
    for number, low in enumerate([5, 1, 4, 1, 5, 1]):
        rows[number]["relevance_ratings"] = [low, 3]
    path = files.parquet(tmp_path / "x.parquet", rows)
    every = open_source("finevision", str(path))
    assert len(every) == 6 and len(every.read(1).messages) == 4
    some = open_source("finevision", str(path), {"min_relevance": 4})
    assert len(some) == 3 and list(some.blocks()) == [1, 1, 1]
    assert [some.read(n).key for n in range(3)] == [f"x.parquet:{n}" for n in (1, 3, 5)]
    assert said(some.read(1)) == [("user", "[i][i]Which is 2?"), ("assistant", "The first.")]
    low = open_source("finevision", str(path), {"min_relevance": 2})
    assert said(low.read(1)) == [("user", "[i][i]And now?"), ("assistant", "The second.")]
    with pytest.raises(InputError, match="No row has ratings as high"):
        open_source("finevision", str(path), {"min_relevance": 6})


def test_rows_whose_ratings_cannot_be_read_are_kept_to_be_reported(
    tmp_path: Path, files: Any
) -> None:
    row = files.fine_row(0)
    for image in row["images"]:
        image["bytes"], image["path"] = None, "0.png"
    files.images(tmp_path)
    rows = [row | {"relevance_ratings": value} for value in ("x", None, [None, 1])]
    path = files.lines(tmp_path / "x.jsonl", [*rows, 7])
    source = open_source("finevision", str(path), {"min_relevance": 3})
    assert len(source) == 4
    with pytest.raises(InputError, match="relevance_ratings that are no list of numbers"):
        source.read(0)
    assert len(source.read(1).messages) == 4
    assert len(source.read(2).messages) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"texts": []}, "has no list of texts"),
        ({"texts": [{"user": "a"}]}, "has no assistant's text"),
        ({"texts": [{"user": "a", "assistant": ""}]}, "an empty answer"),
    ],
)
def test_broken_rows(broken: Any, files: Any, change: Any, reason: str) -> None:
    broken("cauldron", files.text_row(0) | change, reason)


def test_rows_without_images(one: Any, said: Said) -> None:
    row = {"images": [], "texts": [{"user": "a", "assistant": "b"}]}
    assert said(one("cauldron", row).read(0)) == [("user", "a"), ("assistant", "b")]
