from __future__ import annotations

from random import Random

import numpy as np
import pytest
from PIL import Image

from alignvlm.synth.degrade import degrade, degrade_image, skew
from alignvlm.synth.fonts import Font
from alignvlm.synth.page import Canvas, Page


@pytest.fixture(scope="module")
def page(fonts: list[Font]) -> Page:
    canvas = Canvas(320, 200)
    for row in range(3):
        canvas.text(20, 50 + 50 * row, "Degrade 0123", fonts[0], 28)
    return canvas.finish("tile", 0, fonts[0])


def test_strength_zero_changes_nothing(page: Page) -> None:
    for seed in range(20):
        same = degrade(page, Random(seed), strength=0.0)
        assert same.image.tobytes() == page.image.tobytes()
        assert same.lines == page.lines


def test_seeded_and_most_seeds_change_something(page: Page) -> None:
    made = [degrade(page, Random(seed)).image.tobytes() for seed in range(30)]
    assert made == [degrade(page, Random(seed)).image.tobytes() for seed in range(30)]
    assert sum(image != page.image.tobytes() for image in made) > 15
    assert len(set(made)) > 15


def test_picture_degradations_move_nothing(page: Page) -> None:
    """Ink stays where it was: the degraded picture correlates best with the clean one in place."""
    clean = np.asarray(page.image.convert("L"), dtype=float)
    for seed in range(25):
        image = degrade_image(page.image, Random(seed), strength=1.0)
        assert (image.size, image.mode) == (page.image.size, "RGB")
        grey = np.asarray(image.convert("L"), dtype=float)
        scores = {
            (dx, dy): np.corrcoef(np.roll(grey, (dy, dx), (0, 1)).ravel(), clean.ravel())[0, 1]
            for dx in (-2, 0, 2)
            for dy in (-2, 0, 2)
        }
        assert max(scores, key=scores.__getitem__) == (0, 0)
        assert scores[0, 0] > 0.8


def test_no_skew_keeps_boxes(page: Page) -> None:
    turned = skew(page, 0.0)
    for before, after in zip(page.lines, turned.lines, strict=True):
        assert np.allclose(before.box, after.box)
        assert after.baseline_px == pytest.approx(before.baseline_px)


def test_skew_fills_corners_with_the_paper(fonts: list[Font]) -> None:
    blank = Canvas(200, 100, paper=(10, 20, 30)).finish("tile", 0, fonts[0])
    assert isinstance(blank.image, Image.Image)
    assert skew(blank, 1.5).image.getcolors() == [(200 * 100, (10, 20, 30))]
