"""Benchmarks while a model trains: what the training loop calls now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignvlm.evaluation.benchmarks import Benchmark
from alignvlm.evaluation.models.held import HeldModel
from alignvlm.evaluation.running.evaluate import Settings, evaluate_model
from alignvlm.evaluation.running.processes import Processes

__all__ = ["evaluator"]


def evaluator(
    processor: Any,
    benchmarks: Sequence[str | Benchmark],
    run: Path,
    settings: Settings,
    *,
    precision: torch.dtype,
    processes: Processes | None = None,
) -> Callable[[nn.Module, int], dict[str, float]]:
    """What `alignvlm.training.loop.train` takes as `evaluate`.

    Each time is a run of its own, `RUN/evaluation/step-<n>`, as `alignvlm eval` writes it; a
    training run that is killed meanwhile and comes by that step again goes on with it.

    Args:
        processor: of the model.
        benchmarks: names or records.
        run: folder of the training run.
        settings: how.
        precision: of the training run.
        processes: this one among others, each of which holds the whole model.

    Returns:
        Scores by the benchmarks' names, in [0, 1].
    """

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        held = HeldModel(
            f"{run.name} at step {step}", model, processor,
            version=f"{run.name}, {step} steps", precision=precision,
        )  # fmt: skip
        folder = run / "evaluation" / f"step-{step:08d}"
        scores = evaluate_model(held, benchmarks, folder, settings, processes=processes)
        return {name: found["headline"]["value"] for name, found in scores.items()}

    return evaluate
