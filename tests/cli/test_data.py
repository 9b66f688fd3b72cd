"""`alignvlm data`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.cli import run


def test_pages_are_written_and_the_index_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--num-pages", "2", "--kinds", "easy", "--seed", "7", "--split", "heldout"]
    assert run(["data", "synth", str(tmp_path / "out"), *arguments]) == 0
    index = Path(capsys.readouterr().out.removesuffix("\n"))
    pages = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    assert [page["seed"] for page in pages] == [7, 8]
    assert all((index.parent / page["image"]).is_file() for page in pages)


def test_an_unknown_kind_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "synth", str(tmp_path / "out"), "--kinds", "novel"]) == 2
    assert "novel" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignvlm.synth.write_dataset", refuse)
    assert run(["data", "synth", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "(No space left on device): free some space" in err


class Letters:
    """A processor whose tokens are letters."""

    image_token_id = -1

    def __init__(self) -> None:
        self.tokenizer = self.image_processor = self

    def num_tiles(self, height: int, width: int) -> int:
        return 2

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def training_text(self, conversation: Any) -> tuple[list[int], list[int]]:
        said = [
            (-1 if part["type"] == "image" else ord(letter), message["role"] == "assistant")
            for message in conversation
            for part in message["content"]
            for letter in part.get("text", "i")
        ]
        return [token for token, _ in said], [token if learned else -100 for token, learned in said]


@pytest.fixture
def rows(tmp_path: Path, page_png: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three rows, the last of which is broken; no model is loaded."""
    monkeypatch.setattr("alignvlm.cli.data._processor", lambda model: Letters())
    asked = {"role": "user", "content": "<image>What?"}
    row = {"messages": [asked, {"role": "assistant", "content": "Bar"}], "images": [page_png.name]}
    path = tmp_path / "rows.jsonl"
    lines = [row, row, row | {"images": ["no\x1b[31m.png"]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_is_checked(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(rows), "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "messages: 2 of 3 rows, 0 broken"
    assert "supervised tokens: 6" in out and "tiles of a row: median 2," in out
    assert not err


def test_a_broken_row_is_named_and_fails_the_check(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(rows)]) == 1
    out, err = capsys.readouterr()
    assert "messages: 3 rows, 1 broken" in out
    assert "Row 3: There is no file" in out and "\x1b" not in out
    assert not err


def test_the_report_as_json_and_as_a_page(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "report.html"
    assert run(["data", "check", str(rows), "--json", "-o", str(page)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["num_broken"] == 1 and report["broken"][0]["row"] == 3
    html = page.read_text(encoding="utf-8")
    assert html.count("<mark>Bar</mark>") == 2 and "data:image/jpeg" in html


def test_images_elsewhere_and_a_named_source(
    rows: Path, tmp_path: Path, page_png: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    page_png.rename(folder / page_png.name)
    arguments = ["data", "check", str(rows), "--limit", "1", "--source", "messages"]
    assert run(arguments) == 1
    assert run([*arguments, "--images", str(folder)]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent.jsonl"], 1, "There is no file 'absent.jsonl'"),
        (["{rows}", "--source", "message"], 2, "(did you mean 'messages'?)"),
        (["{rows}", "--images", "/nowhere"], 1, "no images folder '/nowhere'"),
        (["{rows}", "-o", "{rows}/x.html"], 2, "x.html' cannot be written, since"),
        (["{rows}", "-o", "{rows}"], 2, "does not end in .html"),
        (["{rows}", "-o", "{rows}.html"], 2, "would be replaced by"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(
    rows: Path,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    rows.with_name(f"{rows.name}.html").hardlink_to(rows)
    before = rows.read_bytes()
    filled = [argument.format(rows=rows) for argument in arguments]
    assert run(["data", "check", *filled]) == status
    assert message in one_sentence(capsys.readouterr().err)
    assert rows.read_bytes() == before


@pytest.mark.parametrize(
    ("number", "reason"), [(28, "No space left on device"), (13, "Permission denied")]
)
def test_a_disk_below_the_report_that_takes_nothing(
    rows: Path,
    number: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, reason)

    page = rows.with_name("report.html")
    monkeypatch.setattr("os.fsync", refuse)
    assert run(["data", "check", str(rows), "-o", str(page)]) == 1
    sentence = one_sentence(capsys.readouterr().err)
    assert "The report cannot be written" in sentence and f"({reason}): " in sentence
    assert ("free some space" in sentence) == (number == 28)
    assert not list(rows.parent.glob("*report.html*"))
