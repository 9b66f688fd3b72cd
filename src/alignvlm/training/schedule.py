"""How long and how fast a run goes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignvlm.errors import ConfigurationError

__all__ = ["TrainConfig", "differences", "learning_rate_at"]

_SEEDS = 1 << 40  # times a million, what torch takes


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and on what to train.

    Attributes:
        num_steps: optimizer steps in all.
        batch_size: samples a step, over all processes.
        learning_rate: peak; reached after `warmup_steps`, then down to zero as `schedule` says.
        schedule: "cosine", "linear" or "constant".
        weight_decay: of matrices; norms, biases and ALIGN's gain and bias are never decayed.
        clip_norm: largest global norm of the gradient.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        keep: checkpoints that stay.
        seed: of the samples and of everything random in the model.
        num_workers: processes that make samples; the result does not depend on it.
        precision: "float32" or "bfloat16" (autocast; weights stay as they are).
        device: where to train.
        sharding: "none", "fsdp2" or "zero3": what several processes share.
        inspect_every: steps between looks at the model's health, 0: never.
        evaluate_every: steps between evaluations, 0: never.
        trackers: names of `alignvlm.training.trackers`.
        data: what else the samples depend on, e.g. a folder; written down so that a run cannot go
            on with another one.

    Raises:
        ConfigurationError: a number is out of range.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 50
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip_norm: float = 1.0
    checkpoint_every: int = 100
    keep: int = 2
    seed: int = 0
    num_workers: int = 1
    precision: str = "bfloat16"
    device: str = "cpu"
    sharding: Literal["none", "fsdp2", "zero3"] = "none"
    inspect_every: int = 0
    evaluate_every: int = 0
    trackers: tuple[str, ...] = ()
    data: str | None = None

    def __post_init__(self) -> None:
        at_least = {
            "num_steps": 1, "batch_size": 1, "warmup_steps": 0, "checkpoint_every": 1,
            "keep": 1, "num_workers": 0, "inspect_every": 0, "evaluate_every": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            _check(getattr(self, name) >= least, name, getattr(self, name), f"at least {least}")
        rate, seed = self.learning_rate, self.seed
        _check(0 < rate < math.inf, "learning_rate", rate, "a number above 0")
        _check(0 <= seed < _SEEDS, "seed", seed, f"from 0 to below {_SEEDS}")


def _check(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigurationError(f"{name} must be {rule}, not {value!r}")


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of the settings, as JSON values, that another start of a run had otherwise.

    Of `data` the names within, where it is a JSON object: "data (rows)".
    """
    changed = []
    for name in sorted(ours):
        old = theirs.get(name, ours[name])
        if ours[name] != old:
            inside = _inside(ours[name], old) if name == "data" else []
            changed.append(f"{name} ({', '.join(inside)})" if inside else name)
    return changed


def _inside(ours: str | None, theirs: str | None) -> list[str]:
    new, old = _parts(ours), _parts(theirs)
    return [name for name in new if new[name] != old.get(name)] if old else []


def _parts(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The rate of the step that follows `step` done ones: linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.num_steps - config.warmup_steps)
    done = (step - config.warmup_steps) / span
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "constant": 1.0,
    }
    return config.learning_rate * left[config.schedule]
