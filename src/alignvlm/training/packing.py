"""Several samples in one row: which go together, and how they become tensors.

A row is one sequence of the language model in which each sample has positions from 0 on. Attention
stays inside a sample: the borders are where positions start again. SDPA is called sample by sample
(training/attention.py), FlashAttention's variable-length kernels by transformers (with
`attention_mask=None` and no cache). Encoder and connector work tile by tile and never see a row. So
a packed sample's logits and gradients are those it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.encoding import Example, Measured

__all__ = ["LENGTH_STEP", "collate", "counts", "pack", "share_out"]

LENGTH_STEP = 128
"""Rows are padded to a multiple: a few shapes, where varying ones make a CPU run's memory grow."""


@dataclass
class _Row:
    tokens_left: int
    tiles_left: int
    members: list[int] = field(default_factory=list)


def pack(lengths: Sequence[Measured], max_tokens: int, max_tiles: int) -> list[list[int]]:
    """Best-fit decreasing: the longest sample first, into the row where it leaves least room.

    Args:
        lengths: of samples that each fit into a row.
        max_tokens: room of a row for text and visual tokens.
        max_tiles: room of a row for tiles.

    Returns:
        Rows as indices into `lengths`; equal inputs give equal rows.
    """
    rows: list[_Row] = []
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i].num_tokens, i))
    for index in order:
        size = lengths[index]
        fitting = [
            row
            for row in rows
            if size.num_tokens <= row.tokens_left and size.num_tiles <= row.tiles_left
        ]
        if fitting:
            row = min(fitting, key=lambda row: row.tokens_left)
        else:
            row = _Row(max_tokens, max_tiles)
            rows.append(row)
        row.tokens_left -= size.num_tokens
        row.tiles_left -= size.num_tiles
        row.members.append(index)
    return [row.members for row in rows]


def share_out(costs: Sequence[float], num_processes: int) -> list[list[int]]:
    """Rows to processes: equally many each, with costs as equal as a greedy choice makes them.

    Args:
        costs: of each row, in any unit.
        num_processes: that share the rows.

    Returns:
        For each process, indices of rows; -1 stands for an empty row where they do not come out
        even, so that no process waits for another in the middle of a step.
    """
    num_each = -(-len(costs) // num_processes)
    shares: list[list[int]] = [[] for _ in range(num_processes)]
    loads = [0.0] * num_processes
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        open_ones = [p for p in range(num_processes) if len(shares[p]) < num_each]
        lightest = min(open_ones, key=lambda p: (loads[p], p))
        shares[lightest].append(index)
        loads[lightest] += costs[index]
    return [share + [-1] * (num_each - len(share)) for share in shares]


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """One row of samples.

    Returns:
        `input_ids`, `labels`, `position_ids` int64 [1, L], L a multiple of `LENGTH_STEP`, and with
        images `pixel_values` [T, 3, S, S] and `tile_grids` int64 [I, 3 or 5]. Padding at the end
        is a sample of its own without labels. No sample at all gives a row of padding.
    """
    length = sum(len(example.tensors["input_ids"]) for example in examples)
    padding = -length % LENGTH_STEP or (LENGTH_STEP if not examples else 0)
    pieces = [example.tensors for example in examples]
    empty = torch.zeros(padding, dtype=torch.long)
    row = {
        "input_ids": torch.cat([*(p["input_ids"] for p in pieces), empty]),
        "labels": torch.cat([*(p["labels"] for p in pieces), empty + IGNORED_LABEL]),
        "position_ids": torch.cat(
            [*(torch.arange(len(p["input_ids"])) for p in pieces), torch.arange(padding)]
        ),
    }
    tensors = {name: tensor[None] for name, tensor in row.items()}
    for name in ("pixel_values", "tile_grids"):
        if parts := [piece[name] for piece in pieces if name in piece]:
            tensors[name] = torch.cat(parts)
    return tensors


def counts(examples: Sequence[Example], num_positions: int) -> dict[str, int]:
    """What a row holds, for the meter: samples, tiles, text, visual and padding tokens."""
    sizes = [example.measured for example in examples]
    tokens = sum(size.num_tokens for size in sizes)
    visual = sum(size.num_visual_tokens for size in sizes)
    return {
        "samples": len(sizes),
        "tiles": sum(size.num_tiles for size in sizes),
        "text_tokens": tokens - visual,
        "visual_tokens": visual,
        "padding_tokens": num_positions - tokens,
    }
