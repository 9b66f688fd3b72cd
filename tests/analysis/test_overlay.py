"""Words drawn over the picture of a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from alignvlm.analysis import PageLens, draw_overlay

Make = Callable[..., PageLens]


def test_the_overlay_draws_words_at_their_cells_and_nothing_else(made_lens: Make) -> None:
    lens = made_lens(Image.new("RGB", (200, 300), "white"), {1: "\n", 2: "X", 3: "y"})
    lens.word_ids[45] = (2, 1, 3)
    picture = draw_overlay(lens)
    assert picture.size == (400, 600)
    ink = np.asarray(picture).min(axis=2) < 200
    rows, columns = np.nonzero(ink)
    assert abs((rows.min() + rows.max()) / 2 - 4.5 * 60) < 8
    assert abs((columns.min() + columns.max()) / 2 - 5.5 * 40) < 8


def test_the_overlay_is_blue_where_it_is_sure_and_red_where_it_is_not(made_lens: Make) -> None:
    def colour(share: float) -> np.ndarray:
        lens = made_lens(Image.new("RGB", (100, 100), "white"), {1: "\n", 2: "X"})
        lens.word_ids[55] = (2, 1)
        lens.probabilities[55] = (share, 0.05)
        pixels = np.asarray(draw_overlay(lens)).reshape(-1, 3)
        return pixels[pixels.sum(axis=1).argmin()].astype(int)

    sure, unsure = colour(0.99), colour(0.3)
    assert sure[2] > sure[0]
    assert unsure[0] > unsure[2]
    assert colour(0.05).min() == 255  # too improbable to be drawn


def test_a_thumbnail_is_not_drawn_twice(patches: Any, lens_with: Make) -> None:
    lens, _ = patches
    only_thumbnail = np.where(np.arange(lens.num_cells)[:, None] < 4, lens.probabilities, 0)
    silent = lens_with(lens, probabilities=only_thumbnail.astype(np.float32))
    empty = lens_with(lens, probabilities=np.zeros_like(lens.probabilities))
    assert draw_overlay(silent).tobytes() == draw_overlay(empty).tobytes()
