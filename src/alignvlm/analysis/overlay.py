"""A page with the words that its cells say drawn over it, as a picture."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alignvlm.analysis.lens import PageLens
from alignvlm.files import write_atomically

__all__ = ["draw_overlay", "write_png"]

MAX_SIDE_PX = 4000
_MAX_SCALE = 2.0
_PAPER = 0.8  # how far the page fades towards white
_SHOWN = 0.1  # a word less probable than this is not drawn
_SURE = np.array((17, 60, 140))
_UNSURE = np.array((214, 40, 40))
_LETTER = 1.9  # height of a single letter in cells: it stands for a character larger than its cell


def draw_overlay(lens: PageLens) -> Image.Image:
    """The page, faded, with the most probable word of every cell that says one.

    Words are blue where the connector is sure and red where it is not, by the word's probability;
    cells that say whitespace first are left out, as is the thumbnail. The picture is the page's
    size times up to 2, at most `MAX_SIDE_PX` on a side.
    """
    scale = min(_MAX_SCALE, MAX_SIDE_PX / max(lens.image.size))
    size = (max(1, round(lens.image.width * scale)), max(1, round(lens.image.height * scale)))
    page = lens.image.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.blend(page, Image.new("RGB", size, "white"), _PAPER)
    draw = ImageDraw.Draw(canvas)
    num_cells = lens.grid[0] * lens.grid[1]
    grid_cells = np.arange(lens.num_cells) >= num_cells * lens.tiles[0].thumbnail
    shown = grid_cells & lens.on_page & ~lens.blank & (lens.probabilities[:, 0] >= _SHOWN)
    fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}
    for cell in np.flatnonzero(shown):
        tile = lens.tiles[cell // num_cells]
        width, height = tile.cell_width * scale, tile.cell_height * scale
        word = lens.words[int(lens.word_ids[cell, 0])].strip()
        left, top, right, bottom = lens.boxes[cell] * scale
        if len(word) == 1 and width < height:
            points = max(6, round(_LETTER * height))
        else:
            points = max(6, round(min(0.7 * height, 1.6 * (right - left) / len(word))))
        if points not in fonts:
            fonts[points] = ImageFont.load_default(points)
        share = float(lens.probabilities[cell, 0])
        color = tuple(int(part) for part in share * _SURE + (1 - share) * _UNSURE)
        middle = ((left + right) / 2, (top + bottom) / 2)
        draw.text(middle, word, fill=color, font=fonts[points], anchor="mm")
    return canvas


def write_png(lens: PageLens, path: str | os.PathLike[str]) -> None:
    """Writes `draw_overlay(lens)` to a PNG file: all of it, or nothing.

    Raises OSError where the file cannot be written.
    """
    buffer = io.BytesIO()
    draw_overlay(lens).save(buffer, "PNG", optimize=True)
    write_atomically(Path(path), buffer.getvalue())
