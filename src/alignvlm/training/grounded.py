"""Grounded alignment: the connector learns to say the character under every cell of a page.

Cross-entropy between P_vocab (Eq. 1) and the characters of drawn pages. No LLM forward is needed,
so a step costs only the encoder. Unlike the paper, whose stage 1 reaches the connector through
the LLM's caption loss on 8.1 M image-text pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.connectors.align import Align
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.synth import KINDS, Font, Page, find_fonts, generate, text_tile
from alignvlm.synth.crop import random_crop
from alignvlm.synth.degrade import degrade
from alignvlm.synth.pdf_pages import PdfPages
from alignvlm.training.labels import IGNORED, cell_labels
from alignvlm.training.task import IndexedTask, Loss, Source

# The recogniser's weights already know letters: they move slower than the new layers.
TRUNK_RATE = 0.3


@dataclass(frozen=True, kw_only=True)
class GroundedMixture:
    """What the tiles show.

    Attributes:
        font_px: smallest and largest text of the dense tiles, in pixels per em.
        strength: of their degradations, 1 being a mediocre office scan.
        kinds: document kinds from which the other tiles are cut.
        document_share: how many those are.
        pdfs: folder of PDFs with a text layer, see `alignvlm.synth.pdf_pages`, or None.
        pdf_share: how many tiles are cut from their pages, if there are any.
    """

    font_px: tuple[int, int] = (12, 40)
    strength: float = 0.7
    kinds: tuple[str, ...] = KINDS
    document_share: float = 0.25
    pdfs: Path | None = None
    pdf_share: float = 0.2


class GroundedSource(Source):
    """Drawn tiles with their labels.

    Args:
        characters: what each row of the connector's vocabulary says; row 0 is "empty".
        geometry: of the encoder.
        seed: of the pages; pages of different seeds are unrelated.
    """

    def __init__(
        self,
        characters: Sequence[str],
        geometry: DocumentEncoderConfig,
        mixture: GroundedMixture,
        seed: int,
    ) -> None:
        self._words = {char: row for row, char in enumerate(characters) if row > 0}
        self._tile_px = geometry.tile_px
        self._grid = {
            "num_rows": geometry.num_rows,
            "num_columns": geometry.num_columns,
            "cell_height_px": geometry.cell_height_px,
            "cell_width_px": geometry.cell_width_px,
        }
        self._mixture = mixture
        self._seed = seed
        self._fonts: list[Font] | None = None
        self._pdfs = None if mixture.pdfs is None else PdfPages(mixture.pdfs, "train")

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Tile `index`: pixels uint8 [S, S, 3] and labels int64 [rows, columns]."""
        rng = Random(f"{self._seed}-{index}")
        page = self._page(rng)
        labels = cell_labels(page, self._words, **self._grid, empty=0)
        return np.asarray(page.image), labels

    def collate(self, samples: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
        """`pixel_values` uint8 [B, S, S, 3] and `labels` int64 [B, N]."""
        images, labels = zip(*samples, strict=True)
        return {
            "pixel_values": torch.from_numpy(np.stack(images)),
            "labels": torch.from_numpy(np.stack(labels)).flatten(1),
        }

    def _page(self, rng: Random) -> Page:
        if self._fonts is None:
            self._fonts = find_fonts("train")
        mixture = self._mixture
        if self._pdfs is not None and rng.random() < mixture.pdf_share:
            part = random_crop(self._pdfs.draw(rng), rng, self._tile_px)
            return degrade(part, rng, mixture.strength)
        if rng.random() >= mixture.document_share:
            return text_tile(rng, self._fonts, self._tile_px, mixture.font_px, mixture.strength)
        page = generate(rng.choice(mixture.kinds), rng.getrandbits(32), split="train")
        return random_crop(page, rng, self._tile_px)


class GroundedTask(IndexedTask):
    """Encoder and connector under the grounded cross-entropy."""

    def __init__(self, encoder: DocumentEncoder, connector: Align, source: GroundedSource) -> None:
        self._source = source
        self._module = nn.ModuleDict({"vision_model": encoder, "connector": connector})

    @property
    def module(self) -> nn.Module:
        """`vision_model` and `connector`."""
        return self._module

    @property
    def source(self) -> GroundedSource:
        """Drawn tiles."""
        return self._source

    def learning_rate_factor(self, name: str) -> float:
        """The pretrained trunk moves at `TRUNK_RATE`."""
        return TRUNK_RATE if name.startswith("vision_model.trunk.") else 1.0

    def part(self, name: str) -> str:
        """The trunk apart from the encoder's new layers."""
        return "trunk" if name.startswith("vision_model.trunk.") else name.partition(".")[0]

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of all labelled cells, empty ones included.

        The probabilities stay calibrated that way, and reading adds them up (model/reading.py).
        """
        pixels = batch["pixel_values"].permute(0, 3, 1, 2).float() / 127.5 - 1
        features = self._module["vision_model"](pixels).last_hidden_state
        logits = self._module["connector"].vocab_logits(features)
        labels = batch["labels"]
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        with torch.no_grad():
            says = logits.argmax(-1)
            text = labels > 0
            right = (says == labels)[text]
        weight = int((labels != IGNORED).sum())
        return Loss(loss, weight, {"accuracy": (float(right.sum()), float(right.numel()))})
