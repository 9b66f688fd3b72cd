"""Starts the tiny run in several processes on this machine, over gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_vlm as tiny
import torch
from safetensors.torch import load_file

from alignvlm.training.loop import train
from alignvlm.training.tracking import read_log

SCRIPT = Path(__file__).with_name("run_tiny.py")

# Small steps: Adam's first ones are of the size of the rate whatever the gradient, and turn the
# last digit of a gradient near zero into a step in the other direction. What is looked at between
# steps must leave no trace in them.
GENTLE = {"learning_rate": 1e-5, "num_steps": 6, "checkpoint_every": 3, "inspect_every": 1}
# Two samples a step, one with an image and one without: each process has one.
MIXED = {
    "config": {"num_steps": 20, "batch_size": 2, "learning_rate": 1e-5},
    "batches": {"num_samples": 2, "pack": False},
    "samples": {"alternate": True},
}


def launch(
    run: Path, options: Sequence[dict[str, Any]], env: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """A process for each of the options, under way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    many = len(options)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(many)}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(run), json.dumps(own)],
            env={
                **os.environ, "OMP_NUM_THREADS": "1", **shared, "RANK": str(rank),
                "LOCAL_RANK": str(rank), **(env or {}),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, own in enumerate(options)
    ]  # fmt: skip


def end(processes: Sequence[subprocess.Popen[str]], status: int = 0) -> list[str]:
    """Their stderr, once all of them have ended with this status."""
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [status] * len(processes), said
    return said


def start(run: Path, options: dict[str, Any], env: Mapping[str, str] | None = None) -> list[str]:
    """Trains in two processes to a good end; their stderr."""
    return end(launch(run, [options] * 2, env))


def train_here(run: Path, stop_at: int | None = None, **options: Any) -> None:
    def on_step(step: int) -> None:
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    task = tiny.make_task(
        tiny.DrawnSamples(**options.get("samples", {})), **options.get("batches", {})
    )
    evaluate = tiny.evaluate if options.get("evaluate") else None
    train(task, tiny.config(**options["config"]), run, on_step=on_step, evaluate=evaluate)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_model(run: Path, other: Path) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=3e-6)
