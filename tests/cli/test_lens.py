"""`alignvlm lens` with stubs for looking and for the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignvlm.analysis import lens, overlay, web
from alignvlm.cli import run
from alignvlm.inference import answerer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was looked at; both writers write its name."""
    calls: list[Any] = []

    def make(model: str | None, device: str, announce: Any) -> Any:
        calls.append((model, device))
        return SimpleNamespace(model="the model", processor="the processor")

    def look(model: str, processor: str, image: Any, *, source: str) -> str:
        calls.append((model, processor, image.size, source))
        return source

    monkeypatch.setattr(answerer, "ModelAnswerer", make)
    monkeypatch.setattr(lens, "look", look)
    for module, name in ((web, "write_html"), (overlay, "write_png")):
        monkeypatch.setattr(module, name, lambda seen, path: Path(path).write_text(seen))
    return calls


def test_both_files_are_written_and_named(
    looked: list[Any], page_png: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "seen.html"
    arguments = ["-o", str(output), "--model", "m", "--device", "cpu"]
    assert run(["lens", str(page_png), *arguments]) == 0
    source = f"{Path(page_png).name}, page 1"
    assert looked == [("m", "cpu"), ("the model", "the processor", (120, 80), source)]
    picture = tmp_path / "seen.png"
    assert capsys.readouterr().out == f"{output}\n{picture}\n"
    assert output.read_text() == picture.read_text() == source


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["missing.png"], 1, "There is no file"),
        (["FILE", "--page", "2"], 1, "There is no page 2"),
        (["FILE", "-o", "x.png"], 2, "end it in .html"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_made(
    arguments: list[str],
    status: int,
    expected: str,
    looked: list[Any],
    page_png: Path,
    capsys: Capture,
    one_sentence: Any,
) -> None:
    given = [str(page_png) if part == "FILE" else part for part in arguments]
    assert run(["lens", *given]) == status
    assert expected in one_sentence(capsys.readouterr().err)
    assert looked == []


def test_a_place_that_cannot_be_written_to(
    looked: list[Any], page_png: Path, tmp_path: Path, capsys: Capture, one_sentence: Any
) -> None:
    output = tmp_path / "no" / "folder" / "lens.html"
    assert run(["lens", str(page_png), "-o", str(output)]) == 1
    sentence = one_sentence(capsys.readouterr().err)
    assert f"cannot be written to '{output}' (No such file or directory)" in sentence
