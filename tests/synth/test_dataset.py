from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from PIL import Image

from alignvlm.errors import ConfigurationError
from alignvlm.synth import Font, generate, write_dataset


def test_folder_holds_pages_and_their_description(fonts: list[Font], tmp_path: Path) -> None:
    assert fonts
    index = write_dataset(tmp_path / "set", ["easy", "receipt"], 3, seed=5)
    rows = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    assert [(row["kind"], row["seed"]) for row in rows] == [
        ("easy", 5), ("receipt", 6), ("easy", 7),
    ]  # fmt: skip
    for row in rows:
        page = generate(row["kind"], row["seed"])
        with Image.open(index.parent / row["image"]) as image:
            assert image.convert("RGB").tobytes() == page.image.tobytes()
        assert row["text"] == page.text
        assert [line["text"] for line in row["lines"]] == [line.text for line in page.lines]
        assert all(len(line["boxes"]) == len(line["text"]) for line in row["lines"])
        assert [q["answers"] for q in row["questions"]] == [list(q.answers) for q in page.questions]
    assert sorted(path.name for path in index.parent.iterdir()) == sorted(
        ["pages.jsonl", *(row["image"] for row in rows)]
    )


def test_same_call_writes_the_same_bytes(fonts: list[Font], tmp_path: Path) -> None:
    assert fonts
    first, again = (write_dataset(tmp_path / name, ["easy"], 2, seed=9) for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    for path in first.parent.glob("*.png"):
        assert path.read_bytes() == (again.parent / path.name).read_bytes()


def test_unfinished_folder_has_no_index(
    fonts: list[Font], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fonts

    real, flushed = os.fsync, []

    def fail(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 2:  # the first page is there, then the disk is full
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_dataset(tmp_path, ["easy"], 1)
    assert [path.name for path in tmp_path.iterdir()] == ["train-easy-00000000.png"]
    index = write_dataset(tmp_path, ["easy"], 1)
    assert len(list(tmp_path.iterdir())) == len(flushed[2:]) == 2
    if sys.platform != "win32":
        assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o666 & ~umask()}
    assert index.exists()


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("content", ['{"image": "a.png", "text": "mine"}\n', "no JSON\n", "[1]\n"])
def test_an_index_of_other_pages_is_kept(tmp_path: Path, content: str) -> None:
    index = tmp_path / "pages.jsonl"
    index.write_text(content)
    with pytest.raises(ConfigurationError, match=r"does not describe drawn pages .*: choose"):
        write_dataset(tmp_path, ["easy"], 1)
    assert index.read_text() == content
    assert list(tmp_path.iterdir()) == [index]


@pytest.mark.parametrize(("kinds", "num"), [((), 3), (("easy",), 0), (("nothing",), 1)])
def test_impossible_sets_are_refused(kinds: tuple[str, ...], num: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        write_dataset(tmp_path, kinds, num)
