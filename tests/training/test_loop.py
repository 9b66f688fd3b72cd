from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_task as tiny
import torch
import warm
from kill_tiny import killed_after

from alignvlm.errors import ConfigurationError, TrainingError
from alignvlm.training.loop import train
from alignvlm.training.schedule import learning_rate_at
from alignvlm.training.task import Loss
from alignvlm.training.tracking import read_log

# Losses of the tiny task, CPU, float32: a change that is not meant to move numbers leaves them.
GOLDEN = Path(__file__).with_name("golden_tiny.json")


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def test_twenty_steps_are_ten_and_ten(tmp_path: Path) -> None:
    whole, parts = tiny.TinyTask(), tiny.TinyTask()
    train(whole, tiny.tiny_config(), tmp_path / "whole")
    for stop in (10, 20):
        task = parts if stop == 20 else tiny.TinyTask()

        def end(step: int, stop: int = stop) -> None:
            if step == stop:
                signal.raise_signal(signal.SIGTERM)

        train(task, tiny.tiny_config(), tmp_path / "parts", on_step=end)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for ours, theirs in zip(parts.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("killed_at", [1, 7, 10])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, killed_at: int) -> None:
    """SIGKILL after some step, then the same command again: the losses of an unbroken run."""
    stderr = tmp_path / "stderr"
    process = warm.start(killed_after, killed_at, tmp_path / "run", stderr=stderr)
    process.join(100)
    assert process.exitcode == -signal.SIGKILL, stderr.read_text()
    task = tiny.TinyTask()
    train(task, tiny.tiny_config(), tmp_path / "run")
    assert losses(tmp_path / "run") == json.loads(GOLDEN.read_text())


def test_losses_are_golden(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(), tmp_path)
    assert losses(tmp_path) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-6)


def test_workers_do_not_change_the_losses(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=4), tmp_path / "none")
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=4, num_workers=1), tmp_path / "one")
    assert losses(tmp_path / "none") == losses(tmp_path / "one")


def test_no_step_stands_twice_in_the_log(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=20), tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 21, "loss": 0.5}\n{"step": 22, "lo')
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=20), tmp_path)
    assert [record["step"] for record in read_log(tmp_path)] == list(range(1, 21))


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(keep=2), tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000015", "step-00000020"]


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=2), tmp_path)
    with pytest.raises(ConfigurationError, match="another batch_size"):
        train(tiny.TinyTask(), tiny.tiny_config(num_steps=2, batch_size=4), tmp_path)


def test_other_data_are_refused(tmp_path: Path) -> None:
    config = replace(tiny.tiny_config(num_steps=1), data="pdfs")
    train(tiny.TinyTask(), config, tmp_path)
    with pytest.raises(ConfigurationError, match="another data"):
        train(tiny.TinyTask(), replace(config, data=None), tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=2), tmp_path)
    task = tiny.TinyTask()
    task._module = torch.nn.Sequential(*task.module, torch.nn.Linear(1, 1))
    with pytest.raises(ConfigurationError, match="of another model"):
        train(task, tiny.tiny_config(num_steps=2), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = tiny.TinyTask()
    task.loss = lambda batch: Loss(next(task.module.parameters()).sum() * float("nan"), 1, {})
    with pytest.raises(TrainingError, match="At step 1 the loss is nan"):
        train(task, tiny.tiny_config(), tmp_path)
    assert not list(tmp_path.glob("step-*"))


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    task = tiny.TinyTask()
    weight = next(task.module.parameters())
    task.loss = lambda batch: Loss((weight * 0).sum().sqrt(), 1, {})  # 0, gradient 0 * inf
    with pytest.raises(TrainingError, match="norm nan"):
        train(task, tiny.tiny_config(), tmp_path)


def test_a_run_goes_on_with_another_learning_rate(tmp_path: Path) -> None:
    train(tiny.TinyTask(), tiny.tiny_config(num_steps=2), tmp_path)
    assert train(tiny.TinyTask(), tiny.tiny_config(num_steps=2, learning_rate=1e-4), tmp_path) == 2


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = replace(tiny.tiny_config(), num_steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate_at(0, config) == pytest.approx(0.1)
    assert learning_rate_at(9, config) == pytest.approx(1.0)
    assert learning_rate_at(55, config) == pytest.approx(0.5)
    assert learning_rate_at(100, config) == pytest.approx(0.0)


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    """With no gradient at all, decay is the only thing that moves a parameter."""
    task = tiny.TinyTask()
    before = [p.detach().clone() for p in task.module.parameters()]
    task.loss = lambda batch: Loss(sum((p * 0).sum() for p in task.module.parameters()), 1, {})
    train(task, tiny.tiny_config(num_steps=1, weight_decay=0.5), tmp_path)
    moved = [not torch.equal(a, b) for a, b in zip(before, task.module.parameters(), strict=True)]
    assert moved == [True, False, True, False]
