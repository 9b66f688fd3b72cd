"""What the default model's two stages train, small enough for 20 steps in a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
import torch
from tiny_task import tiny_config
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from alignvlm.connectors import Align
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.training.grounded import GroundedMixture, GroundedSource, GroundedTask
from alignvlm.training.instruct import (
    InstructMixture,
    InstructSource,
    InstructTask,
    PromptParts,
    add_lora,
)
from alignvlm.training.labels import IGNORED
from alignvlm.training.loop import train
from alignvlm.training.task import IndexedTask

CHARACTERS = ("\n", " ", *"abcd")
PARTS = PromptParts(before="<u>", between="\n", after="</u>", end="</a>\n")
# 4 rows of 8 cells: not square, so that rows cannot be taken for columns.
GEOMETRY = DocumentEncoderConfig(tile_px=32, hidden_size=12)


class ColouredCells(GroundedSource):
    """Each cell in the colour of its label, with noise; an eighth of the cells is ignored."""

    def __init__(self) -> None:
        super().__init__(CHARACTERS, GEOMETRY, GroundedMixture(), seed=0)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(index)
        words = rng.integers(0, len(CHARACTERS), (GEOMETRY.num_rows, GEOMETRY.num_columns))
        colours = np.random.default_rng(0).integers(60, 196, (len(CHARACTERS), 3))[words]
        pixels = colours.repeat(GEOMETRY.cell_height_px, 0).repeat(GEOMETRY.cell_width_px, 1)
        pixels = (pixels + rng.integers(-60, 60, pixels.shape)).astype(np.uint8)
        return pixels, np.where(rng.random(words.shape) < 0.125, IGNORED, words)


class CellEncoder(nn.Module):
    """One layer over the pixels of each cell: no cell sees another."""

    def __init__(self) -> None:
        super().__init__()
        cell = (GEOMETRY.cell_height_px, GEOMETRY.cell_width_px)
        self.trunk = nn.Conv2d(3, GEOMETRY.hidden_size, cell, stride=cell)
        self.mix = nn.Linear(GEOMETRY.hidden_size, GEOMETRY.hidden_size)

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        cells = self.trunk(pixel_values).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=self.mix(cells.tanh()))


def grounded_task() -> GroundedTask:
    """`CellEncoder` and ALIGN over six words."""
    torch.manual_seed(0)
    encoder = CellEncoder()
    return GroundedTask(encoder, Align(12, 16, len(CHARACTERS), gain=2.0), ColouredCells())


def document_task() -> GroundedTask:
    """The default model's own encoder, 3 M parameters, in the memory format of its stage."""
    torch.manual_seed(0)
    encoder = DocumentEncoder(GEOMETRY).to(memory_format=torch.channels_last)
    return GroundedTask(encoder, Align(12, 16, len(CHARACTERS), gain=2.0), ColouredCells())


class NumberedPages(InstructSource):
    """Pages of tokens with one to three questions; an answer repeats what stands on the page."""

    def __init__(self) -> None:
        super().__init__(
            Path(), PARTS, characters=CHARACTERS, cell_px=(8, 4),
            mixture=InstructMixture(kinds=(("easy", 1.0),)), seed=0,
        )  # fmt: skip

    def sample(self, index: int) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        rng = Random(index)
        page = [rng.randrange(8, 32) for _ in range(rng.randrange(4, 9))]
        asked = [rng.randrange(len(page) - 1) for _ in range(rng.randrange(1, 4))]
        return page, [([1, place], [*page[place : place + 2], 2]) for place in asked]


def language_model(initializer_range: float = 0.02) -> LlamaForCausalLM:
    """A Llama of 32 words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=initializer_range,
    )
    return LlamaForCausalLM(config).eval()


def instruct_task() -> InstructTask:
    """`language_model` with adapters of rank 2; needs peft."""
    # Weights large enough for an adapter of frozen layers to make a difference.
    return InstructTask(add_lora(language_model(0.3), rank=2, alpha=4), NumberedPages())


TASKS: Mapping[str, Callable[[], IndexedTask]] = {
    "grounded": grounded_task,
    "document": document_task,
    "instruct": instruct_task,
}
"""By name, so that another process can be told which."""


def run_stage(name: str, run: Path, *, killed_at: int = 0, stopped_at: int = 0) -> IndexedTask:
    """Up to 20 steps of a task, going on from the last tenth; SIGKILL or SIGTERM after a step."""
    torch.set_num_threads(1)
    task = TASKS[name]()

    def on_step(step: int) -> None:
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == stopped_at:
            signal.raise_signal(signal.SIGTERM)

    train(task, tiny_config(batch_size=2, checkpoint_every=10), run, on_step=on_step)
    return task


def killed_stage(name: str, step: int, run: Path) -> None:
    """Ends after so many steps; what `warm.start` calls."""
    run_stage(name, run, killed_at=step)
