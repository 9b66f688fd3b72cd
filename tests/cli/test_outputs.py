"""What commands write never replaces what they read, nor anything that is no file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from alignvlm.cli import run
from alignvlm.cli.outputs import check_output
from alignvlm.errors import UsageError

OneSentence = Callable[[str], str]


@pytest.mark.parametrize("name", ["page.html", "new/page.html", "PAGE.HTML"])
def test_a_place_for_a_page_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.html").touch()
    check_output(Path(name), "page.png", ".html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_the_input_is_never_the_output(
    link: Callable[[Path, Path], None] | None, tmp_path: Path
) -> None:
    page, output = tmp_path / "page.html", tmp_path / "other.html"
    page.touch()
    if link is not None:
        link(page, output)
    with pytest.raises(UsageError, match=r"would be replaced by .*: name another"):
        check_output(page if link is None else output, str(page), ".html")


def test_names_that_the_system_takes_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where case does not count."""
    page, output = tmp_path / "PAGE.html", tmp_path / "page.html"
    page.touch()
    if not output.exists():
        check_output(output, page, ".html")
        real = os.stat

        def stat(path: str | Path, **options: bool) -> os.stat_result:
            return real(page if Path(path) == output else path, **options)

        monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(UsageError, match="would be replaced"):
        check_output(output, page, ".html")


def test_an_export_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_sentence: OneSentence
) -> None:
    kept = tmp_path / "letters" / "dear.txt"
    kept.parent.mkdir()
    kept.write_text("dear")
    for target in (kept.parent, kept):
        assert run(["export", str(target)]) == 2
        sentence = one_sentence(capsys.readouterr().err)
        assert f"'{target}' holds something already: name a folder" in sentence
    assert kept.read_text() == "dear"
