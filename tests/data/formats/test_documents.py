"""DocDownstream and VCR: odd rows that are legal, and broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sources import open_source

Said = Callable[[Any], list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": []}, "1 image placeholder and 0 images"),
        ({"image": None}, "has no 'image'"),
        ({"image": ["/a.png"]}, "outside the images folder"),
        ({"messages": [{"role": "gpt", "content": "a"}]}, "of role 'gpt'"),
    ],
)
def test_broken_rows_of_docdownstream(broken: Any, files: Any, change: Any, reason: str) -> None:
    broken("docdownstream", files.doc_row(0) | change, reason)


def test_several_images(one: Any, files: Any, said: Said) -> None:
    row = files.doc_row(0) | {"image": ["0.png", "1.png"]}
    row["messages"][0]["content"] = "<|image|><|image|>which?"
    assert said(one("docdownstream", row).read(0))[0] == ("user", "[i][i]which?")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"crossed_text": []}, "has no crossed_text"),
        ({"crossed_text": None}, "has no crossed_text"),
        ({"crossed_text": ["a", " "]}, "or an empty one"),
        ({"stacked_image": None}, "has no 'stacked_image'"),
    ],
)
def test_broken_rows_of_vcr(broken: Any, files: Any, change: Any, reason: str) -> None:
    broken("vcr", files.vcr_row(0) | change, reason)


def test_another_question(one: Any, files: Any, said: Said) -> None:
    assert said(one("vcr", files.vcr_row(0), prompt="Q?").read(0))[0] == ("user", "[i]Q?")


def test_the_papers_record_of_docdownstream(tmp_path: Path, said: Said, files: Any) -> None:
    line = (
        '{"image":["./imgs/DUE_Benchmark/DocVQA/pngs/xnbl0037_1.png"],"messages":[{"role":"user",'
        '"content":"<|image|>what is the date mentioned in this letter?"},{"role":"assistant",'
        '"content":"1/8/93"}],"task_name":"qa_sft","dataset_name":"DocVQA"}\n'
    )
    folder = tmp_path / "imgs" / "DUE_Benchmark" / "DocVQA" / "pngs"
    folder.mkdir(parents=True)
    (folder / "xnbl0037_1.png").write_bytes(files.png(1))
    (tmp_path / "train.jsonl").write_text(line, encoding="utf-8")
    sample = open_source("docdownstream", str(tmp_path)).read(0)
    assert said(sample)[1] == ("assistant", "1/8/93")
    assert sample.images[0].size() == files.sizes[1]
    assert json.loads(line)["dataset_name"] == "DocVQA"
