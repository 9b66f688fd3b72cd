from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignvlm.connectors import Align
from alignvlm.evaluation.encoder import BANDS_PX, _page, cell_rows, measure_encoder
from alignvlm.evaluation.report import summarise
from alignvlm.imaging.tiling import TileGrid, Tiling
from alignvlm.model.characters import CANDIDATES
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.training.labels import cell_labels

CHARACTERS = list(CANDIDATES)


class _Oracle:
    """Encoder and connector that say what the labels of the last page were, moved by `shift`."""

    dtype = torch.float32

    def __init__(self, shift: int) -> None:
        self.config = DocumentEncoderConfig(tile_px=192)
        self._shift = shift

    def label(self, page: Any, **options: Any) -> np.ndarray:
        self._labels = cell_labels(page, **options)
        return self._labels

    def __call__(self, pixels: Tensor, grids: list[tuple[int, int]]) -> SimpleNamespace:
        assert pixels.shape == (1, 3, 192, 192)
        assert pixels.min() >= -1
        assert pixels.max() <= 1
        return SimpleNamespace(last_hidden_state=pixels)

    def probabilities(self, features: Tensor) -> Tensor:
        said = np.roll(np.maximum(self._labels, 0), self._shift, axis=1)
        return torch.eye(len(CHARACTERS))[torch.from_numpy(said).flatten()][None]


def _rows(shift: int) -> list[dict[str, Any]]:
    oracle = _Oracle(shift)
    return list(cell_rows(oracle, oracle, CHARACTERS, oracle.label, 1, 0))


def test_an_oracle_reads_every_cell() -> None:
    rows = _rows(0)
    assert [(tuple(row["band_px"]), row["degraded"]) for row in rows] == [
        (band, degraded) for band in BANDS_PX for degraded in (False, True)
    ]
    for row in rows:
        for name in ("text", "spaces", "empty"):
            assert row[f"{name}_right"] == row[name]
    assert sum(row["text"] for row in rows) > 100
    assert sum(row["spaces"] for row in rows) > 10


def test_a_reader_one_cell_off_is_near_and_not_right() -> None:
    rows = _rows(1)
    text = sum(row["text"] for row in rows)
    assert sum(row["text_right"] for row in rows) < 0.1 * text
    # Cells at the border roll round to the other side.
    assert sum(row["text_near"] for row in rows) > 0.9 * text


def test_cells_of_tiles_are_put_together_row_by_row() -> None:
    grid = TileGrid(rows=2, cols=3, thumbnail=False)
    probs = torch.arange(6 * 8 * 2, dtype=torch.float32).reshape(6, 8, 2)
    page = _page(probs, grid, 2, 4)
    assert page.shape == (4, 12, 2)
    for row in range(4):
        for column in range(12):
            tile = row // 2 * 3 + column // 4
            cell = row % 2 * 4 + column % 4
            assert (page[row, column] == probs[tile, cell].numpy()).all()


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    encoder = DocumentEncoder(DocumentEncoderConfig(tile_px=128, hidden_size=16)).eval()
    connector = Align(16, 8, len(CHARACTERS), vocabulary=range(len(CHARACTERS)), gain=4.0).eval()
    return measure_encoder(
        encoder,
        connector,
        CHARACTERS,
        cell_labels,
        tiling=Tiling(tile_px=128, layout="canvas", max_upscale=1.0),
        kinds=("easy",),
        num_tiles=1,
        num_pages=2,
        seed=5,
        strength=0.5,
    )


def test_an_untrained_encoder_is_measured_whole(measured: list[dict[str, Any]]) -> None:
    summary = summarise(measured)
    assert summary["patches"]["clean"]["14-34 px"]["accuracy"]["value"] < 0.3
    assert summary["character_error"]["alignvlm"]["easy"]["value"] > 0.5
    assert summary["character_error"]["alignvlm"]["easy"]["num_units"] == 2


def test_pages_come_from_the_seeds_and_the_held_out_half(measured: list[dict[str, Any]]) -> None:
    from alignvlm.synth.generate import generate

    readings = [row for row in measured if row["row"] == "reading"]
    for number, row in enumerate(readings):
        assert row["seed"] == 5 + number
        assert row["truth"] == generate("easy", 5 + number, "heldout").text
