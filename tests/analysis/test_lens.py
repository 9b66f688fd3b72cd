"""The lens: its numbers against NumPy, its boxes against the tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from alignvlm.analysis import PageLens, look
from alignvlm.analysis import lens as lens_module
from alignvlm.analysis.lens import _places
from alignvlm.connectors.align import Align
from alignvlm.errors import UsageError
from alignvlm.imaging.tiling import Tiling, choose_grid, split


def test_words_and_entropies_are_those_of_the_connector(patches: Any) -> None:
    lens, probs = patches
    assert lens.num_cells == len(probs) == 5 * 4
    assert [tile.thumbnail for tile in lens.tiles] == [True, False, False, False, False]
    order = np.argsort(-probs, axis=1)[:, :5]
    expected = np.take_along_axis(probs, order, axis=1)
    np.testing.assert_allclose(lens.probabilities, expected, rtol=1e-4, atol=1e-7)
    found = np.take_along_axis(probs, lens.word_ids, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(lens.entropy, -(probs * np.log(probs)).sum(1), rtol=1e-4)
    assert lens.num_words == 264
    assert lens.lines is None
    assert lens.text is None


def test_words_are_decoded_by_the_tokenizer(patches: Any, lens_tokenizer: Any) -> None:
    lens, _ = patches
    assert set(lens.words) == set(lens.word_ids.flatten().tolist())
    for token_id, word in lens.words.items():
        assert word == lens_tokenizer.decode([token_id])


def test_chunks_do_not_change_what_is_said(patches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = Align(6, 8, 40).eval()
    features = torch.randn(9, 6)
    with torch.no_grad():
        whole = lens_module._say(connector, features, keep_all=True)
        monkeypatch.setattr(lens_module, "_CHUNK", 80)  # two cells at a time
        pieces = lens_module._say(connector, features, keep_all=True)
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)
    assert whole[3].shape == (9, 40)


def test_text_is_read_and_its_characters_lie_where_they_were_said(reader: PageLens) -> None:
    assert reader.text == "Hi\nno"
    assert reader.grid == (8, 16)
    # Twice enlarged, a cell of 8 x 4 px covers 4 x 2 px of the page.
    corners = [tuple(reader.boxes[cell][:2]) for line in reader.lines for cell in line.cells]
    assert corners == [(30, 12), (34, 12), (36, 48), (40, 48)]
    for line in reader.lines:
        for char, cell, share in zip(line.text, line.cells, line.probabilities, strict=True):
            assert reader.words[int(reader.word_ids[cell, 0])] == char
            assert 0.9 < share <= 1
            assert not reader.blank[cell]
    assert reader.blank.sum() == reader.num_cells - 4


def test_cells_below_the_page_have_no_area(reader: PageLens) -> None:
    assert reader.image.mode == "RGB"
    left, top, right, bottom = reader.boxes[reader.on_page].T.astype(float)
    assert reader.on_page.sum() == 15 * 32  # 60 of 64 px
    assert ((right - left) * (bottom - top)).sum() == pytest.approx(64 * 60)


def test_a_model_that_does_not_say_words_is_refused(
    without_words: Any, noise_page: Callable[[int, int], Image.Image]
) -> None:
    model, processor = without_words
    with pytest.raises(UsageError, match="The connector MLP has no probabilities over words"):
        look(model, processor, noise_page(30, 30))


@given(
    width=st.integers(12, 250),
    height=st.integers(12, 250),
    layout=st.sampled_from(["cells", "canvas"]),
    tile_px=st.sampled_from([48, 64]),
    data=st.data(),
)
def test_boxes_lie_where_the_tiles_were_cut(
    width: int, height: int, layout: Any, tile_px: int, data: st.DataObject
) -> None:
    """On a page whose colours are its coordinates, tiles say where each of their pixels is from."""
    tiling = Tiling(tile_px=tile_px, layout=layout)
    page = np.zeros((height, width, 3), dtype=np.uint8)
    page[..., 0] = np.arange(width)
    page[..., 1] = np.arange(height)[:, None]
    page[..., 2] = 255
    tiles, grid = split(Image.fromarray(page), tiling)
    places = _places((width, height), tiling, choose_grid(width, height, tiling), (8, 4))
    assert len(places) == len(tiles) == grid.num_tiles
    index = data.draw(st.integers(0, len(tiles) - 1))
    row = data.draw(st.integers(0, tile_px // 8 - 1))
    column = data.draw(st.integers(0, tile_px // 4 - 1))
    place = places[index]
    x = place.x + (column + 0.5) * place.cell_width
    y = place.y + (row + 0.5) * place.cell_height
    left, top, right, bottom = place.part
    # The filters of `split` blur over a few pixels at the border of a tile's part.
    border = 3 * max(1.0, place.cell_width / 4)
    if not (left + border < x < right - border and top + border < y < bottom - border):
        return
    pixel = tiles[index, row * 8 + 3 : row * 8 + 5, column * 4 + 1 : column * 4 + 3].mean((0, 1))
    tolerance = 1 + place.cell_width / 4
    assert abs(pixel[0] + 0.5 - x) <= tolerance
    assert abs(pixel[1] + 0.5 - y) <= tolerance
