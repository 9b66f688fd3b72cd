"""The frame of the command line: help as it is printed, version, no colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import alignvlm
from alignvlm.cli import run

HELP = Path(__file__).parent / "help"
COMMANDS = [
    [],
    ["ask"],
    ["doctor"],
    ["lens"],
    ["data"],
    ["data", "synth"],
    ["data", "check"],
    ["plan"],
    ["train"],
    ["export"],
    ["compare"],
    ["eval"],
    ["rescore"],
    ["measure"],
    ["bench"],
    ["bench", "connectors"],
]


# Renew the files with `alignvlm COMMAND --help > tests/cli/help/alignvlm-COMMAND.txt`.
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(["alignvlm", *command]))
def test_help_is_as_it_was_read_last(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    expected = HELP / f"{'-'.join(['alignvlm', *command])}.txt"
    assert out == expected.read_text(encoding="utf-8")
    assert err == ""


def test_every_command_says_what_it_does_in_one_whole_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(["--help"])
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(listed) >= 4
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z].*[^.]\.", line) for line in listed), listed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"alignvlm {alignvlm.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["aks"], "No such command 'aks' (Did you mean 'ask'): see `alignvlm --help`"),
        (["a\x1b[31m"], "No such command 'a"),
        (["--nope"], "No such option: --nope: see `alignvlm --help`"),
        (["ask"], "Missing argument 'FILE... QUESTION': see `alignvlm ask --help`"),
        (["bench", "all"], "No such command 'all': see `alignvlm bench --help`"),
        (["rescore", "run"], "Missing option '--dialect': see `alignvlm rescore --help`"),
        (
            ["lens", "a.png", "--device", "tpu"],
            "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps': see "
            "`alignvlm lens --help`",
        ),
        (["data", "synth", "x", "-n", "0"], "see `alignvlm data synth --help`"),
        (["ask", "a.png", "Why?", "--model"], "Option '--model' requires an argument: see"),
    ],
)
def test_misuse_of_any_command_is_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    one_sentence: Callable[[str], str],
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and "\x1b" not in err
    assert sentence in one_sentence(err)


@pytest.mark.parametrize("command", [[], ["data"], ["bench"]])
def test_a_group_alone_shows_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    expected = HELP / f"{'-'.join(['alignvlm', *command])}.txt"
    assert err.rstrip() == expected.read_text(encoding="utf-8").rstrip()
