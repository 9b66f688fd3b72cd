"""How well an encoder and its ALIGN connector read, without any language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignvlm.connectors.align import Align
from alignvlm.evaluation.metrics import character_edits, character_overlap
from alignvlm.model.document_encoder import DocumentEncoder
from alignvlm.model.reading import EMPTY_ROW
from alignvlm.synth.fonts import find_fonts
from alignvlm.synth.lines import text_tile
from alignvlm.synth.page import Page

LabelCells = Callable[..., NDArray[np.int64]]
"""`alignvlm.training.labels.cell_labels`: which character each cell of a drawn page holds.

Evaluation and training do not know each other, so the caller, who knows both, brings it.
"""

Row = dict[str, Any]
"""One line of the predictions' JSONL."""

PDF_KIND = "pdf (held-out packages)"
"""Pages of real PDFs, which are read and not asked about: nobody wrote questions for them."""

BANDS_PX = ((14, 18), (19, 24), (25, 34))
"""Text sizes, in px per em, for which patch accuracy is told apart."""


def cell_rows(
    encoder: DocumentEncoder,
    connector: Align,
    characters: Sequence[str],
    label_cells: LabelCells,
    num_tiles: int,
    seed: int,
) -> Iterator[Row]:
    """Right and wrong cells of dense tiles in held-out fonts, a row for each tile."""
    fonts = find_fonts("heldout")
    geometry = encoder.config
    options = {
        "words": {char: word for word, char in enumerate(characters) if word != EMPTY_ROW},
        "num_rows": geometry.num_rows,
        "num_columns": geometry.num_columns,
        "cell_height_px": geometry.cell_height_px,
        "cell_width_px": geometry.cell_width_px,
        "empty": EMPTY_ROW,
    }
    space = list(characters).index(" ")
    for band in BANDS_PX:
        for strength in (0.0, 1.0):
            for number in range(num_tiles):
                rng = Random(f"measure/{seed + number}/{band}/{strength}")
                page = text_tile(rng, fonts, geometry.tile_px, band, strength, "heldout")
                labels = label_cells(page, **options)
                says = _said(encoder, connector, np.asarray(page.image))
                yield {
                    "row": "cells",
                    "band_px": list(band),
                    "degraded": strength > 0,
                    "seed": seed + number,
                    **_count(labels, says, space),
                }


@torch.no_grad()
def _said(encoder: DocumentEncoder, connector: Align, tile: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The most probable word of each cell [rows, columns] of a tile uint8 [S, S, 3]."""
    pixels = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None]
    pixels = (pixels.float() / 127.5 - 1).to(encoder.dtype)
    features = encoder(pixels, grids=[(1, 1)]).last_hidden_state
    words = connector.probabilities(features)[0].argmax(-1)
    said: NDArray[np.int64] = words.reshape(encoder.config.num_rows, -1).numpy()
    return said


def reading_row(system: str, page: Page, text: str) -> Row:
    """What was read of a page beside what stands on it."""
    edits, length = character_edits(text, page.text)
    shared, both_lengths = character_overlap(text, page.text)
    return {
        "row": "reading",
        "system": system,
        "kind": page.kind,
        "seed": page.seed,
        "read": text,
        "truth": page.text,
        "edits": edits,
        "length": length,
        "shared": shared,
        "both_lengths": both_lengths,
    }


def _count(labels: NDArray[np.int64], says: NDArray[np.int64], space: int) -> dict[str, int]:
    """Cells of a tile by what they hold and whether it was said.

    `text` cells hold a character with ink. `near` counts those whose character is said there or
    in the cell to the left or right, which is enough for reading. Cells that the labels leave out
    count nowhere.
    """
    text = (labels > 0) & (labels != space)
    right = labels == says
    padded = np.pad(says, ((0, 0), (1, 1)), constant_values=EMPTY_ROW)
    near = right | (labels == padded[:, :-2]) | (labels == padded[:, 2:])
    spaces, empty = labels == space, labels == EMPTY_ROW
    return {
        "text_right": int((right & text).sum()),
        "text_near": int((near & text).sum()),
        "text": int(text.sum()),
        "spaces_right": int((right & spaces).sum()),
        "spaces": int(spaces.sum()),
        "empty_right": int((right & empty).sum()),
        "empty": int(empty.sum()),
    }
