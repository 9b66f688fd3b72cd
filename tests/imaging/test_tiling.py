from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from alignvlm.errors import ConfigurationError, InputError
from alignvlm.imaging.tiling import (
    TileGrid,
    Tiling,
    choose_grid,
    num_tiles,
    page_scale,
    split,
    tile_boxes,
)

CELLS = Tiling()
CANVAS = Tiling(layout="canvas", max_upscale=2.0)
ANYRES = Tiling(layout="anyres", pad_value=0)


def reference_grid(width: int, height: int, side: int, limit: int, threshold: float) -> set:
    """The rule said plainly in float64: every grid that is best up to rounding."""
    rated = []
    for rows in range(1, limit + 1):
        for cols in range(1, limit // rows + 1):
            kept = 0.0
            for row in range(rows):
                for col in range(cols):
                    y0, x0 = row * (height // rows), col * (width // cols)
                    y1 = height if row == rows - 1 else y0 + height // rows
                    x1 = width if col == cols - 1 else x0 + width // cols
                    shrink = min(1.0, side / max(x1 - x0, y1 - y0, 1))
                    kept += (x1 - x0) * (y1 - y0) * shrink**2
            rated.append((kept / (width * height), rows, cols))
    good = [r for r in rated if r[0] > threshold + 1e-9]
    if good:
        fewest = min(rows * cols for _, rows, cols in good)
        rated = [r for r in good if r[1] * r[2] == fewest]
    best = max(ratio for ratio, _, _ in rated)
    tied = [r for r in rated if r[0] > best - 1e-9]
    fewest = min(rows * cols for _, rows, cols in tied)
    return {(rows, cols) for _, rows, cols in tied if rows * cols == fewest}


@pytest.mark.parametrize(
    ("width", "height", "rows", "cols", "tiles"),
    [
        (384, 384, 1, 1, 1),
        (1, 1, 1, 1, 1),
        (1, 2, 1, 1, 1),
        (640, 480, 2, 2, 5),
        (1240, 1754, 3, 3, 10),  # A4 at 150 dpi
        (1700, 2200, 3, 3, 10),  # US letter at 200 dpi
        (2550, 3300, 3, 3, 10),  # US letter at 300 dpi
        (3000, 1000, 2, 4, 9),
        (1000, 3000, 4, 2, 9),
        (384, 3456, 9, 1, 10),  # 1:9 strip
        (3456, 384, 1, 9, 10),
        (100, 900, 3, 1, 4),  # 1:9 strip of three 300 px cells
        (768, 768, 2, 2, 5),
        (1152, 1152, 3, 3, 10),
    ],
)
def test_cells_grid_by_hand(width: int, height: int, rows: int, cols: int, tiles: int) -> None:
    assert choose_grid(width, height, CELLS) == TileGrid(rows=rows, cols=cols, thumbnail=tiles > 1)
    assert num_tiles(width, height, CELLS) == tiles


@pytest.mark.parametrize(
    ("width", "height", "max_tiles", "rows", "cols", "scale"),
    [
        (384, 384, 9, 2, 2, 2.0),  # enlarged twice
        (192, 192, 9, 1, 1, 2.0),
        (1, 1, 9, 1, 1, 2.0),
        (640, 480, 9, 3, 3, 1.8),  # width is the limit: 3 * 384 / 640
        (640, 480, 4, 2, 2, 1.2),
        (640, 480, 6, 2, 3, 1.6),  # height is the limit: 2 * 384 / 480
        (1240, 1754, 9, 3, 3, 1152 / 1754),
        (1240, 1754, 12, 4, 3, 1536 / 1754),
        (384, 3456, 9, 9, 1, 1.0),
        (3000, 1000, 9, 2, 4, 1536 / 3000),
        (76800, 384, 9, 1, 9, 3456 / 76800),
    ],
)
def test_canvas_grid_by_hand(
    width: int, height: int, max_tiles: int, rows: int, cols: int, scale: float
) -> None:
    tiling = Tiling(layout="canvas", max_tiles=max_tiles, max_upscale=2.0)
    assert choose_grid(width, height, tiling) == TileGrid(rows=rows, cols=cols, thumbnail=False)
    assert page_scale(width, height, tiling) == pytest.approx(scale)


@pytest.mark.parametrize(
    ("width", "height", "rows", "cols"),
    [
        (384, 384, 1, 1),
        (1, 1, 1, 1),
        (385, 384, 1, 2),
        (384, 385, 2, 1),
        (640, 480, 2, 2),
        (512, 384, 1, 2),
        (1240, 1754, 5, 4),  # A4 at 150 dpi: fits into 1536 x 1920
        (1700, 2200, 6, 5),  # US letter at 200 dpi: shown at 1780 x 2304
        (3000, 1000, 2, 6),
        (384, 3456, 6, 1),  # 9 tiles long, and six is the limit
        (10_000, 10_000, 6, 6),
        (1, 5000, 1, 1),  # nothing is shown on any canvas: the smallest
    ],
)
def test_anyres_grid_by_hand(width: int, height: int, rows: int, cols: int) -> None:
    grid = choose_grid(width, height, ANYRES)
    assert grid == TileGrid(rows=rows, cols=cols, thumbnail=True, page_px=(height, width))
    assert num_tiles(width, height, ANYRES) == rows * cols + 1
    assert grid.as_row() == [rows, cols, 1, height, width]
    assert TileGrid.from_row(grid.as_row()) == grid


def test_rows_of_other_layouts_have_no_page() -> None:
    grid = choose_grid(640, 480, CELLS)
    assert grid.as_row() == [2, 2, 1]
    assert TileGrid.from_row([2, 2, 1]) == grid


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    sides=st.integers(1, 7),
    limit=st.none() | st.integers(1, 40),
    tile_px=st.sampled_from([28, 336, 384]),
)
def test_anyres_grid_is_llavas(
    width: int, height: int, sides: int, limit: int | None, tile_px: int
) -> None:
    tiling = Tiling(layout="anyres", tile_px=tile_px, max_side_tiles=sides, max_grid_tiles=limit)
    grid = choose_grid(width, height, tiling)
    allowed = [
        [i * tile_px, j * tile_px]
        for i in range(1, sides + 1)
        for j in range(1, sides + 1)
        if limit is None or i * j <= limit
    ]
    expected = select_best_resolution((height, width), allowed)
    assert (grid.rows * tile_px, grid.cols * tile_px) == expected
    assert grid.rows * grid.cols <= tiling.largest_grid == min(sides**2, limit or sides**2)


@pytest.mark.parametrize(
    ("tiling", "limit", "largest"),
    [
        (CELLS, 4, 4), (CELLS, 20, 9), (CANVAS, 1, 1), (ANYRES, 100, 36), (ANYRES, 20, 20),
        (Tiling(layout="anyres", max_side_tiles=2), 9, 4),
        (Tiling(layout="anyres", max_grid_tiles=7), 9, 7),
    ],
)  # fmt: skip
def test_a_limit_is_a_grids(tiling: Tiling, limit: int, largest: int) -> None:
    limited = tiling.limited(limit)
    assert limited.largest_grid == largest
    assert limited.limited(10_000) == limited
    if tiling.layout == "anyres":  # the visual tokens' limit stays
        assert limited.max_tiles == tiling.max_tiles


@pytest.mark.parametrize("size", [(640, 480), (30, 90), (200, 31), (1, 1), (385, 384), (5, 700)])
def test_anyres_tiles_are_llavas(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    page = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    side = 48
    tiles, grid = split(page, Tiling(layout="anyres", tile_px=side, pad_value=0))
    theirs = LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side},
        image_grid_pinpoints=[[i * side, j * side] for i in range(1, 7) for j in range(1, 7)],
        do_normalize=False,
        do_rescale=False,
    )
    expected = theirs(page, return_tensors="np")["pixel_values"][0]
    assert len(expected) == len(tiles) == grid.num_tiles
    np.testing.assert_array_equal(tiles, expected.transpose(0, 2, 3, 1))


