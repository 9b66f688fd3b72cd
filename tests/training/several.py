"""Starts the tiny run in several processes on this machine, over gloo."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import warm
from run_tiny import run_tiny
from safetensors.torch import load_file

from alignvlm.training.tracking import read_log

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
) -> list[BaseProcess]:
    """A process for each of the options, under way; each ends as a command does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    many = len(options)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(many)}
    return [
        warm.start(
            run_tiny, run, own, stderr=_stderr(run, rank), finalize=True,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **(env or {})},
        )
        for rank, own in enumerate(options)
    ]  # fmt: skip


def end(run: Path, processes: Sequence[BaseProcess], status: int = 0) -> list[str]:
    """Their stderr, once all of them have ended with this status."""
    try:
        for process in processes:
            process.join(timeout=100)
    finally:
        for process in processes:
            process.kill()
    said = [_stderr(run, rank).read_text() for rank in range(len(processes))]
    assert [process.exitcode for process in processes] == [status] * len(processes), said
    return said


def start(run: Path, options: dict[str, Any], env: Mapping[str, str] | None = None) -> list[str]:
    """Trains in two processes to a good end; their stderr."""
    return end(run, launch(run, [options] * 2, env))


def _stderr(run: Path, rank: int) -> Path:
    return run.with_name(f"{run.name}-{rank}.stderr")


def train_here(run: Path, **options: Any) -> None:
    """The same in this process."""
    run_tiny(run, options)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def norms(run: Path) -> list[float]:
    """Of the gradients, before they are clipped: AdamW would hide that one is twice too large."""
    return [record["gradient_norm"] for record in read_log(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_model(run: Path, other: Path) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=3e-6)
