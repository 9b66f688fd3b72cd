"""Where the tiles of grounded alignment come from; the loss is tested by the golden run."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from alignvlm.errors import InputError
from alignvlm.model.document_encoder import DocumentEncoderConfig
from alignvlm.synth import generate
from alignvlm.synth.page import Page
from alignvlm.training import grounded
from alignvlm.training.grounded import GroundedMixture, GroundedSource

CHARACTERS = ["\n", " ", *"abcdefghijklmnopqrstuvwxyz"]


def source(pdfs: Path | None, share: float = 0.2) -> GroundedSource:
    mixture = GroundedMixture(pdfs=pdfs, pdf_share=share)
    return GroundedSource(CHARACTERS, DocumentEncoderConfig(), mixture, seed=3)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """Drawn letters in the place of PDF pages, and which were asked for."""
    drawn: list[Page] = []

    class Letters:
        def __init__(self, folder: Path, split: str) -> None:
            assert split == "train"

        def draw(self, rng: Random) -> Page:
            drawn.append(generate("letter", rng.randrange(100), "train"))
            return drawn[-1]

    monkeypatch.setattr(grounded, "PdfPages", Letters)
    return drawn


def test_tiles_are_cut_from_pdf_pages(letters: list[Page], tmp_path: Path) -> None:
    pixels, labels = source(tmp_path, share=1.0).sample(5)
    assert len(letters) == 1
    assert pixels.shape == (384, 384, 3)
    assert pixels.dtype == np.uint8
    assert (labels > 0).any()
    again, _ = source(tmp_path, share=1.0).sample(5)
    assert np.array_equal(pixels, again)


def test_a_share_of_the_tiles_is(letters: list[Page], tmp_path: Path) -> None:
    mixed = source(tmp_path, share=0.3)
    for index in range(40):
        mixed.sample(index)
    assert 4 <= len(letters) <= 20


def test_without_pdfs_nothing_changes() -> None:
    pixels, labels = source(None).sample(7)
    other, other_labels = source(None, share=1.0).sample(7)
    assert np.array_equal(pixels, other)
    assert np.array_equal(labels, other_labels)


def test_a_folder_without_pdfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No PDF of the train split"):
        source(tmp_path)
