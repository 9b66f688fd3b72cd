"""`alignvlm ask` with a stub for the model: what is printed where, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignvlm.cli import run
from alignvlm.errors import WeightsError

QUESTION = "How large is it?"
Capture = pytest.CaptureFixture[str]


def test_the_answer_alone_is_on_stdout(stub: Any, page_png: Path, capsys: Capture) -> None:
    assert run(["ask", str(page_png), QUESTION]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("120 x 80\n", "Running on a stub\n")
    assert stub.made[0].asked == [(str(page_png), 1, QUESTION, 64)]


def test_options_reach_the_model(stub: Any, page_png: Path, capsys: Capture) -> None:
    arguments = ["--model", "some/model", "--device", "cpu", "--max-new-tokens", "5"]
    assert run(["ask", *arguments, "--", str(page_png), "--why?"]) == 0
    (made,) = stub.made
    assert (made.model, made.device) == ("some/model", "cpu")
    assert made.asked == [(str(page_png), 1, "--why?", 5)]


def test_several_files_are_named_and_a_bad_one_stops_none(
    stub: Any, page_png: Path, tmp_path: Path, capsys: Capture
) -> None:
    bad, again = tmp_path / "bad.png", tmp_path / "again.png"
    bad.write_bytes(b"")
    again.write_bytes(page_png.read_bytes())
    assert run(["ask", str(page_png), str(bad), str(again), QUESTION]) == 1
    out, err = capsys.readouterr()
    assert out == f"{page_png}: 120 x 80\n{again}: 120 x 80\n"
    assert f"Error: '{bad}' is empty" in err
    assert len(stub.made) == 1, "one model for all files"


def test_an_unexpected_error_stops_no_other_file_either(
    stub: Any, page_png: Path, capsys: Capture
) -> None:
    stub.error = RuntimeError("<object at 0x7fffdeadbeef>")
    assert run(["ask", str(page_png), str(page_png), QUESTION]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("internal error (RuntimeError): run the command again with --debug") == 2
    assert "0x" not in err


def test_debug_shows_the_traceback(stub: Any, page_png: Path, capsys: Capture) -> None:
    stub.error = RuntimeError("secret")
    assert run(["ask", str(page_png), QUESTION, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert run(["ask", str(page_png), QUESTION]) == 1, "and not in the next command"
    assert "Traceback" not in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_stops_all(
    stub: Any, page_png: Path, capsys: Capture
) -> None:
    stub.error = WeightsError("The weights are gone: fetch them")
    assert run(["ask", str(page_png), str(page_png), QUESTION]) == 1
    assert capsys.readouterr().err.count("Error: The weights are gone: fetch them") == 1


def test_json_is_pure_and_has_one_object_a_file(
    stub: Any, page_png: Path, tmp_path: Path, capsys: Capture
) -> None:
    missing = tmp_path / "missing.png"
    assert run(["ask", str(page_png), str(missing), QUESTION, "--json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "file": str(page_png),
        "answer": "120 x 80",
        "page": 1,
        "tokens": [{"text": text, "probability": 0.5} for text in ("120", " x", " 80")],
        "complete": True,
        "num_visual_tokens": 7,
        "seconds": 0.25,
    }
    assert second["file"] == str(missing)
    assert second["error"].startswith("There is no file")


def test_the_surest_page_answers(
    stub: Any, good_files: dict[str, bytes], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "pages.tiff"
    path.write_bytes(good_files["pages.tiff"])
    assert run(["ask", str(path), QUESTION, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["page"] == 2
    assert record["seconds"] == pytest.approx(0.75), "of all three pages"
    assert run(["ask", str(path), QUESTION, "--json", "--page", "1,3"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == 1
    assert [page for _, page, _, _ in stub.made[1].asked] == [1, 3]


@pytest.mark.parametrize("name", ["page.png", "pages.tiff"])
def test_stream_prints_the_same(
    name: str, stub: Any, good_files: dict[str, bytes], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / name
    path.write_bytes(good_files[name])
    assert run(["ask", str(path), QUESTION]) == 0
    plain = capsys.readouterr().out
    assert run(["ask", str(path), QUESTION, "--stream"]) == 0
    assert capsys.readouterr().out == plain
    assert run(["ask", str(path), str(path), QUESTION, "--stream"]) == 0
    assert capsys.readouterr().out == f"{path}: {plain}" * 2


def test_doubtful_answers_come_with_a_warning(stub: Any, tmp_path: Path, capsys: Capture) -> None:
    from PIL import Image

    path = tmp_path / "blank.png"
    Image.new("RGB", (30, 30), "white").save(path)
    assert run(["ask", str(path), QUESTION, "--max-new-tokens", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == "30 x\n"
    assert "Warning: no text was found on page 1" in err
    assert "was cut off after 2 tokens: allow more with --max-new-tokens" in err


def test_what_steers_a_terminal_is_not_printed(
    stub: Any, page_png: Path, tmp_path: Path, capsys: Capture
) -> None:
    strange = tmp_path / "a\x1b[31m.png"
    strange.write_bytes(page_png.read_bytes())
    assert run(["ask", str(strange), str(tmp_path / "b\x1b.png"), QUESTION]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "a?[31m.png: 120 x 80" in out


@pytest.mark.parametrize(
    "name",
    ["page.png", "page.bmp", "page.webp", "page.pdf", "cmyk.jpg", "sixteen.png", "palette.gif",
     "alpha.png", "turned.jpg", "animated.gif"],
)  # fmt: skip
def test_unusual_files_are_read(
    name: str, stub: Any, good_files: dict[str, bytes], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / name
    path.write_bytes(good_files[name])
    assert run(["ask", str(path), QUESTION]) == 0
    # A PDF page has its size in points, so a pixel may come on top.
    assert re.fullmatch("120 x 8[01]\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("empty", "is empty: copy or download it again"),
        ("text", "is a text file, not a page that can be read: convert it"),
        ("other format", "is a Netpbm image, not a page that can be read: convert it"),
        ("truncated", "damaged, truncated or unusual PNG image: get a complete copy"),
        ("bomb", "12000 x 12000 px, more than the 90 megapixels allowed: scale it down"),
        ("larger bomb", "needs more memory to decode than is allowed: scale the page down"),
        ("strip", "1 x 100000 px, one side more than 200 times the other: crop it"),
        ("no pixels", "PNG image: get a complete copy|has no pixels"),
        ("damaged PDF", "PDF"),
        ("encrypted PDF", "password|encrypted"),
    ],
)
def test_a_bad_file_is_one_sentence(
    kind: str,
    expected: str,
    stub: Any,
    bad_files: dict[str, bytes],
    tmp_path: Path,
    capsys: Capture,
    one_sentence: Callable[[str], str],
) -> None:
    path = tmp_path / "stranger"
    path.write_bytes(bad_files[kind])
    assert run(["ask", str(path), QUESTION]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(expected, one_sentence(err))
    assert str(path) in err
    assert not stub.made[0].asked, "no model was loaded for it"


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "unreadable"])
def test_what_is_no_file_is_one_sentence(
    kind: str,
    stub: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    one_sentence: Callable[[str], str],
) -> None:
    path = tmp_path / "stranger"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":  # root may read everything, so permissions alone do not show it

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        path.write_bytes(b"x")
        monkeypatch.setattr("alignvlm.imaging.sources.os.stat", refuse)
    assert run(["ask", str(path), QUESTION]) == 1
    expected = {
        "missing": "There is no file",
        "folder": "is a folder",
        "pipe": "is a pipe or a device",
        "unreadable": "may not be read by this user",
    }[kind]
    assert expected in one_sentence(capsys.readouterr().err)


def test_a_page_out_of_range_is_a_failed_item(
    stub: Any, page_png: Path, capsys: Capture, one_sentence: Callable[[str], str]
) -> None:
    assert run(["ask", str(page_png), QUESTION, "--page", "2"]) == 1
    assert "There is no page 2" in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["FILE", ""], "The question is empty"),
        (["FILE", "  \n"], "The question is empty"),
        (["FILE", "caf\udce9?"], "bytes that are no text"),
        (["FILE", "why " * 500], "shorten it"),
        (["FILE", QUESTION, "--page", "3-1"], "is not a list of pages"),
        (["FILE", QUESTION, "--page", "all"], "is not a list of pages"),
        (["FILE", QUESTION, "--json", "--stream"], "exclude each other"),
        (["FILE"], "The question is missing"),
        (["FILE", "FILE"], "The question is missing"),
        ([QUESTION], "The file is missing"),
    ],
)
def test_misuse_is_one_sentence_and_status_2(
    arguments: list[str],
    expected: str,
    stub: Any,
    page_png: Path,
    capsys: Capture,
    one_sentence: Callable[[str], str],
) -> None:
    given = [str(page_png) if part == "FILE" else part for part in arguments]
    assert run(["ask", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in one_sentence(err)
    assert not any(made.asked for made in stub.made)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--no-such-option", "a", "b"], ["a", "b", "--device", "tpu"],
     ["a", "b", "--max-new-tokens", "0"], ["a", "b", "--max-new-tokens", "many"]],
)  # fmt: skip
def test_wrong_options_are_status_2(
    arguments: list[str], capsys: Capture, one_sentence: Callable[[str], str]
) -> None:
    assert run(["ask", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "see `alignvlm" in one_sentence(err)


def test_control_c_is_130_without_a_word(stub: Any, page_png: Path, capsys: Capture) -> None:
    stub.error = KeyboardInterrupt()
    assert run(["ask", str(page_png), QUESTION]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


def in_a_process(code: str, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


def test_a_closed_pipe_is_quiet() -> None:
    code = (
        "import sys, typer\n"
        "from alignvlm.cli import app, run\n"
        "@app.command()\n"
        "def talk():\n"
        "    for _ in range(100_000): typer.echo('line')\n"
        "sys.exit(run(['talk']))"
    )
    process = in_a_process(code)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_disk_behind_stdout_is_one_sentence(one_sentence: Callable[[str], str]) -> None:
    code = "import sys; from alignvlm.cli import run; sys.exit(run(['--version']))"
    with open("/dev/full", "w") as full:
        process = in_a_process(code, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "No space left on device" in one_sentence(err)
