"""What the README shows is run: its Python blocks, and the commands it names."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignvlm.cli import app
from alignvlm.errors import WeightsError
from alignvlm.inference.default import ensure_default_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
READ_WHOLE = {"drop-in.md", "data.md"}  # run by tests/test_docs.py and tests/data/test_page.py
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every block in a language."""
    return [
        (page.name, text)
        for page in PAGES
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))
        if kind == language and (language != "python" or page.name not in READ_WHOLE)
    ]


def commands() -> list[list[str]]:
    """Arguments of every `alignvlm` command shown, without its comment."""
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    shown = [line.removeprefix("$ alignvlm ") for line in lines if line.startswith("$ alignvlm ")]
    return [shlex.split(line, comments=True) for line in shown]


def command_shown() -> tuple[str, str]:
    """README.md's question about the example, and the answer under it."""
    shown = re.search(
        r'^\$ alignvlm (ask examples/invoice\.png ".*")\n(.+)$',
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert shown is not None
    return shown[1], shown[2]


@pytest.fixture
def default_model() -> None:
    try:
        ensure_default_model(progress=False)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_blocks_run(
    page: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    default_model: None,
) -> None:
    script = tmp_path / "block.py"
    script.write_text(text, encoding="utf-8")
    folder = tmp_path / "work"  # what a block writes is not for the next run to find
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(folder)
    made = runpy.run_path(str(script), run_name="__main__")
    if "alignvlm.ask(" in text:
        # 9 tiles are 41,472 cells; spelled, the page is a few hundred visual tokens.
        assert 100 < made["answer"].num_visual_tokens < 500
        assert made["answer"].text == command_shown()[1]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_and_options_exist(arguments: list[str]) -> None:
    path = [arguments[0]]
    if arguments[0] in ("data", "bench"):
        path.append(arguments[1])
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    options = [word for word in arguments if re.fullmatch(r"-\w|--[\w-]+", word)]
    assert [option for option in options if option not in result.output] == []


def test_the_answer_shown_is_the_answer_given(
    monkeypatch: pytest.MonkeyPatch, default_model: None
) -> None:
    command, answer = command_shown()
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.stdout.strip() == answer
