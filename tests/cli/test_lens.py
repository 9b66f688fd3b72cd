"""`alignvlm lens` with a page that a stub has looked at, and the real writers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alignvlm.analysis import lens
from alignvlm.analysis.lens import PageLens, TilePlace
from alignvlm.cli import run
from alignvlm.errors import WeightsError
from alignvlm.inference import answerer

Capture = pytest.CaptureFixture[str]
OneSentence = Callable[[str], str]


def seen(image: Image.Image, source: str) -> PageLens:
    """One cell as large as the page, which says "bar"."""
    width, height = image.size
    tile = TilePlace(
        x=0, y=0, cell_width=width, cell_height=height, part=(0, 0, width, height),
        thumbnail=False,
    )  # fmt: skip
    return PageLens(
        image=image, source=source, tiles=(tile,), grid=(1, 1),
        word_ids=np.array([[1, 2, 3, 4, 5]]), words=dict(enumerate(["", "bar", *"abcd"])),
        probabilities=np.array([[0.9, 0.1, 0, 0, 0]], dtype=np.float32),
        entropy=np.zeros(1, np.float32), num_words=9, lines=None,
    )  # fmt: skip


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was looked at."""
    calls: list[Any] = []

    def make(model: str | None, device: str, announce: Any) -> Any:
        def check() -> None:
            if model == "absent":
                raise WeightsError("There is no model folder 'absent': check the path")

        calls.append((model, device))
        return SimpleNamespace(model="the model", processor="the processor", check=check)

    def look(model: str, processor: str, image: Any, *, source: str) -> PageLens:
        calls.append((model, processor, image.size, source))
        return seen(image, source)

    monkeypatch.setattr(answerer, "ModelAnswerer", make)
    monkeypatch.setattr(lens, "look", look)
    return calls


@pytest.mark.parametrize("times", [1, 2])
def test_both_files_are_written_and_named(
    times: int, looked: list[Any], page_png: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "new" / "seen.html"
    arguments = ["-o", str(output), "--model", "m", "--device", "cpu"]
    for _ in range(times):
        assert run(["lens", str(page_png), *arguments]) == 0
    source = f"{Path(page_png).name}, page 1"
    assert looked == [("m", "cpu"), ("the model", "the processor", (120, 80), source)] * times
    picture = output.with_suffix(".png")
    assert capsys.readouterr().out == f"{output}\n{picture}\n" * times
    assert source in output.read_text("utf-8")
    with Image.open(picture) as overlay:
        assert overlay.size == (240, 160)
    assert sorted(path.name for path in output.parent.iterdir()) == ["seen.html", "seen.png"]


def before_any_model(path: Path, *arguments: str) -> int:
    """Run it and see that every file stays as it was."""
    folder = path.parent
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    status = run(["lens", str(path), *arguments])
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return status


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--page", "2"], 1, "There is no page 2"),
        (["--model", "absent"], 1, "There is no model folder"),
        (["-o", "x.png"], 2, "'x.png' does not end in .html"),
        (["-o", "x.txt"], 2, "'x.txt' does not end in .html"),
        (["-o", "folder"], 2, "'folder' does not end in .html"),
        (["-o", "folder.html"], 2, "'folder.html' is a folder and no file"),
        (["-o", "pipe.html"], 2, "'pipe.html' is a device and no file"),
        (["-o", "lens-of-it.html"], 2, "'lens-of-it.png' is a folder and no file"),
        (["-o", "page.png/x.html"], 2, "cannot be written, since 'page.png' is a file"),
        (["-o", "page.html"], 2, "would be replaced by 'page.png'"),
        (["-o", "linked.html"], 2, "would be replaced by 'linked.png'"),
        (["-o", "same.html"], 2, "would be replaced by 'same.html'"),
        (["-o", "other.html"], 2, "would replace 'other.png'"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_wrong_is_told_before_a_model_is_made(
    arguments: list[str],
    status: int,
    expected: str,
    looked: list[Any],
    page_png: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    one_sentence: OneSentence,
) -> None:
    monkeypatch.chdir(page_png.parent)
    for folder in ("folder", "folder.html", "lens-of-it.png"):
        Path(folder).mkdir()
    os.mkfifo("pipe.html")
    Path("linked.png").symlink_to(page_png)
    Path("same.html").hardlink_to(page_png)
    Path("other.png").write_text("of the user")
    assert before_any_model(page_png, *arguments) == status
    out, err = capsys.readouterr()
    assert out == "" and expected in one_sentence(err)
    assert looked == ([("absent", "auto")] if "absent" in arguments else [])


def test_a_missing_page(looked: list[Any], capsys: Capture, one_sentence: OneSentence) -> None:
    assert run(["lens", "missing.png"]) == 1
    assert "There is no file" in one_sentence(capsys.readouterr().err)
    assert looked == []


def test_the_default_output_spares_an_input_of_its_name(
    looked: list[Any], page_png: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(page_png.parent)
    page = page_png.rename(page_png.with_name("lens.png"))
    assert before_any_model(page) == 2
    assert "would be replaced by 'lens.png'" in capsys.readouterr().err
    assert looked == []


def test_a_disk_that_is_full_by_then(
    looked: list[Any],
    page_png: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    one_sentence: OneSentence,
) -> None:
    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill_up)
    output = page_png.with_name("lens.html")
    assert before_any_model(page_png, "-o", str(output)) == 1
    sentence = one_sentence(capsys.readouterr().err)
    assert f"cannot be written to '{output}' (No space left on device)" in sentence
    assert len(looked) == 2
