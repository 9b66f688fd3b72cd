"""Visual tokens of a page in layout "anyres": joined, unpadded, shrunk, and ended row by row.

Section 5.2.2: the "anyres_max_9" strategy of LLaVA-OneVision. What follows the connector is
`spatial_unpad` and `anyres_max_N` of LLaVA-VL/LLaVA-NeXT (llava/model/llava_arch.py, df17966) with
the rounding of transformers' port. Two cases are new: tiles whose visual tokens form a grid that
is not square, and a page so thin that no token would be left of it, which keeps one or two.

Letters of section 3.1: T tiles of an image, N' visual tokens a tile, D LLM width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.imaging.tiling import TileGrid

# LLaVA leaves a page as it is until it is this many times too long on each side.
_TOLERANCE = 1.1


@dataclass(frozen=True, kw_only=True)
class Joining:
    """What a model does with the visual tokens of an image's tiles.

    tile: rows and columns of the visual tokens of one tile, `Connector.output_grid`.
    max_tiles: more than so many tiles' worth of them are shrunk to it.
    newline: whether a row ends with the learned vector.
    """

    tile: tuple[int, int]
    max_tiles: int
    newline: bool


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Rows and columns of an image's visual tokens, without the tile of the whole image.

    top, left: padding removed at the top and as much at the bottom, left and right.
    rows, columns: after it.
    new_rows, new_columns: after shrinking; the same as before where nothing is shrunk.
    """

    top: int
    left: int
    rows: int
    columns: int
    new_rows: int
    new_columns: int


@lru_cache(maxsize=4096)
def joined(grid: TileGrid, joining: Joining) -> Joined:
    """What is left of an image whose grid says how large it was."""
    assert grid.page_px is not None
    height, width = grid.page_px
    tile_rows, tile_columns = joining.tile
    rows, columns = grid.rows * tile_rows, grid.cols * tile_columns
    top = left = 0
    # Each side in its own tokens, of which a tile may have more in a row than in a column.
    if width / height > grid.cols / grid.rows:
        top = _padding(rows, height * (grid.cols * tile_rows / width))
    else:
        left = _padding(columns, width * (grid.rows * tile_columns / height))
    rows, columns = rows - 2 * top, columns - 2 * left
    times = math.sqrt(rows * columns / (joining.max_tiles * tile_rows * tile_columns))
    new_rows, new_columns = rows, columns
    if times > _TOLERANCE:
        new_rows, new_columns = max(1, int(rows // times)), max(1, int(columns // times))
    return Joined(
        top=top, left=left, rows=rows, columns=columns, new_rows=new_rows, new_columns=new_columns
    )


def num_joined_tokens(grid: TileGrid, joining: Joining) -> int:
    """Visual tokens of an image: the whole image's tile, then the rows, with their newlines."""
    per_tile = joining.tile[0] * joining.tile[1]
    if grid.page_px is None:
        return grid.num_tiles * per_tile + joining.newline
    left = joined(grid, joining)
    return grid.thumbnail * per_tile + left.new_rows * (left.new_columns + joining.newline)


def join(tokens: Tensor, grid: TileGrid, joining: Joining, newline: Tensor | None) -> Tensor:
    """An image's visual tokens as the LLM reads them.

    Args:
        tokens: of its tiles [T, N', D], the whole image first if the grid has it, then row-major.
        grid: of the image; without `page_px` it is no page cut into tiles, and gets one newline.
        joining: of the model.
        newline: [D], if `joining.newline`.

    Returns:
        [`num_joined_tokens(grid, joining)`, D], in the dtype of `tokens`. Shrinking is a convex
        combination of neighbours, bilinear without anti-aliasing.
    """
    if grid.page_px is None:
        ends = [] if newline is None else [newline.to(tokens)[None]]
        return torch.cat((tokens.flatten(0, 1), *ends))
    whole, page = tokens[: int(grid.thumbnail)], tokens[int(grid.thumbnail) :]
    left = joined(grid, joining)
    page = page.unflatten(1, joining.tile).unflatten(0, (grid.rows, grid.cols))
    page = page.transpose(1, 2).flatten(2, 3).flatten(0, 1)
    page = page[left.top : left.top + left.rows, left.left : left.left + left.columns]
    if (left.new_rows, left.new_columns) != (left.rows, left.columns):
        size = [left.new_rows, left.new_columns]
        planes = page.permute(2, 0, 1)[None]
        page = functional.interpolate(planes, size, mode="bilinear")[0].permute(1, 2, 0)
    if newline is not None:
        page = torch.cat((page, newline.to(page).expand(len(page), 1, -1)), dim=1)
    return torch.cat((whole.flatten(0, 1), page.flatten(0, 1)))


def _padding(length: int, shown: float) -> int:
    """Tokens of padding on each of two sides where `shown` of `length` tokens show the page."""
    return min((length - int(round(shown, 7))) // 2, (length - 1) // 2)
