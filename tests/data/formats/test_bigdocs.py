"""BigDocs: columns as they come, images that are elsewhere, broken rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sources import open_source
from alignvlm.errors import InputError

Said = Callable[[Any], list[tuple[str, str]]]


def test_columns_in_the_singular_and_plural(one: Any, said: Said, files: Any) -> None:
    struct = files.struct
    for row, expected in (
        ({"images": [struct(0), struct(1)], "queries": ["a", "b"], "annotations": ["c", "d"]},
         [("user", "[i][i]a"), ("assistant", "c"), ("user", "b"), ("assistant", "d")]),
        ({"image": struct(0), "query": "<image>a", "annotation": "c"},
         [("user", "[i]a"), ("assistant", "c")]),
        ({"image": struct(0), "queries": ["a"], "annotations": ["c", "or d"]},
         [("user", "[i]a"), ("assistant", "c")]),
        ({"image": files.png(), "question": "a", "answers": [7]},
         [("user", "[i]a"), ("assistant", "7")]),
    ):  # fmt: skip
        assert said(one("bigdocs", row).read(0)) == expected


def test_images_are_joined_by_their_id(tmp_path: Path, files: Any, said: Said) -> None:
    path = files.lines(tmp_path / "TextOCR" / "train.jsonl", [
        {"img_id": "0", "query": "a", "annotations": ["b"]},
        {"img_id": 1, "query": "a", "annotations": ["b"]},
        {"img_id": "2.png", "query": "a", "annotations": ["b"]},
        {"img_id": "absent", "query": "a", "annotations": ["b"]},
        {"img_id": "../0", "query": "a", "annotations": ["b"]},
    ])  # fmt: skip
    files.images(tmp_path / "there")
    source = open_source("bigdocs", str(path), {"images": str(tmp_path / "there")})
    assert [source.read(n).images[0].size() for n in range(3)] == list(files.sizes)
    with pytest.raises(
        InputError,
        match=r"Row 4 of .* needs the image 'absent', which is not in '.*/there': download "
        r"the training images of TextOCR into that folder",
    ):
        source.read(3)
    with pytest.raises(InputError, match="outside the images folder"):
        source.read(4)
    without = open_source("bigdocs", str(path))
    with pytest.raises(InputError, match=r"comes without its image '0': download the training"):
        without.read(0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": None}, "has neither an image nor an img_id"),
        ({"query": None}, "has no query: one of query, queries"),
        ({"annotations": None}, "has no annotation: one of annotations"),
        ({"annotations": [""]}, "an empty answer"),
        ({"query": ["a", "b"], "annotations": ["c"]}, "2 queries and 1 annotations"),
    ],
)
def test_broken_rows(broken: Any, files: Any, change: Any, reason: str) -> None:
    broken("bigdocs", files.bigdocs_row(0) | change, reason)


def test_keys_tell_files_of_one_name_apart(tmp_path: Path, files: Any) -> None:
    for part in ("a", "b"):
        files.parquet(tmp_path / part / "train-0.parquet", [files.bigdocs_row(0)])
    source = open_source("bigdocs", str(tmp_path))
    assert [source.read(n).key for n in range(2)] == ["a/train-0.parquet:1", "b/train-0.parquet:1"]
    (image,) = source.read(1).images
    assert image.name == "image 1 of b/train-0.parquet:1"
