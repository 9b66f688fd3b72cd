"""How a page is cut into the square tiles that the vision encoder sees.

Section 3.1 of the paper: "predefined aspect ratios (1:1, 1:2, 1:3, ..., 9:1)" with at most nine
tiles, chosen by a coverage ratio. The algorithm behind that sentence is the covering ratio of
Ovis, layout ``"cells"``. The default model uses ``"canvas"``, whose tiles join without seams.
Section 5.2.2 takes LLaVA's "anyres_max_9": layout ``"anyres"``, at the grids that LLaVA chooses.

This module is the only source of tile counts: image processor, processor and model all call it.
Letters: T tiles of a page, S the side of a tile in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alignvlm.errors import ConfigurationError, InputError

Box = tuple[float, float, float, float]
"""``(x0, y0, x1, y1)`` in page pixels, right and bottom edges exclusive."""

CANVAS_WHITE = 255

_ANYRES_ONLY = ("max_side_tiles", "max_grid_tiles", "newline")


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How pages become tiles.

    tile_px: side S of a tile (384: SigLIP-so400m-patch14-384).
    max_tiles: most tiles of the grid, without the thumbnail (section 3.1: nine). "anyres": not
        of the grid, but of the visual tokens that the LLM reads of it: those of a larger grid
        are shrunk to so many tiles' worth (section 5.2.2: "anyres_max_9").
    covering_threshold: "cells" takes the smallest grid that keeps more than this share of the
        page's area (0.9: Ovis).
    thumbnail: "cells" puts the whole page first as one more tile when the grid has several;
        "anyres" always does, stretched to the square, as LLaVA does.
    layout: "cells" is the paper's. "canvas": Unlike the paper, the page is scaled once and laid
        on one white canvas, so a convolutional encoder can stitch the tiles without seams.
        "anyres" is section 5.2.2's: the page is scaled once, keeping its aspect, and centred on
        the canvas; visual tokens of its padding are removed after the connector.
    max_upscale: "canvas" enlarges a small page at most this many times; "cells" always fills
        the longer side of the tile, as Ovis does.
    pad_value: grey around a letterboxed cell, 0-255. Ovis pads with 0 *after* SigLIP's
        normalisation ``x / 127.5 - 1``; its origin 127.5 lies between two bytes and 128
        (+0.004) is the nearest one can store. "canvas" pads with white, as paper is. "anyres"
        pads with this value too, and LLaVA with 0.
    max_side_tiles: "anyres" takes grids from 1 x 1 to so many rows and columns (5.2.2: six).
    max_grid_tiles: most tiles of a grid of "anyres"; None: as many as the sides allow.
    newline: "anyres" ends each row of an image's visual tokens with one learned vector, LLaVA's
        ``image_newline``.

    Raises ConfigurationError for values out of range.
    """

    tile_px: int = 384
    max_tiles: int = 9
    covering_threshold: float = 0.9
    thumbnail: bool = True
    layout: Literal["cells", "canvas", "anyres"] = "cells"
    max_upscale: float = 2.0
    pad_value: int = 128
    max_side_tiles: int = 6
    max_grid_tiles: int | None = None
    newline: bool = True

    def __post_init__(self) -> None:
        rules = {
            "tile_px": (self.tile_px >= 1, "at least 1"),
            "max_tiles": (self.max_tiles >= 1, "at least 1"),
            "covering_threshold": (0 <= self.covering_threshold <= 1, "between 0 and 1"),
            "layout": (
                self.layout in ("cells", "canvas", "anyres"),
                "'cells', 'canvas' or 'anyres'",
            ),
            "max_upscale": (0 < self.max_upscale < math.inf, "a number above 0"),
            "pad_value": (0 <= self.pad_value <= 255, "between 0 and 255"),
            "max_side_tiles": (self.max_side_tiles >= 1, "at least 1"),
            "max_grid_tiles": (
                self.max_grid_tiles is None or self.max_grid_tiles >= 1,
                "at least 1",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                value = getattr(self, name)
                raise ConfigurationError(f"Tiling option {name} must be {rule}, not {value!r}")

    @property
    def largest_grid(self) -> int:
        """Most tiles of a page's grid, the thumbnail not counted."""
        if self.layout != "anyres":
            return self.max_tiles
        return min(self.max_side_tiles**2, self.max_grid_tiles or self.max_side_tiles**2)

    def limited(self, max_tiles: int) -> Tiling:
        """The same with grids of at most ``max_tiles`` tiles, where it allows more."""
        name = "max_grid_tiles" if self.layout == "anyres" else "max_tiles"
        most: dict[str, Any] = {name: min(max_tiles, self.largest_grid)}
        return replace(self, **most)

    def options(self) -> dict[str, Any]:
        """The fields that say something in this layout, as ``Tiling(**options)`` takes them."""
        left_out = () if self.layout == "anyres" else _ANYRES_ONLY
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The grid of one page: ``rows`` x ``cols`` tiles, plus the whole page if ``thumbnail``.

    ``page_px`` is the page's (height, width) in "anyres", which says where its padding lies; None
    in other layouts.
    """

    rows: int
    cols: int
    thumbnail: bool
    page_px: tuple[int, int] | None = None

    @classmethod
    def from_row(cls, row: Sequence[int]) -> TileGrid:
        """The grid that ``as_row`` wrote."""
        rows, cols, thumbnail, *page = (int(value) for value in row)
        page_px = (page[0], page[1]) if page else None
        return cls(rows=rows, cols=cols, thumbnail=bool(thumbnail), page_px=page_px)

    def as_row(self) -> list[int]:
        """Rows, columns, thumbnail 0 or 1 and, in "anyres", the page's height and width."""
        return [self.rows, self.cols, int(self.thumbnail), *(self.page_px or ())]

    @property
    def num_tiles(self) -> int:
        """T, the tiles of the page, thumbnail included."""
        return self.rows * self.cols + int(self.thumbnail)


@lru_cache(maxsize=4096)
def choose_grid(width: int, height: int, tiling: Tiling) -> TileGrid:
    """The grid for a page of ``width`` x ``height`` pixels.

    "cells": the fewest tiles whose covering ratio is above the threshold (equal: the higher
    ratio), else the highest ratio (equal: fewest tiles). The ratio is the area that the cells
    keep when each is shrunk until its longer side fits a tile, over the page's area.
    "canvas": the grid that shows the page largest (equal: fewest tiles).
    "anyres": LLaVA's rule: the most pixels of the page after scaling, counted up to the page's
    own (equal: the smallest canvas).

    Raises InputError for a page without pixels.
    """
    _check_size(width, height)
    if tiling.layout == "canvas":
        rows, cols = min(
            _candidates(tiling.max_tiles),
            key=lambda grid: (-_scale(width, height, grid[0], grid[1], tiling), grid[0] * grid[1]),
        )
        return TileGrid(rows=rows, cols=cols, thumbnail=False)
    if tiling.layout == "anyres":
        rows, cols = _anyres_grid(width, height, tiling)
        page_px = (height, width)
        return TileGrid(rows=rows, cols=cols, thumbnail=tiling.thumbnail, page_px=page_px)
    rows, cols = _covering_grid(width, height, tiling)
    return TileGrid(rows=rows, cols=cols, thumbnail=tiling.thumbnail and rows * cols > 1)


def num_tiles(width: int, height: int, tiling: Tiling) -> int:
    """T for a page of ``width`` x ``height`` pixels, thumbnail included."""
    return choose_grid(width, height, tiling).num_tiles


def page_scale(width: int, height: int, tiling: Tiling) -> float:
    """Canvas pixels per page pixel: page position = canvas position / scale.

    Raises ConfigurationError for other layouts: in "cells" every tile has its own scale, and in
    "anyres" the page does not start at the canvas's corner.
    """
    if tiling.layout != "canvas":
        raise ConfigurationError(
            f'Only layout "canvas" has one scale from its corner; use tile_boxes for '
            f"{tiling.layout!r}"
        )
    grid = choose_grid(width, height, tiling)
    return _scale(width, height, grid.rows, grid.cols, tiling)


def tile_boxes(width: int, height: int, tiling: Tiling) -> list[Box]:
    """The part of the page that each tile shows, in tile order (row-major, thumbnail first).

    The boxes of the grid partition the page. "cells" boxes are whole numbers; the last row and
    column take the remainder. "canvas" and "anyres" boxes end at the page's edge, not the
    canvas's.
    """
    grid = choose_grid(width, height, tiling)
    if tiling.layout == "anyres":
        new_w, new_h, left, top = _placement(width, height, grid, tiling)
        xs = _edges(width, grid.cols, tiling.tile_px * width / new_w, left * width / new_w)
        ys = _edges(height, grid.rows, tiling.tile_px * height / new_h, top * height / new_h)
    elif tiling.layout == "canvas":
        step = tiling.tile_px / page_scale(width, height, tiling)
        xs = _edges(width, grid.cols, step)
        ys = _edges(height, grid.rows, step)
    else:
        xs = _edges(width, grid.cols, width // grid.cols)
        ys = _edges(height, grid.rows, height // grid.rows)
    cells = [
        (xs[col], ys[row], xs[col + 1], ys[row + 1])
        for row in range(grid.rows)
        for col in range(grid.cols)
    ]
    return [(0, 0, width, height), *cells] if grid.thumbnail else cells


def split(image: Image.Image, tiling: Tiling) -> tuple[NDArray[np.uint8], TileGrid]:
    """Cut a page into tiles.

    Returns tiles uint8 [T, S, S, 3] (RGB) and the grid; row-major, the thumbnail first.
    Raises InputError for a page without pixels.
    """
    grid = choose_grid(*image.size, tiling)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if tiling.layout == "canvas":
        return _split_canvas(image, grid, tiling), grid
    if tiling.layout == "anyres":
        return _split_anyres(image, grid, tiling), grid
    boxes = tile_boxes(*image.size, tiling)
    return np.stack([_letterbox(image, box, tiling) for box in boxes]), grid


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"A page of {width} x {height} px has no pixels; give a page with some")


@lru_cache(maxsize=64)
def _candidates(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """All (rows, cols) of at most ``max_tiles`` tiles, in a fixed order."""
    sides = range(1, max_tiles + 1)
    return tuple((rows, cols) for rows in sides for cols in sides if rows * cols <= max_tiles)


def _anyres_grid(width: int, height: int, tiling: Tiling) -> tuple[int, int]:
    """`select_best_resolution` of LLaVA-NeXT, in its float64 arithmetic."""
    side, sides = tiling.tile_px, range(1, tiling.max_side_tiles + 1)
    best: tuple[int, int] | None = None
    chosen = (1, 1)
    for rows in sides:
        for cols in (number for number in sides if rows * number <= tiling.largest_grid):
            scale = min(cols * side / width, rows * side / height)
            shown = min(int(width * scale) * int(height * scale), width * height)
            rated = (-shown, rows * cols * side * side - shown)
            if best is None or rated < best:
                best, chosen = rated, (rows, cols)
    return chosen


def _placement(
    width: int, height: int, grid: TileGrid, tiling: Tiling
) -> tuple[int, int, int, int]:
    """Width and height of the scaled page and its left and top edge, in pixels of the canvas."""
    canvas_w, canvas_h = grid.cols * tiling.tile_px, grid.rows * tiling.tile_px
    scale_w, scale_h = canvas_w / width, canvas_h / height
    if scale_w < scale_h:
        new_w, new_h = canvas_w, min(math.ceil(height * scale_w), canvas_h)
    else:
        new_w, new_h = min(math.ceil(width * scale_h), canvas_w), canvas_h
    return new_w, new_h, (canvas_w - new_w) // 2, (canvas_h - new_h) // 2


def _covering_grid(width: int, height: int, tiling: Tiling) -> tuple[int, int]:
    best_good: tuple[int, Fraction] | None = None
    best_any: tuple[Fraction, int] | None = None
    good = fallback = (1, 1)
    threshold = Fraction(tiling.covering_threshold)
    for rows, cols in _candidates(tiling.max_tiles):
        if rows > height or cols > width:  # would make cells without pixels
            continue
        ratio = _covering_ratio(width, height, rows, cols, tiling.tile_px)
        tiles = rows * cols
        if ratio > threshold and (best_good is None or (tiles, -ratio) < best_good):
            best_good, good = (tiles, -ratio), (rows, cols)
        if best_any is None or (-ratio, tiles) < best_any:
            best_any, fallback = (-ratio, tiles), (rows, cols)
    return fallback if best_good is None else good


def _covering_ratio(width: int, height: int, rows: int, cols: int, side: int) -> Fraction:
    """Share of the page's area kept by a grid; exact, so that rounding never breaks a tie."""
    cell_w, cell_h = width // cols, height // rows
    last_w, last_h = width - cell_w * (cols - 1), height - cell_h * (rows - 1)
    kept, over = 0, 1  # a fraction that is reduced once, at the end
    for number, cell in (
        ((rows - 1) * (cols - 1), (cell_w, cell_h)),
        (rows - 1, (last_w, cell_h)),
        (cols - 1, (cell_w, last_h)),
        (1, (last_w, last_h)),
    ):
        shorter, longer = sorted(cell)
        if longer <= side:
            kept += number * shorter * longer * over
        else:
            kept, over = kept * longer + number * side * side * shorter * over, over * longer
    return Fraction(kept, over * width * height)


def _scale(width: int, height: int, rows: int, cols: int, tiling: Tiling) -> float:
    """The largest scale at which the page fits the canvas."""
    side = tiling.tile_px
    return min(cols * side / width, rows * side / height, tiling.max_upscale)


def _edges(length: int, parts: int, step: float, start: float = 0) -> list[float]:
    """Edges of ``parts`` tiles on a side of the page, of which the first begins at ``-start``."""
    inner = [min(length, max(0, index * step - start)) for index in range(1, parts)]
    return [0, *inner, length]


def _letterbox(image: Image.Image, box: Box, tiling: Tiling) -> NDArray[np.uint8]:
    """One part of the page, its longer side filling the tile, centred: uint8 [S, S, 3]."""
    side = tiling.tile_px
    # Cropped first: `resize(box=...)` would let pixels of the neighbouring cell bleed in.
    cell = image.crop((int(box[0]), int(box[1]), int(box[2]), int(box[3])))
    width, height = cell.size
    longer = max(width, height)
    new_w, new_h = max(1, width * side // longer), max(1, height * side // longer)
    # Bicubic: the filter that SigLIP was trained with.
    resized = cell.resize((new_w, new_h), Image.Resampling.BICUBIC)
    left, top = side // 2 - new_w // 2, side // 2 - new_h // 2
    tile = np.full((side, side, 3), tiling.pad_value, dtype=np.uint8)
    tile[top : top + new_h, left : left + new_w] = np.asarray(resized)
    return tile


def _split_canvas(image: Image.Image, grid: TileGrid, tiling: Tiling) -> NDArray[np.uint8]:
    """The page at the top left of a white canvas, cut without gaps: uint8 [T, S, S, 3]."""
    side, rows, cols = tiling.tile_px, grid.rows, grid.cols
    scale = page_scale(*image.size, tiling)
    new_w = min(cols * side, max(1, round(image.width * scale)))
    new_h = min(rows * side, max(1, round(image.height * scale)))
    if (new_w, new_h) != image.size:
        image = image.resize((new_w, new_h), Image.Resampling.LANCZOS)
    canvas = np.full((rows * side, cols * side, 3), CANVAS_WHITE, dtype=np.uint8)
    canvas[:new_h, :new_w] = np.asarray(image)
    return _cut(canvas, grid, side)


def _split_anyres(image: Image.Image, grid: TileGrid, tiling: Tiling) -> NDArray[np.uint8]:
    """The page in the middle of its canvas, cut without gaps: uint8 [T, S, S, 3]."""
    side = tiling.tile_px
    new_w, new_h, left, top = _placement(*image.size, grid, tiling)
    canvas = np.full((grid.rows * side, grid.cols * side, 3), tiling.pad_value, dtype=np.uint8)
    resized = image.resize((new_w, new_h), Image.Resampling.BICUBIC)
    canvas[top : top + new_h, left : left + new_w] = np.asarray(resized)
    tiles = _cut(canvas, grid, side)
    if not grid.thumbnail:
        return tiles
    whole = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    return np.concatenate([whole[None], tiles])


def _cut(canvas: NDArray[np.uint8], grid: TileGrid, side: int) -> NDArray[np.uint8]:
    """A canvas [rows S, cols S, 3] in tiles, row-major: [rows cols, S, S, 3]."""
    tiles = canvas.reshape(grid.rows, side, grid.cols, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(grid.rows * grid.cols, side, side, 3))
