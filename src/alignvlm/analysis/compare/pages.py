"""Held-out pages with one question each: what a comparison is scored on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from alignvlm.data.sample import Sample
from alignvlm.data.sources import open_source
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.configuration import RunConfig
from alignvlm.training.encoding import Encoder

__all__ = [
    "TEST_SEED",
    "VALIDATION_SEED",
    "Asked",
    "Prepared",
    "batches",
    "draw_pages",
    "exchanged",
    "padded",
    "prepare",
]

TEST_SEED: Final = 1_000_000_000
VALIDATION_SEED: Final = 2_000_000_000
"""Seeds of the first pages. Both are of the split that training never draws from; the two ranges
are further apart than a comparison has pages."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A page with its question and the accepted answer."""

    key: str
    question: str
    answer: str
    sample: Sample

    @property
    def image(self) -> Image.Image:
        """The page's picture."""
        return self.sample.images[0].load()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A page as a model reads it.

    Attributes:
        number: of the page, from 0; its noise depends on it.
        ids, labels: int64 [L], the whole conversation.
        num_prompt: ids before the answer.
        pixel_values: [T, 3, S, S].
        tile_grids: int64 [1, 3].
    """

    number: int
    ids: Tensor
    labels: Tensor
    num_prompt: int
    pixel_values: Tensor
    tile_grids: Tensor


def draw_pages(recipe: RunConfig, first_seed: int, num_pages: int) -> list[Asked]:
    """Pages of the recipe's kinds, in fonts and layouts that training never sees."""
    sources: list[Any] = []
    for part in recipe.data:
        held_out = {"split": "heldout", "seed": first_seed, "one_question": True}
        sources.append(open_source(part.source, part.path, {**part.options, **held_out}))
    found = []
    for number in range(num_pages):
        # Sources take turns, and each goes on where it was: all of its kinds come up.
        turn, place = divmod(number, len(sources))[::-1]
        sample = sources[turn].read(place)
        texts = [_text(message) for message in sample.messages]
        found.append(Asked(key=sample.key, question=texts[0], answer=texts[1], sample=sample))
    return found


def exchanged(pages: Sequence[Asked]) -> list[Asked]:
    """The same questions, each beside the next page's picture: what is left is guessing."""
    others = [*pages[1:], *pages[:1]]
    return [
        replace(page, sample=replace(page.sample, images=other.sample.images))
        for page, other in zip(pages, others, strict=True)
    ]


def prepare(
    pages: Sequence[Asked], processor: AlignVLMProcessor, recipe: RunConfig
) -> list[Prepared]:
    """The tensors of pages, encoded as in training."""
    encoder = Encoder(processor, replace(recipe.batches, too_long="error"))
    found = []
    for number, page in enumerate(pages):
        tensors = encoder.encode(page.sample, encoder.measure(page.sample)).tensors
        learned = (tensors["labels"] != IGNORED_LABEL).nonzero()
        found.append(
            Prepared(
                number=number, ids=tensors["input_ids"], labels=tensors["labels"],
                num_prompt=int(learned[0]), pixel_values=tensors["pixel_values"],
                tile_grids=tensors["tile_grids"],
            )
        )  # fmt: skip
    return found


def batches(pages: Sequence[Prepared], size: int) -> Iterator[list[Prepared]]:
    """Consecutive pages in groups."""
    for start in range(0, len(pages), size):
        yield list(pages[start : start + size])


def padded(rows: Sequence[Tensor], value: int, *, left: bool) -> Tensor:
    """Rows of several lengths as one matrix [B, L]."""
    longest = max(len(row) for row in rows)
    return torch.stack(
        [
            torch.nn.functional.pad(row, (gap, 0) if left else (0, gap), value=value)
            for row in rows
            for gap in [longest - len(row)]
        ]
    )


def _text(message: Any) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
