"""A task small enough to train in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import IndexedTask, Loss, Source


class TinySource(Source):
    """Points of a line, each with noise of its own."""

    def sample(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(4, generator=generator)
        return x, x.sum() + 0.1 * torch.randn((), generator=generator)

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        inputs, targets = zip(*samples, strict=True)
        return {"inputs": torch.stack(inputs), "targets": torch.stack(targets)}


class TinyTask(IndexedTask):
    """Two layers with dropout, so that the random state matters too."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))

    @property
    def module(self) -> nn.Module:
        return self._module

    @property
    def source(self) -> Source:
        return TinySource()

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        error = self._module(batch["inputs"]).squeeze(-1) - batch["targets"]
        return Loss(error.pow(2).sum(), len(error), {"largest": (error.abs().max().item(), 1.0)})

    def learning_rate_factor(self, name: str) -> float:
        return 0.5 if name.startswith("0.") else 1.0


def tiny_config(**options: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "num_steps": 20,
        "batch_size": 3,
        "learning_rate": 1e-2,
        "warmup_steps": 4,
        "checkpoint_every": 5,
        "num_workers": 0,
        "precision": "float32",
    }
    return TrainConfig(**defaults | options)
