from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.training.trackers import available, open_backend


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = 0

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.logged.append((numbers, step))

    def finish(self) -> None:
        print("chatter")
        self.finished += 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], FakeRun]]:
    """Modules in the place of trackio and wandb; what their `init` was asked for."""
    calls: list[tuple[dict[str, Any], FakeRun]] = []

    def init(**options: Any) -> FakeRun:
        print("chatter")
        calls.append((options, FakeRun()))
        return calls[-1][1]

    for name in ("trackio", "wandb"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_tensorboard_writes_what_tensorboard_reads(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        backend = open_backend("tensorboard", tmp_path, {}, first)
        for step in steps:
            backend.log(step, {"loss": 10.0 * first + step, "health/entropy": 0.5})
        backend.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "health/entropy"}
    points = [(event.step, event.value) for event in events.Scalars("loss")]
    assert points == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_resumed_run_stays_one_run(
    asked: list[tuple[dict[str, Any], FakeRun]], tmp_path: Path, name: str
) -> None:
    for _ in range(2):
        backend = open_backend(name, tmp_path, {"seed": 3}, 0)
        backend.log(7, {"loss": 0.5})
        backend.close()
    (first, run), (second, _) = asked
    assert run.logged == [({"loss": 0.5}, 7)]
    assert run.finished == 1
    assert first == second
    assert first["project"] == "alignvlm"
    assert first["config"] == {"seed": 3}
    assert first["resume"] == "allow"
    assert json.dumps(first).count((tmp_path / "run_id").read_text().strip()) == 1
    open_backend(name, tmp_path / "..", {}, 0)
    (tmp_path.parent / "run_id").unlink()
    key = "id" if name == "wandb" else "name"
    assert asked[-1][0][key] != first[key]


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_MODE": "shared"}, "shared"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
    ],
)
def test_wandb_is_offline_unless_the_user_set_it_up(
    asked: list[tuple[dict[str, Any], FakeRun]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    mode: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    open_backend("wandb", tmp_path, {}, 0)
    assert asked[0][0]["mode"] == mode
    assert asked[0][0]["dir"] == str(tmp_path)


def test_trackio_is_local_and_says_nothing_on_stdout(
    asked: list[tuple[dict[str, Any], FakeRun]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_backend("trackio", tmp_path, {}, 0).close()
    assert set(asked[0][0]) == {"project", "name", "config", "resume"}
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "chatter\nchatter\n")


@pytest.mark.parametrize("name", available())
def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"{name} is .*alignvlm\[trackers\]"):
        open_backend(name, tmp_path, {}, 0)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose among tensorboard, trackio, wandb"):
        open_backend("mlflow", tmp_path, {}, 0)
