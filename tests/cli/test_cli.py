"""The frame of the command line: help as it is printed, version, no colours."""

from __future__ import annotations

import re
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


def test_an_unknown_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["aks"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "aks" in err and "\x1b" not in err
