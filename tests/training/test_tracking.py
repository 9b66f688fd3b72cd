from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.training import tracking
from alignvlm.training.tracking import Tracker, read_log


def start(run: Path, **options: Any) -> Tracker:
    return Tracker(run, **{"name": "run", "num_steps": 9, "first_step": 0} | options)


class Recorder:
    """A tracker that fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_closed = False

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if self.fails == "log":
            raise OSError("no route\nto host")
        self.logged.append((step, dict(numbers)))

    def close(self) -> None:
        self.is_closed = True
        if self.fails == "close":
            raise RuntimeError


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    found: dict[str, Recorder] = {}

    def opened(name: str, run_folder: Path, config: Any, first_step: int) -> Recorder:
        if found[name].fails == "open":
            raise OSError("not today")
        return found[name]

    monkeypatch.setattr(tracking, "open_backend", opened)
    return found


def test_floats_keep_all_digits_and_what_is_not_finite_comes_back(tmp_path: Path) -> None:
    tracker = start(tmp_path)
    tracker.log({"step": 1, "loss": 0.1 + 0.2, "norm": math.inf})
    tracker.log({"step": 2, "loss": math.nan})
    tracker.close()
    first, second = read_log(tmp_path)
    assert first == {"step": 1, "loss": 0.1 + 0.2, "norm": math.inf}
    assert math.isnan(second["loss"])
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 4.0}', "\x00\x00", '{"loss": 3.0}', '{"step": 3}', '{"step": 4}']
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"step": 5, "lo']))
    tracker = start(tmp_path, first_step=3)
    tracker.log({"step": 4, "loss": 0.5})
    tracker.close()
    assert [record["step"] for record in read_log(tmp_path)] == [1, 3, 4]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}')
    tracker = start(tmp_path, first_step=2)
    tracker.log({"step": 3})
    tracker.close()
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3]


def test_trackers_get_the_numbers(tmp_path: Path, recorders: dict[str, Recorder]) -> None:
    recorders["wandb"] = Recorder()
    tracker = start(tmp_path, trackers=("wandb", "wandb"))
    tracker.log({"step": 1, "loss": 0.5, "tokens": 3, "name": "x", "done": True})
    tracker.close()
    assert recorders["wandb"].logged == [(1, {"loss": 0.5, "tokens": 3.0})]
    assert recorders["wandb"].is_closed


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_failing_tracker_is_dropped_with_one_line(
    tmp_path: Path,
    recorders: dict[str, Recorder],
    fails: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorders.update(wandb=Recorder(fails), tensorboard=Recorder())
    tracker = start(tmp_path, trackers=("wandb", "tensorboard"))
    for step in (1, 2, 3):
        tracker.log({"step": step, "loss": 1.0})
    tracker.close()
    said = capsys.readouterr().err
    assert said.count("The tracker wandb failed") == 1
    assert len(said.splitlines()) == 1
    assert len(read_log(tmp_path)) == 3
    assert len(recorders["tensorboard"].logged) == 3


def test_an_unknown_tracker_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no tracker 'wandbb'.*tensorboard, trackio"):
        start(tmp_path / "run", trackers=("tensorboard", "wandbb"))
    assert not (tmp_path / "run").exists()


def test_a_missing_package_closes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Recorder()

    def opened(name: str, *arguments: Any) -> Recorder:
        if name == "trackio":
            raise MissingDependencyError("trackio", "show the run there", extra="trackers")
        return other

    monkeypatch.setattr(tracking, "open_backend", opened)
    with pytest.raises(MissingDependencyError, match="trackers"):
        start(tmp_path, trackers=("tensorboard", "trackio"))
    assert other.is_closed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_loss_and_speed_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    tracker = start(tmp_path, name="[red]smol")
    tracker.log({"step": 1, "loss": 2.5, "text_tokens_per_s": 1000, "visual_tokens_per_s": 234.4})
    tracker.log({"step": 2, "loss": 2.25})
    tracker.close()
    shown = terminal.getvalue()
    assert "[red]smol" in shown
    assert "2/9" in shown
    assert "loss 2.25  1,234 tokens/s" in shown


def test_off_a_terminal_there_is_no_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = start(tmp_path)
    tracker.log({"step": 1, "loss": 2.5})
    tracker.close()
    assert capsys.readouterr() == ("", "")
