"""`alignvlm data synth`."""

from __future__ import annotations

import json
from pathlib import Path

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
