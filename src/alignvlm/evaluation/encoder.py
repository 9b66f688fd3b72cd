"""How well an encoder and its ALIGN connector read, without any language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alignvlm.connectors.align import Align
from alignvlm.evaluation.metrics import character_edits
from alignvlm.imaging.tiling import TileGrid, Tiling, split
from alignvlm.model.document_encoder import DocumentEncoder
from alignvlm.model.reading import EMPTY_ROW, read
from alignvlm.synth.fonts import find_fonts
from alignvlm.synth.generate import generate
from alignvlm.synth.lines import text_tile
from alignvlm.synth.page import Page

LabelCells = Callable[..., NDArray[np.int64]]
"""`alignvlm.training.labels.cell_labels`: which character each cell of a drawn page holds.

Evaluation and training do not know each other, so the caller, who knows both, brings it.
"""

Row = dict[str, Any]
"""One line of the predictions' JSONL."""

BANDS_PX = ((14, 18), (19, 24), (25, 34))
"""Text sizes, in px per em, for which patch accuracy is told apart."""


def measure_encoder(
    encoder: DocumentEncoder,
    connector: Align,
    characters: Sequence[str],
    label_cells: LabelCells,
    *,
    tiling: Tiling,
    kinds: Sequence[str],
    num_tiles: int,
    num_pages: int,
    seed: int,
    strength: float,
) -> list[Row]:
    """Rows of patch accuracy and of page readings, e.g. of a training checkpoint.

    Args:
        encoder: the vision encoder.
        connector: as trained with it.
        characters: what each of the connector's words says; the first is "empty".
        label_cells: see `LabelCells`.
        tiling: how pages become tiles; layout "canvas".
        kinds: document kinds of the pages.
        num_tiles: for each text size, as many clean as degraded.
        num_pages: for each kind.
        seed: of the first tile and the first page of each kind.
        strength: of the pages' degradations.

    Returns:
        Rows for `alignvlm.evaluation.report.summarise`.
    """
    rows = list(cell_rows(encoder, connector, characters, label_cells, num_tiles, seed))
    for kind in kinds:
        for number in range(num_pages):
            page = generate(kind, seed + number, "heldout", strength)
            text = read_page(encoder, connector, characters, page.image, tiling)
            rows.append(reading_row("alignvlm", page, text))
    return rows


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
                page = text_tile(rng, fonts, geometry.tile_px, band, strength)
                labels = label_cells(page, **options)
                tile = np.asarray(page.image)[None]
                grid = TileGrid(rows=1, cols=1, thumbnail=False)
                says = page_probabilities(encoder, connector, tile, grid).argmax(-1)
                yield {
                    "row": "cells",
                    "band_px": list(band),
                    "degraded": strength > 0,
                    "seed": seed + number,
                    **_count(labels, says, space),
                }


def read_page(
    encoder: DocumentEncoder,
    connector: Align,
    characters: Sequence[str],
    image: Image.Image,
    tiling: Tiling,
) -> str:
    """The text of a page, read off P_vocab."""
    tiles, grid = split(image, tiling)
    return read(page_probabilities(encoder, connector, tiles, grid), characters).text


@torch.no_grad()
def page_probabilities(
    encoder: DocumentEncoder, connector: Align, tiles: NDArray[np.uint8], grid: TileGrid
) -> NDArray[np.float32]:
    """P_vocab of a page's cells, float32 [rows, columns, V'], for tiles uint8 [T, S, S, 3]."""
    pixels = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)))
    pixels = (pixels.float() / 127.5 - 1).to(encoder.dtype)
    features = encoder(pixels, grids=[(grid.rows, grid.cols)]).last_hidden_state
    probs = connector.probabilities(features)
    return _page(probs, grid, encoder.config.num_rows, encoder.config.num_columns)


def reading_row(system: str, page: Page, text: str) -> Row:
    """What was read of a page beside what stands on it."""
    edits, length = character_edits(text, page.text)
    return {
        "row": "reading",
        "system": system,
        "kind": page.kind,
        "seed": page.seed,
        "read": text,
        "truth": page.text,
        "edits": edits,
        "length": length,
    }


def _page(probs: Tensor, grid: TileGrid, rows: int, columns: int) -> NDArray[np.float32]:
    """[T, N, V'] in tile order -> [rows of the page, columns of the page, V']."""
    tiles = probs.float().unflatten(0, (grid.rows, grid.cols)).unflatten(2, (rows, columns))
    page: NDArray[np.float32] = tiles.transpose(1, 2).flatten(2, 3).flatten(0, 1).numpy()
    return page


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