def test_anyres_without_the_whole_page() -> None:
    page = Image.new("RGB", (640, 480), "white")
    tiles, grid = split(page, Tiling(layout="anyres", thumbnail=False))
    assert grid.num_tiles == len(tiles) == 4
    # 768 x 576 in the middle of 768 x 768: 96 rows of grey above and below.
    assert (tiles[:2, :96] == 128).all() and (tiles[:2, 96:] == 255).all()
    assert (tiles[2:, 288:] == 128).all() and (tiles[2:, :288] == 255).all()


@pytest.mark.parametrize("tiling", [CELLS, CANVAS], ids=["cells", "canvas"])
def test_ten_thousand_random_sizes(tiling: Tiling) -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(10_000), (10_000, 2))).astype(int)
    counts = []
    for width, height in sizes.tolist():
        grid = choose_grid(width, height, tiling)
        assert grid.rows * grid.cols <= tiling.max_tiles
        counts.append(num_tiles(width, height, tiling))
        assert counts[-1] == grid.num_tiles == len(tile_boxes(width, height, tiling))
        assert grid.thumbnail == (tiling.layout == "cells" and grid.rows * grid.cols > 1)
    choose_grid.cache_clear()
    assert [num_tiles(width, height, tiling) for width, height in sizes.tolist()] == counts


