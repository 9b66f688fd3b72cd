"""Trains the tiny model, in this process or as one of several."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import tiny_vlm as tiny
import torch

from alignvlm.training.loop import train


def run_tiny(run: Path, options: dict[str, Any]) -> None:
    """A run of the processes that the environment names, alone where it names none.

    Args:
        run: its folder.
        options: {"config": ..., "batches": ..., "samples": ..., "stop_at": ..., "evaluate": ...};
            process 0 gets SIGTERM after the step `stop_at`.
    """
    torch.set_num_threads(1)
    if options.get("config", {}).get("sharding") == "zero3":
        _without_kernels()
    samples = tiny.DrawnSamples(**options.get("samples", {}))
    task = tiny.make_task(samples, **options.get("batches", {}))

    def on_step(step: int) -> None:
        if step == options.get("stop_at") and int(os.environ.get("RANK", 0)) == 0:
            signal.raise_signal(signal.SIGTERM)

    config = tiny.config(**options.get("config", {}))
    evaluate = tiny.evaluate if options.get("evaluate") else None
    train(task, config, run, on_step=on_step, evaluate=evaluate)


def _without_kernels() -> None:
    """DeepSpeed would compile its collectives of one machine, for minutes; gloo has the same."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
