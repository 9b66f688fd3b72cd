"""What to change so that a run fits, and what of its data a run would leave out as it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.tiling import Tiling, choose_grid
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.training.configuration import RunConfig, check_device
from alignvlm.training.cost.samples import KNOWN, Assumed
from alignvlm.training.overrides import apply
from alignvlm.training.packing import LENGTH_STEP

__all__ = ["Change", "Machine", "changes", "left_out", "longest_sample"]

_SAVES = 0.01
"""Less than this share of what torch holds is no reason to change a run."""

_TOO_LONG = {
    "skip": "is left out",
    "fewer_tiles": "is shrunk, or left out if its text alone is too long",
    "error": "counts as broken",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting, and what one GPU would hold with it and with all changes before it."""

    setting: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run shall fit.

    Attributes:
        device: what it computes on.
        num_gpus: that share the run.
        limit_bytes: of each.
        reserve_bytes: of each, beyond what torch holds.
    """

    device: Literal["cuda", "cpu"]
    num_gpus: int
    limit_bytes: int
    reserve_bytes: int


def changes(
    run: RunConfig,
    machine: Machine,
    held: Callable[[RunConfig], int],
    *,
    shortest_row: int,
    takes_adapters: bool = True,
) -> tuple[Change, ...]:
    """Settings one on top of the other until a run fits, or until none saves anything.

    Args:
        run: that does not fit.
        machine: where it shall.
        held: bytes of one GPU that torch holds in a run.
        shortest_row: `max_tokens` is not lowered further: samples would be left out.
        takes_adapters: whether the model can be trained with some.
    """
    found: list[Change] = []
    now, room = held(run), machine.limit_bytes - machine.reserve_bytes

    def next_one() -> tuple[RunConfig, str, int] | None:
        for setting in _settings(run, machine, shortest_row, takes_adapters):
            changed = apply(run, setting.split())
            if _runs_on(machine.device, changed) and (size := held(changed)) < (1 - _SAVES) * now:
                return changed, setting, size
        return None

    while now > room and (better := next_one()) is not None:
        run, setting, now = better
        found.append(Change(setting=setting, bytes=now + machine.reserve_bytes))
    return tuple(found)


def _settings(
    run: RunConfig, machine: Machine, shortest_row: int, takes_adapters: bool
) -> Iterator[str]:
    """What a run could do with, those that cost least first.

    Recomputation and rows that still hold every sample change no result; adapters do, so they come
    last.
    """
    if not run.model.gradient_checkpointing:
        yield "model.gradient_checkpointing=true"
    in_four_bits = run.lora is not None and run.lora.quantize
    if machine.num_gpus > 1 and run.sharding == "none" and not in_four_bits:
        yield "sharding=fsdp2"
    half = "model.dtype=bfloat16"
    if run.precision == "float32":  # what trains is float32 and would not be cast
        half += " precision=bfloat16"
    if run.model.dtype == "float32" and None in (run.rates.vision, run.rates.llm):
        yield half
    shorter = max(run.batches.max_tokens // 2, shortest_row)
    if shorter < run.batches.max_tokens:
        yield f"batches.max_tokens={shorter}"
    if takes_adapters and run.rates.llm is not None and run.lora is None:
        yield f"lora.rank=16 {half}"
    if run.lora is not None and not in_four_bits and run.sharding == "none":
        yield "lora.quantize=true"
    if run.rates.vision is not None and (run.rates.connector or run.rates.llm):
        yield "rates.vision=none"


def _runs_on(device: str, run: RunConfig) -> bool:
    try:
        check_device(run, device)
    except ConfigurationError:
        return False
    return True


def longest_sample(config: AlignVLMConfig, run: RunConfig) -> int:
    """Tokens of a row that holds any sample of one image, a multiple of what rows are padded to.

    Those of the most tiles that the tiling makes of an image and of the longest text. Layout
    "anyres" would shrink them, and the estimate of a row's memory counts them all.
    """
    cut = Tiling(**config.tiling or {})
    several = cut.layout == "anyres" or (cut.layout == "cells" and cut.largest_grid > 1)
    tiles = cut.largest_grid + int(cut.thumbnail and several)
    tokens = tiles * config.tokens_per_tile + run.batches.max_text_tokens
    if (joining := config.joining) is not None and joining.newline:
        tokens += cut.max_side_tiles * joining.tile[0]
    return -(-tokens // LENGTH_STEP) * LENGTH_STEP


def left_out(
    config: AlignVLMConfig | None,
    run: RunConfig,
    tiles: float | None = None,
    text_tokens: float | None = None,
) -> tuple[str, ...]:
    """A sentence for each source whose typical sample is beyond a limit of `batches`.

    Args:
        config: of the model; None: another maker's, whose rows have a limit on text alone.
        run: the run.
        tiles: of a sample, in place of what is assumed of the source.
        text_tokens: of a sample, in place of what is assumed of the source.
    """
    found = []
    for part in run.data:
        sample = KNOWN.get(part.source, Assumed())
        text = text_tokens or sample.text_tokens
        sizes = [("text tokens", text, "max_text_tokens")]
        if config is not None:
            width, height = sample.page_px
            cut = choose_grid(width, height, Tiling(**config.tiling or {})).num_tiles
            number = cut if tiles is None else tiles
            visual = config.num_visual_tokens(height, width) * number / cut
            sizes += [("tiles", number, "max_tiles"), ("tokens", visual + text, "max_tokens")]
        for what, size, name in sizes:
            limit = getattr(run.batches, name)
            if size > limit:
                found.append(
                    f"A sample of {part.source}, as assumed, has {size:,.0f} {what} and "
                    f"batches.{name} is {limit:,}: one like it {_TOO_LONG[run.batches.too_long]} "
                    f"(batches.too_long), so set batches.{name} to {math.ceil(size)} or more"
                )
                break
    return tuple(found)
