"""The default model's two stages in the loop: their losses, and runs that are broken off."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import tiny_stages as tiny
import torch
import warm

from alignvlm.training.tracking import read_log

# Of `tiny_stages`, CPU, float32, one thread: a change that is not meant to move numbers leaves
# them.
GOLDEN = Path(__file__).with_name("golden_stages.json")


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def accuracies(run: Path) -> list[float]:
    return [record["accuracy"] for record in read_log(run)]


@pytest.mark.parametrize("name", ["grounded", "instruct"])
def test_losses_are_golden(tmp_path: Path, name: str) -> None:
    if name == "instruct":
        pytest.importorskip("peft")
    tiny.run_stage(name, tmp_path)
    golden = json.loads(GOLDEN.read_text())[name]
    assert losses(tmp_path) == pytest.approx(golden["loss"], rel=1e-6)
    assert accuracies(tmp_path) == pytest.approx(golden["accuracy"])


def test_golden_cells_are_learned() -> None:
    """The golden losses are those of a task that is learned: six words by their colours."""
    golden = json.loads(GOLDEN.read_text())["grounded"]
    assert golden["loss"][-1] < 0.25 * golden["loss"][0]
    assert golden["accuracy"][0] < 0.2 and golden["accuracy"][-1] > 0.9


@pytest.mark.parametrize("name", ["grounded", "document", "instruct"])
def test_a_stage_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Killed at step 13, on from the checkpoint of step 10, stopped at 15, on to 20."""
    if name == "instruct":
        pytest.importorskip("peft")
    whole = tiny.run_stage(name, tmp_path / "whole")
    stderr = tmp_path / "stderr"
    process = warm.start(tiny.killed_stage, name, 13, tmp_path / "run", stderr=stderr)
    process.join(100)
    assert process.exitcode == -signal.SIGKILL, stderr.read_text()
    tiny.run_stage(name, tmp_path / "run", stopped_at=15)
    assert 10 < len(losses(tmp_path / "run")) < 20
    resumed = tiny.run_stage(name, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    for ours, theirs in zip(resumed.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
