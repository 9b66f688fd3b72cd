"""AdamW over the trained parts, and the table of what trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alignvlm.training.run_folder import TrainedPart
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Task

__all__ = ["make_optimizer", "trained_parts"]

# Kinds of devices where AdamW's step is one kernel for all tensors.
_FUSED = {"cuda"}


def make_optimizer(
    task: Task, names: Mapping[nn.Parameter, str], config: TrainConfig
) -> torch.optim.AdamW:
    """AdamW in which matrices decay and norms, biases, ALIGN's gain and bias do not.

    Weight decay would pull ALIGN's gain back to where the softmax cannot sharpen.

    Args:
        task: knows the rate of each part.
        names: of the trained parameters.
        config: peak rate, decay and betas.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter, name in names.items():
        key = (task.learning_rate_factor(name), _decays(parameter))
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "factor": factor,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (factor, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=all(parameter.device.type in _FUSED for parameter in names) or None,
    )


def trained_parts(task: Task, config: TrainConfig) -> list[TrainedPart]:
    """Parameters and peak learning rate of each part of the model, frozen ones included."""
    parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in task.module.named_parameters():
        parts.setdefault(task.part(name), []).append((name, parameter))
    table = []
    for part, members in parts.items():
        trained = [(name, p) for name, p in members if p.requires_grad]
        rates = [config.learning_rate * task.learning_rate_factor(name) for name, _ in trained]
        table.append(
            TrainedPart(
                part=part,
                num_parameters=sum(p.numel() for _, p in members),
                num_trained=sum(p.numel() for _, p in trained),
                learning_rate=max(rates, default=None),
                num_decayed=sum(p.numel() for _, p in trained if _decays(p)),
            )
        )
    return table


def _decays(parameter: Tensor) -> bool:
    return parameter.ndim > 1
