"""docs/data.md: its records are read, its code runs, its table is complete."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.sources import SOURCES, open_source

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any) -> Path:
    """A folder with the page's records and their images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    (tmp_path / "pages").mkdir()
    for line in blocks("json")[0].splitlines():
        for name in json.loads(line)["images"]:
            (tmp_path / name).write_bytes(files.png())
    return tmp_path


def test_the_records_are_read(place: Path, said: Any) -> None:
    source = open_source("messages", "train.jsonl")
    assert [said(source.read(number)) for number in range(3)] == [
        [("user", "[i]What is the total?"), ("assistant", "$112.50")],
        [("user", "[i][i]Which is signed?"), ("assistant", "The first."),
         ("user", "By whom?"), ("assistant", "J. Doe")],
        [("user", "[i]"), ("assistant", "A scanned letter")],
    ]  # fmt: skip


def test_the_code_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    (place / "page.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(place / "page.py"))
    # Three rows at five in six positions: one block of six.
    assert re.fullmatch(r"6 (train.jsonl:[123]|train/\w+/\d+)\n", capsys.readouterr().out)


def test_every_source_stands_in_the_table_and_every_option_in_the_text() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(SOURCES)
    for form in SOURCES.values():
        assert all(f"`{name}`" in PAGE for name in (field.name for field in fields(form)))
