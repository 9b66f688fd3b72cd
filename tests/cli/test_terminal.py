"""What every command relies on when it talks to a terminal."""

from __future__ import annotations

import sys

import pytest

from alignvlm.cli import terminal
from alignvlm.errors import ConfigurationError, InputError


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("a: b"), 1, "Error: a: b"),
        (ConfigurationError("a: b"), 2, "Error: a: b"),
        (OSError(28, "No space left on device", "x"), 1, "at 'x' (No space left on device)"),
        (ZeroDivisionError("x"), 1, "internal error (ZeroDivisionError)"),
    ],
)
def test_every_error_is_one_line(
    error: Exception, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.session() as session:
        raise error
    assert session.status == status
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_control_c_and_warnings_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with terminal.session() as session:
        warnings.warn("for the programmer", stacklevel=1)
        raise KeyboardInterrupt
    assert session.status == terminal.CONTROL_C == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("is_terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_no_progress_where_no_one_looks(
    is_terminal: bool,
    term: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", term)
    with terminal.status("Reading"):
        terminal.say("told")
    assert capsys.readouterr().err == "told\n"


def test_progress_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.status("Reading"):
        terminal.say("told")
    clear = "\r\x1b[2K"
    assert capsys.readouterr() == ("", f"{clear}Reading ...{clear}told\n{clear}")


def test_printable_keeps_text_and_drops_control() -> None:
    assert terminal.printable("é\t漢\n") == "é\t漢\n"
    assert terminal.printable("a\x1b]0;b\x07\r\x9b\u202e") == "a?]0;b????"
