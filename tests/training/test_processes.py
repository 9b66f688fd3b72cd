"""Several processes on this machine, over gloo: what they learn is what one learns."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm as tiny
import torch
from safetensors.torch import load_file

from alignvlm.errors import ConfigurationError
from alignvlm.training.loop import train
from alignvlm.training.processes import Processes
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.tracking import read_log

SCRIPT = Path(__file__).with_name("run_tiny.py")


def start(run: Path, options: dict[str, Any], num_processes: int = 1) -> list[str]:
    """Trains in processes of their own; their stderr, once all have ended well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(num_processes):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        if num_processes > 1:
            env |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes),
            }  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(run), json.dumps(options)],
                env=env,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=100)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * num_processes, said
    return said


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def train_here(run: Path, stop_at: int | None = None, **options: Any) -> None:
    def on_step(step: int) -> None:
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    task = tiny.make_task(
        tiny.DrawnSamples(**options.get("samples", {})), **options.get("batches", {})
    )
    train(task, tiny.config(**options["config"]), run, on_step=on_step)


# Small steps: Adam's first ones are of the size of the rate whatever the gradient, and turn the
# last digit of a gradient near zero into a step in the other direction.
GENTLE = {"learning_rate": 1e-5, "num_steps": 6, "checkpoint_every": 3}
# Two samples a step, one with an image and one without: each process has one.
MIXED = {
    "config": {"num_steps": 20, "batch_size": 2, "learning_rate": 1e-5},
    "batches": {"num_samples": 2, "pack": False},
    "samples": {"alternate": True},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone")
    train_here(run, config=GENTLE)
    return run


def test_a_process_with_text_alone_does_not_hang(tmp_path: Path) -> None:
    """Twenty steps under data parallelism, and what one process learns from the same."""
    start(tmp_path / "two", MIXED, 2)
    train_here(tmp_path / "one", **MIXED)
    assert len(losses(tmp_path / "two")) == 20
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)


def test_fsdp2_learns_what_one_process_does(alone: Path, tmp_path: Path) -> None:
    """Stopped after three steps sharded, and on from there alone: a checkpoint is whole."""
    start(tmp_path, {"config": GENTLE | {"sharding": "fsdp2"}, "stop_at": 2}, 2)
    assert losses(tmp_path) == pytest.approx(losses(alone)[:3], rel=1e-6)
    train_here(tmp_path, config=GENTLE)
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-6)


def test_fsdp2_goes_on_where_one_process_stopped(alone: Path, tmp_path: Path) -> None:
    """With text alone in one process; the model that is left is that of one process."""
    train_here(tmp_path, stop_at=2, config=GENTLE)
    assert len(losses(tmp_path)) == 3
    start(tmp_path, {"config": GENTLE | {"sharding": "fsdp2"}}, 2)
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-6)
    ours, theirs = weights(tmp_path), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=3e-6)


def test_fsdp2_needs_other_processes() -> None:
    config = TrainConfig(num_steps=1, batch_size=1, learning_rate=1.0, sharding="fsdp2")
    with pytest.raises(ConfigurationError, match="one process alone: start the run with accel"):
        Processes(config).prepare(torch.nn.Linear(1, 1))


def test_zero3_needs_deepspeed() -> None:
    config = TrainConfig(num_steps=1, batch_size=1, learning_rate=1.0, sharding="zero3")
    with pytest.raises(ConfigurationError, match="not started by DeepSpeed"):
        Processes(config)
