"""What a run will do and need, worked out from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedConfig

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import Tiling, choose_grid
from alignvlm.model.configuration import AlignVLMConfig, num_visual_tokens
from alignvlm.training.configuration import LoraConfig, RunConfig
from alignvlm.training.cost.architecture import architecture, skeleton
from alignvlm.training.cost.foreign import ForeignModel
from alignvlm.training.cost.memory import (
    Memory,
    Parameters,
    count_parameters,
    fullest_row,
    memory,
)
from alignvlm.training.cost.operations import Flops, flops
from alignvlm.training.cost.samples import Measure, Samples, samples, typical

__all__ = ["RESERVE_BYTES", "Change", "Plan", "Step", "make_plan", "needed_memory"]

RESERVE_BYTES = 2_000_000_000
"""CUDA's context, communication buffers, and what the allocator cannot use."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step, over all GPUs.

    Attributes:
        samples, tiles, text_tokens, visual_tokens: that it sees.
        rows_per_gpu: forward and backward passes of one GPU.
        flops: of all of it.
    """

    samples: int
    tiles: int
    text_tokens: int
    visual_tokens: int
    rows_per_gpu: int
    flops: Flops


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
        memory: of one GPU.
        unit: what `tiles` are; other makers' models have images.
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
    unit: str = "tiles"

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
        step["flops"] = {name: asdict(part) for name, part in found.parts()}
        step["total_flops"] = found.total
        return {
            "recipe": self.run.recipe,
            "gpus": self.num_gpus,
            "sharding": self.run.sharding,
            "parameters": {part: asdict(p) for part, p in self.parameters.items()},
            "samples": asdict(self.samples),
            "step": step,
            "run_flops": found.total * self.samples.num_steps,
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
    """The plan of a run; on one GPU that of the run with sharding=none, for it shares nothing.

    Args:
        run: the run.
        num_gpus: that share it.
        limit_bytes: memory of one GPU.
        assumed: `tiles`, `text_tokens` and `num_samples` of `samples`.

    Raises:
        ConfigurationError: the model or the number of samples cannot be known, or one full tile
            does not fit into a row.
    """
    if num_gpus == 1:
        run = replace(run, sharding="none")
    config = architecture(run.model)
    if not isinstance(config, AlignVLMConfig):
        return _plan_of_another_model(config, run, num_gpus, limit_bytes, assumed)
    check_row(config, run)
    found = samples(run, _measure(config), **assumed)
    planned = Plan(
        run=run,
        num_gpus=num_gpus,
        parameters=count_parameters(skeleton(config), config, run),
        samples=found,
        step=_step(config, run, found, num_gpus),
        memory=memory(config, run, num_gpus),
        limit_bytes=limit_bytes,
    )
    shortest = max(run.batches.max_text_tokens, config.tokens_per_tile + 1)
    return _advised(planned, _steps_down(run, num_gpus, shortest))


def needed_memory(run: RunConfig, num_gpus: int) -> Memory:
    """The memory of one GPU alone, the slowest part of another maker's plan left out.

    Raises:
        ConfigurationError: as `make_plan`.
    """
    config = architecture(run.model)
    if isinstance(config, AlignVLMConfig):
        check_row(config, run)
        return memory(config, run, num_gpus)
    return ForeignModel(config, run).memory(_largest_page(run), num_gpus)


def _measure(config: AlignVLMConfig) -> Measure:
    """What the model makes of an image; one that condenses its visual tokens at most."""
    cut, per_tile, joining = Tiling(**config.tiling or {}), config.tokens_per_tile, config.joining

    def measure(width: int, height: int) -> tuple[int, int]:
        grid = choose_grid(width, height, cut)
        return grid.num_tiles, num_visual_tokens(grid, per_tile, joining)

    return measure


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
    visual = round(size * found.visual_tokens)
    length = found.visual_tokens + found.text_tokens
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


def _advised(planned: Plan, changes: Iterable[tuple[str, RunConfig]]) -> Plan:
    """The plan with changes one after the other until the run fits."""
    if planned.fits:
        return planned
    tried: list[Change] = []
    for setting, changed in changes:
        needed = needed_memory(changed, planned.num_gpus).total + RESERVE_BYTES
        tried.append(Change(setting=setting, bytes=needed))
        if needed <= planned.limit_bytes:
            break
    return replace(planned, changes=tuple(tried))


def _steps_down(
    run: RunConfig, num_gpus: int, shortest: int, *, takes_adapters: bool = True
) -> Iterator[tuple[str, RunConfig]]:
    """(setting, the run with it and all before it), those that cost least first.

    Shorter rows and recomputation change no result; adapters do, so they come last.

    Args:
        run: the run.
        num_gpus: that share it.
        shortest: tokens that a row must hold.
        takes_adapters: whether the model can be trained with some.
    """
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
    if takes_adapters and run.rates.llm is not None and run.lora is None:
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
    """Rows hold one sample each, whatever `batches` says of rows."""
    model = ForeignModel(config, run)
    found = samples(run, model.measure, **assumed)
    size = run.batches.num_samples
    planned = Plan(
        run=run,
        num_gpus=num_gpus,
        parameters=count_parameters(model.skeleton, config, run),
        samples=found,
        step=Step(
            samples=size,
            tiles=round(size * found.tiles),
            text_tokens=round(size * found.text_tokens),
            visual_tokens=round(size * found.visual_tokens),
            rows_per_gpu=math.ceil(size / num_gpus),
            flops=_flops_of_another_model(model, run, size, assumed),
        ),
        memory=model.memory(_largest_page(run), num_gpus),
        limit_bytes=limit_bytes,
        unit="images",
    )
    as_it_is = run.batches.max_tokens
    down = _steps_down(run, num_gpus, as_it_is, takes_adapters=model.takes_adapters)
    return _advised(planned, down)


def _flops_of_another_model(
    model: ForeignModel, run: RunConfig, size: int, assumed: dict[str, Any]
) -> Flops:
    """Of a step, whose samples are typical ones of the sources by their shares."""
    num_images = max(1, round(assumed.get("tiles") or 1))
    total = None
    for share, sample in typical(run, assumed.get("num_samples")):
        text_tokens = assumed.get("text_tokens") or sample.text_tokens
        one = model.flops(sample.page_px, text_tokens, num_images) * (size * share)
        total = one if total is None else total + one
    assert total is not None  # a run has data
    return total


def _largest_page(run: RunConfig) -> tuple[int, int]:
    """Width and height of the largest typical image."""
    pages = [sample.page_px for _, sample in typical(run, 1)]
    return max(pages, key=lambda page: page[0] * page[1])
