"""`alignvlm train` on a CPU: whether a step fits is said before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignvlm.cli import run, train
from alignvlm.training import overrides, recipes, runs
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.architecture import architecture
from alignvlm.training.cost.plan import make_plan

PAGE = 4096


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Runs that are opened; training would begin then, and is left out."""
    seen: list[RunConfig] = []

    def open_run(config: RunConfig, _device: str) -> Any:
        seen.append(config)
        module = SimpleNamespace(config=architecture(config.model))
        return SimpleNamespace(module=module), None

    def announce(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "open_run", open_run)
    monkeypatch.setattr(train, "_announce", announce)
    return seen


@pytest.fixture
def begin(
    opened: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """`alignvlm train smol` on a machine of so many GB: status and what it says."""

    def call(gigabytes: float, *settings: str) -> tuple[int, str]:
        known = {"SC_PAGE_SIZE": PAGE, "SC_PHYS_PAGES": int(gigabytes * 1e9) // PAGE}
        monkeypatch.setattr(os, "sysconf", known.__getitem__)
        arguments = ["train", "smol", "--run", str(tmp_path), "--device", "cpu", "--threads", "1"]
        for setting in settings:
            arguments += ["--set", setting]
        status = run(arguments)
        return status, capsys.readouterr().err

    return call


def test_what_fits_is_not_spoken_of(
    begin: Callable[..., tuple[int, str]], opened: list[RunConfig]
) -> None:
    assert begin(24) == (130, "")
    assert begin(4.2) == (130, "")
    assert len(opened) == 2


def test_where_the_system_does_not_say_nothing_is_refused(
    begin: Callable[..., tuple[int, str]],
    opened: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sysconf_names", {})
    assert begin(1) == (130, "")
    assert len(opened) == 1


def test_what_may_just_fit_is_warned_of(
    begin: Callable[..., tuple[int, str]], opened: list[RunConfig]
) -> None:
    """A machine of 4 GB trains it all the same."""
    status, said = begin(3.9)
    assert status == 130 and len(opened) == 1
    assert said.startswith("Warning: A step needs 4.") and said.count("\n") == 1
    assert "this machine has 3.9 GB a process: try --set model.gradient_checkpointing=true" in said


def test_what_cannot_fit_is_refused_with_what_to_change(
    begin: Callable[..., tuple[int, str]], opened: list[RunConfig]
) -> None:
    large = ["lora=none", "rates.vision=1e-4", "batches.max_tokens=4096", "batches.max_tiles=16"]
    status, said = begin(4, *large)
    assert status == 2 and opened == []
    assert said.startswith("Error: A step needs ") and "this machine has 4.0 GB" in said
    changes = said.partition(": try ")[2].replace("--set ", "").split()
    assert changes and "quantize" not in said
    assert begin(4, *large, *changes) == (130, "")


def test_processes_share_a_machine(
    begin: Callable[..., tuple[int, str]],
    opened: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    status, said = begin(16)
    assert status == 2 and "2.0 GB a process" in said and opened == []


def test_a_row_without_room_for_a_tile_is_named(begin: Callable[..., tuple[int, str]]) -> None:
    status, said = begin(24, "batches.max_tokens=100", "batches.max_text_tokens=64")
    assert status == 2
    assert said.startswith("Error: One tile has 144 visual tokens and a row holds 100 tokens")


def test_the_estimate_is_what_was_measured() -> None:
    """Resident memory of the third step of `smol`, GB, beside the estimate with its reserve."""
    measured = {
        (): 3.72,
        ("lora=none", "rates.vision=1e-4"): 5.18,
        ("model.gradient_checkpointing=true",): 2.82,
        ("precision=float32",): 4.39,
    }
    for settings, gigabytes in measured.items():
        run_config = overrides.apply(recipes.find("smol")(), settings)
        made = make_plan(run_config, 1, 10**12, device="cpu")
        assert made.memory.total < gigabytes * 1e9, "nothing is refused that fits"
        assert gigabytes * 1e9 < made.needed_bytes, "nothing fails unannounced"