@settings(deadline=None, max_examples=200)
@given(
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    side=st.sampled_from([32, 224, 384]),
    limit=st.integers(1, 12),
    threshold=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_cells_grid_is_the_references(
    width: int, height: int, side: int, limit: int, threshold: float
) -> None:
    tiling = Tiling(tile_px=side, max_tiles=limit, covering_threshold=threshold)
    grid = choose_grid(width, height, tiling)
    expected = reference_grid(width, height, side, limit, threshold)
    # A ratio that equals the threshold is the only case that rounding may decide otherwise.
    loose = reference_grid(width, height, side, limit, threshold - 2e-9)
    assert (grid.rows, grid.cols) in expected | loose


@settings(deadline=None, max_examples=200)
@given(
    width=st.integers(1, 20_000),
    height=st.integers(1, 20_000),
    layout=st.sampled_from(["cells", "canvas", "anyres"]),
    limit=st.integers(1, 16),
)
def test_boxes_partition_the_page(width: int, height: int, layout: str, limit: int) -> None:
    tiling = Tiling(layout=layout, max_tiles=limit)
    grid = choose_grid(width, height, tiling)
    boxes = tile_boxes(width, height, tiling)
    if grid.thumbnail:
        assert boxes.pop(0) == (0, 0, width, height)
    assert math.isclose(sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes), width * height)
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        row, col = divmod(index, grid.cols)
        assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
        assert x0 == (boxes[index - 1][2] if col else 0)
        assert y0 == (boxes[index - grid.cols][3] if row else 0)
        assert (x1 == width) if col == grid.cols - 1 else (x1 > x0)
        assert (y1 == height) if row == grid.rows - 1 else (y1 > y0)


