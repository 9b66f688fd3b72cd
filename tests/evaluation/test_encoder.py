from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignvlm.connectors import Align
from alignvlm.evaluation.encoder import BANDS_PX, cell_rows, reading_row
from alignvlm.evaluation.report import summarise
from alignvlm.model.characters import CANDIDATES
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.synth.generate import generate
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


def test_an_untrained_encoder_is_measured_whole() -> None:
    torch.manual_seed(0)
    encoder = DocumentEncoder(DocumentEncoderConfig(tile_px=128, hidden_size=16)).eval()
    connector = Align(16, 8, len(CHARACTERS), vocabulary=range(len(CHARACTERS)), gain=4.0).eval()
    rows = list(cell_rows(encoder, connector, CHARACTERS, cell_labels, 1, 5))
    assert {row["seed"] for row in rows} == {5}
    assert summarise(rows)["patches"]["clean"]["14-34 px"]["accuracy"]["value"] < 0.3


def test_a_reading_is_scored_in_order_and_out_of_it() -> None:
    page = replace(generate("easy", 5, "heldout"), lines=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(page), "text", "left right")
        row = reading_row("alignvlm", page, "right left")
    assert (row["kind"], row["seed"], row["truth"]) == ("easy", 5, "left right")
    assert row["edits"] > 0
    assert (row["shared"], row["both_lengths"]) == (18, 18)
