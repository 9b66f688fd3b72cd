"""What a run will do and need, worked out from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from alignvlm.errors import ConfigurationError
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.training.configuration import LoraConfig, RunConfig
from alignvlm.training.cost.architecture import architecture, skeleton
from alignvlm.training.cost.memory import (
    Memory,
    Parameters,
    count_parameters,
    fullest_row,
    held_states,
    memory,
)
from alignvlm.training.cost.operations import Flops, flops
from alignvlm.training.cost.samples import Samples, samples

__all__ = ["RESERVE_BYTES", "Change", "Plan", "Step", "make_plan"]

RESERVE_BYTES = 2_000_000_000
"""CUDA's context, communication buffers, and what the allocator cannot use."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step, over all GPUs.

    Attributes:
        samples, tiles, text_tokens, visual_tokens: that it sees.
        rows_per_gpu: forward and backward passes of one GPU.
        flops: None for models whose parts are not known here.
    """

    samples: int
    tiles: int
    text_tokens: int
    visual_tokens: int
    rows_per_gpu: int
    flops: Flops | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting, and what one GPU would hold with it and with all changes before it."""

    setting: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, planned.

    Attributes:
        run: the run.
        num_gpus: that share it.
        parameters: by part.
        samples: their number and what they are like.
        step: one of the run's steps.
        memory: of one GPU; for other models without activations and workspace.
        limit_bytes: of one GPU.
        changes: what would make it fit, in the order to try; empty if it fits.
    """

    run: RunConfig
    num_gpus: int
    parameters: dict[str, Parameters]
    samples: Samples
    step: Step
    memory: Memory
    limit_bytes: int
    changes: tuple[Change, ...] = ()

    @property
    def needed_bytes(self) -> int:
        """Of one GPU, the reserve included."""
        return self.memory.total + RESERVE_BYTES

    @property
    def fits(self) -> bool:
        """Whether one GPU is large enough."""
        return self.needed_bytes <= self.limit_bytes

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        step = {k: v for k, v in asdict(self.step).items() if k != "flops"}
        found = self.step.flops
        if found is not None:
            step["flops"] = {name: asdict(part) for name, part in found.parts()}
            step["total_flops"] = found.total
        return {
            "recipe": self.run.recipe,
            "gpus": self.num_gpus,
            "parameters": {part: asdict(p) for part, p in self.parameters.items()},
            "samples": asdict(self.samples),
            "step": step,
            "run_flops": None if found is None else found.total * self.samples.num_steps,
            "memory_bytes": {
                **asdict(self.memory),
                "reserve": RESERVE_BYTES,
                "needed": self.needed_bytes,
                "limit": self.limit_bytes,
            },
            "fits": self.fits,
            "changes": [asdict(change) for change in self.changes],
        }


def make_plan(run: RunConfig, num_gpus: int, limit_bytes: int, **assumed: Any) -> Plan:
    """The plan of a run.

    Args:
        run: the run.
        num_gpus: that share it.
        limit_bytes: memory of one GPU.
        assumed: `tiles`, `text_tokens` and `num_samples` of `samples`.

    Raises:
        ConfigurationError: the model or the number of samples cannot be known, or one full tile
            does not fit into a row.
    """
    config = architecture(run.model)
    if not isinstance(config, AlignVLMConfig):
        return _plan_of_another_model(config, run, num_gpus, limit_bytes, assumed)
    check_row(config, run)
    found = samples(run, config.tiling, **assumed)
    planned = Plan(
        run=run,
        num_gpus=num_gpus,
        parameters=count_parameters(skeleton(config), config, run),
        samples=found,
        step=_step(config, run, found, num_gpus),
        memory=memory(config, run, num_gpus),
        limit_bytes=limit_bytes,
    )
    if planned.fits:
        return planned
    return replace(planned, changes=_changes(run, num_gpus, limit_bytes))


def check_row(config: AlignVLMConfig, run: RunConfig) -> None:
    """Raises a ConfigurationError if a row cannot hold the smallest image and some text."""
    per_tile, room = config.tokens_per_tile, run.batches.max_tokens
    if per_tile >= room:
        raise ConfigurationError(
            f"One tile has {per_tile} visual tokens and a row holds {room} tokens: set "
            f"batches.max_tokens to {per_tile + min(room, run.batches.max_text_tokens)} or more"
        )


def _step(config: AlignVLMConfig, run: RunConfig, found: Samples, num_gpus: int) -> Step:
    size = run.batches.num_samples
    tiles, text = round(size * found.tiles), round(size * found.text_tokens)
    visual = tiles * config.tokens_per_tile
    length = found.tiles * config.tokens_per_tile + found.text_tokens
    row = fullest_row(config, run)
    by_tokens = size * length / run.batches.max_tokens
    rows = max(by_tokens, tiles / row.num_tiles) if run.batches.pack else size
    return Step(
        samples=size,
        tiles=tiles,
        text_tokens=text,
        visual_tokens=visual,
        rows_per_gpu=max(1, math.ceil(rows / num_gpus)),
        flops=flops(
            config,
            text_tokens=text,
            visual_tokens=visual,
            num_tiles=tiles,
            sum_squared_lengths=round(size * length**2),
            trained=run.rates,
            checkpointing=run.model.gradient_checkpointing,
            lora=run.lora,
        ),
    )


def _changes(run: RunConfig, num_gpus: int, limit_bytes: int) -> tuple[Change, ...]:
    """Changes one after the other until the run fits, those that cost least first.

    Shorter rows and recomputation change no result; adapters do, so they come last.
    """
    tried: list[Change] = []
    config: Any = architecture(run.model)
    shortest = max(run.batches.max_text_tokens, config.tokens_per_tile + 1)
    for setting, changed in _steps_down(run, num_gpus, shortest):
        needed = memory(config, changed, num_gpus).total + RESERVE_BYTES
        tried.append(Change(setting=setting, bytes=needed))
        if needed <= limit_bytes:
            break
    return tuple(tried)


def _steps_down(run: RunConfig, num_gpus: int, shortest: int) -> Iterator[tuple[str, RunConfig]]:
    """(setting, the run with it and all before it), in the order to try."""
    if not run.model.gradient_checkpointing:
        run = replace(run, model=replace(run.model, gradient_checkpointing=True))
        yield "model.gradient_checkpointing=true", run
    if num_gpus > 1 and run.sharding == "none" and not (run.lora and run.lora.quantize):
        run = replace(run, sharding="fsdp2")
        yield "sharding=fsdp2", run
    if run.model.dtype == "float32" and None in (run.rates.vision, run.rates.llm):
        run = replace(run, model=replace(run.model, dtype="bfloat16"))
        yield "model.dtype=bfloat16", run
    while (half := run.batches.max_tokens // 2) >= shortest:
        run = replace(run, batches=replace(run.batches, max_tokens=half))
        yield f"batches.max_tokens={half}", run
    if run.rates.llm is not None and run.lora is None:
        low = replace(run.model, dtype="bfloat16")
        run = replace(run, lora=LoraConfig(), model=low)
        yield "lora.rank=16 model.dtype=bfloat16", run
    if run.lora is not None and not run.lora.quantize and run.sharding == "none":
        run = replace(run, lora=replace(run.lora, quantize=True))
        yield "lora.quantize=true", run
    if run.rates.vision is not None and (run.rates.connector or run.rates.llm):
        run = replace(run, rates=replace(run.rates, vision=None))
        yield "rates.vision=none", run


def _plan_of_another_model(
    config: PreTrainedConfig,
    run: RunConfig,
    num_gpus: int,
    limit_bytes: int,
    assumed: dict[str, Any],
) -> Plan:
    """Parameters, steps, and the memory that does not depend on the data."""
    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except ValueError as error:
        raise ConfigurationError(
            f"model.pretrained is a {config.model_type!r}, which transformers does not know as an "
            "image-text-to-text model: choose one that it does"
        ) from error
    parameters = count_parameters(model, config, run)
    found = samples(run, None, **assumed)
    size = run.batches.num_samples
    return Plan(
        run=run,
        num_gpus=num_gpus,
        parameters=parameters,
        samples=found,
        step=Step(
            samples=size,
            tiles=round(size * found.tiles),
            text_tokens=round(size * found.text_tokens),
            visual_tokens=0,
            rows_per_gpu=math.ceil(size / num_gpus),
            flops=None,
        ),
        memory=Memory(**held_states(parameters, run, num_gpus), activations={}, workspace={}),
        limit_bytes=limit_bytes,
    )