@settings(deadline=None, max_examples=100)
@given(width=st.integers(1, 9000), height=st.integers(1, 9000), limit=st.integers(1, 12))
def test_canvas_shows_the_page_as_large_as_can_be(width: int, height: int, limit: int) -> None:
    tiling = Tiling(layout="canvas", max_tiles=limit)
    grid, scale = choose_grid(width, height, tiling), page_scale(width, height, tiling)
    assert scale <= tiling.max_upscale
    assert width * scale <= grid.cols * 384 * (1 + 1e-12)
    assert height * scale <= grid.rows * 384 * (1 + 1e-12)
    for rows in range(1, limit + 1):
        for cols in range(1, limit // rows + 1):
            other = min(cols * 384 / width, rows * 384 / height, tiling.max_upscale)
            assert other <= scale
            if other == scale:
                assert rows * cols >= grid.rows * grid.cols


def test_cells_are_cut_from_the_page_with_the_whole_page_first() -> None:
    page = np.zeros((768, 768, 3), dtype=np.uint8)
    page[:384, 384:] = (255, 0, 0)
    page[384:, :384] = (0, 255, 0)
    page[384:, 384:] = (0, 0, 255)
    tiles, grid = split(Image.fromarray(page), CELLS)
    assert tiles.shape == (5, 384, 384, 3) and tiles.dtype == np.uint8
    assert grid == TileGrid(rows=2, cols=2, thumbnail=True)
    np.testing.assert_array_equal(
        tiles[1:, ::383, ::383].min(axis=(1, 2)), page[::767, ::767].reshape(4, 3)
    )
    np.testing.assert_array_equal(tiles[1:].max(axis=(1, 2)), page[::767, ::767].reshape(4, 3))
    np.testing.assert_array_equal(tiles[0, ::383, ::383], page[::767, ::767])


def test_cells_without_a_thumbnail() -> None:
    tiling = Tiling(thumbnail=False)
    tiles, grid = split(Image.new("RGB", (768, 768)), tiling)
    assert len(tiles) == grid.num_tiles == 4


def test_letterbox_is_centred_and_grey() -> None:
    tiles, grid = split(Image.new("RGB", (300, 100), "white"), CELLS)
    assert grid.num_tiles == 1
    assert (tiles[0, 128:256] == 255).all()
    assert (tiles[0, :128] == 128).all() and (tiles[0, 256:] == 128).all()


def test_letterbox_of_a_hair_keeps_one_pixel() -> None:
    tiles, _ = split(Image.new("L", (1, 200), 255), Tiling(tile_px=32, max_tiles=1, pad_value=7))
    assert tiles.shape == (1, 32, 32, 3)
    assert (tiles == 255).any(axis=(0, 1, 3)).sum() == 1
    assert set(np.unique(tiles)) == {7, 255}


def test_canvas_tiles_join_without_seams() -> None:
    rng = np.random.default_rng(1)
    page = rng.integers(0, 255, (70, 100, 3), dtype=np.uint8)
    tiling = Tiling(layout="canvas", tile_px=32, max_tiles=12, max_upscale=1.0)
    tiles, grid = split(Image.fromarray(page), tiling)
    assert grid == TileGrid(rows=3, cols=4, thumbnail=False)
    canvas = np.concatenate(
        [np.concatenate(list(tiles[row * 4 : row * 4 + 4]), axis=1) for row in range(3)]
    )
    np.testing.assert_array_equal(canvas[:70, :100], page)
    assert (canvas[70:] == 255).all() and (canvas[:, 100:] == 255).all()


def test_canvas_scale_maps_positions_back() -> None:
    page = np.full((1000, 1600, 3), 255, dtype=np.uint8)
    page[600:620, 1200:1220] = 0
    tiles, grid = split(Image.fromarray(page), CANVAS)
    dark = tiles.reshape(grid.rows, grid.cols, 384, 384, 3).swapaxes(1, 2)
    ys, xs = np.nonzero(dark.reshape(grid.rows * 384, grid.cols * 384, 3)[..., 0] < 128)
    scale = page_scale(1600, 1000, CANVAS)
    assert xs.mean() / scale == pytest.approx(1210, abs=1)
    assert ys.mean() / scale == pytest.approx(610, abs=1)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
@pytest.mark.parametrize("tiling", [CELLS, CANVAS], ids=["cells", "canvas"])
def test_a_page_without_pixels_is_refused(size: tuple[int, int], tiling: Tiling) -> None:
    with pytest.raises(InputError, match="no pixels"):
        split(Image.new("RGB", size), tiling)


@pytest.mark.parametrize("tiling", [CELLS, ANYRES], ids=["cells", "anyres"])
def test_only_a_canvas_has_a_page_scale(tiling: Tiling) -> None:
    with pytest.raises(ConfigurationError, match="canvas"):
        page_scale(10, 10, tiling)


@pytest.mark.parametrize("size", [(1600, 1000), (1900, 1000), (700, 1900), (300, 90)])
def test_anyres_boxes_say_what_a_tile_shows(size: tuple[int, int]) -> None:
    """A page that is redder to the right and greener to the bottom, blue all over."""
    width, height = size
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    page[..., 0] = (np.arange(width) + 0.5) * 255 / width
    page[..., 1] = ((np.arange(height) + 0.5) * 255 / height)[:, None]
    tiles, _ = split(Image.fromarray(page), ANYRES)
    for tile, (x0, y0, x1, y1) in zip(tiles, tile_boxes(width, height, ANYRES), strict=True):
        red, green, blue = tile.reshape(-1, 3).T.astype(float)
        shown = blue > 128
        assert red[shown].mean() * width / 255 == pytest.approx((x0 + x1) / 2, abs=width / 100)
        assert green[shown].mean() * height / 255 == pytest.approx((y0 + y1) / 2, abs=height / 100)


@pytest.mark.parametrize(
    "options",
    [
        {"tile_px": 0},
        {"max_tiles": 0},
        {"covering_threshold": 1.5},
        {"layout": "rows"},
        {"max_upscale": 0.0},
        {"max_upscale": math.nan},
        {"pad_value": 256},
        {"max_side_tiles": 0},
        {"max_grid_tiles": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Tiling(**options)
