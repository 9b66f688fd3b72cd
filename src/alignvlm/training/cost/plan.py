"""What a run will do and need, worked out from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from transformers import PreTrainedConfig

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import Tiling, choose_grid
from alignvlm.model.configuration import AlignVLMConfig, num_visual_tokens
from alignvlm.training.configuration import RunConfig
from alignvlm.training.cost.advice import Change, Machine, changes, left_out, longest_sample
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

__all__ = [
    "RESERVE_BYTES",
    "Plan",
    "Step",
    "check_row",
    "make_plan",
    "needed_memory",
    "reserve_bytes",
]

RESERVE_BYTES = 2_000_000_000
"""CUDA's context, communication buffers, and what the allocator cannot use."""

_CPU_RESERVE_BYTES = 1_000_000_000


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
class Plan:
    """A run, planned.

    Attributes:
        run: the run.
        num_gpus: that share it.
        parameters: by part.
        samples: their number and what they are like.
        step: one of the run's steps.
        memory: of one GPU.
        limit_bytes: of one GPU.
        reserve_bytes: of one GPU, beyond what torch's tensors take.
        changes: what would make it fit, in the order to try; empty if it fits.
        warnings: samples that a row cannot hold, one sentence a source.
        unit: what `tiles` are; other makers' models have images.
    """

    run: RunConfig
    num_gpus: int
    parameters: dict[str, Parameters]
    samples: Samples
    step: Step
    memory: Memory
    limit_bytes: int
    reserve_bytes: int = RESERVE_BYTES
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    unit: str = "tiles"

    @property
    def needed_bytes(self) -> int:
        """Of one GPU, the reserve included."""
        return self.memory.total + self.reserve_bytes

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
                "reserve": self.reserve_bytes,
                "needed": self.needed_bytes,
                "limit": self.limit_bytes,
            },
            "fits": self.fits,
            "changes": [asdict(change) for change in self.changes],
            "warnings": list(self.warnings),
        }


def make_plan(
    run: RunConfig,
    num_gpus: int,
    limit_bytes: int,
    *,
    device: Literal["cuda", "cpu"] = "cuda",
    **assumed: Any,
) -> Plan:
    """The plan of a run; on one GPU that of the run with sharding=none, for it shares nothing.

    Args:
        run: the run.
        num_gpus: that share it; on a CPU: processes.
        limit_bytes: memory of one GPU.
        device: what is kept in reserve, and what can be advised, depend on it.
        assumed: `tiles`, `text_tokens` and `num_samples` of `samples`.

    Raises:
        ConfigurationError: the model or the number of samples cannot be known, or one full tile
            does not fit into a row.
    """
    run = _as_shared(run, num_gpus)
    config = architecture(run.model)
    machine = Machine(
        device=device,
        num_gpus=num_gpus,
        limit_bytes=limit_bytes,
        reserve_bytes=reserve_bytes(device),
    )
    if not isinstance(config, AlignVLMConfig):
        return _plan_of_another_model(config, run, machine, assumed)
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
        reserve_bytes=machine.reserve_bytes,
        warnings=left_out(config, run, assumed.get("tiles"), assumed.get("text_tokens")),
    )
    return _advised(planned, machine, longest_sample(config, run))


def needed_memory(run: RunConfig, num_gpus: int) -> Memory:
    """The memory of one GPU alone, the slowest part of another maker's plan left out.

    Raises:
        ConfigurationError: as `make_plan`.
    """
    run = _as_shared(run, num_gpus)
    config = architecture(run.model)
    if isinstance(config, AlignVLMConfig):
        check_row(config, run)
        return memory(config, run, num_gpus)
    return ForeignModel(config, run).memory(_largest_page(run), num_gpus)


def _as_shared(run: RunConfig, num_gpus: int) -> RunConfig:
    return replace(run, sharding="none") if num_gpus == 1 else run


def reserve_bytes(device: Literal["cuda", "cpu"]) -> int:
    """What a process takes beside what is estimated.

    On a CPU that is the interpreter, its libraries, and what the allocator cannot use: 0.1 to
    0.9 GB in steps of `smol`, with and without adapters, recomputation and autocast.
    """
    return _CPU_RESERVE_BYTES if device == "cpu" else RESERVE_BYTES


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


def _advised(
    planned: Plan, machine: Machine, shortest_row: int, *, takes_adapters: bool = True
) -> Plan:
    """The plan with what would make it fit."""
    if planned.fits:
        return planned

    def held(run: RunConfig) -> int:
        return needed_memory(run, machine.num_gpus).total

    found = changes(
        planned.run, machine, held, shortest_row=shortest_row, takes_adapters=takes_adapters
    )
    return replace(planned, changes=found)


def _plan_of_another_model(
    config: PreTrainedConfig,
    run: RunConfig,
    machine: Machine,
    assumed: dict[str, Any],
) -> Plan:
    """Rows hold one sample each, whatever `batches` says of rows."""
    num_gpus = machine.num_gpus
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
        limit_bytes=machine.limit_bytes,
        reserve_bytes=machine.reserve_bytes,
        warnings=left_out(None, run, text_tokens=assumed.get("text_tokens")),
        unit="images",
    )
    as_it_is = run.batches.max_tokens
    return _advised(planned, machine, as_it_is, takes_adapters=model.takes_adapters)


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
