"""Grounded labels: which word the connector should say at every cell of a drawn page.

ALIGN's output is a distribution over words, so a page whose text boxes are known supervises each
visual token directly. A character is named at one cell, the one under the middle of its ink on
the line through the middle of the small letters; every other cell is empty. One cell a character
keeps doubled letters apart and makes each line of text one row of cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from alignvlm.model.reading import Reading, read
from alignvlm.synth.page import Glyph, Line, Page

IGNORED = -100
_WORD_GAP_EM = 1.2  # runs of text further apart than this are separate columns


def cell_labels(
    page: Page,
    words: Mapping[str, int],
    *,
    num_rows: int,
    num_columns: int,
    cell_height_px: int,
    cell_width_px: int,
    empty: int,
) -> NDArray[np.int64]:
    """Labels of a page's cells.

    Args:
        page: drawn at the resolution of the cells.
        words: index in the connector's vocabulary of each character it can say.
        num_rows: rows of cells.
        num_columns: columns of cells.
        cell_height_px: height of a cell.
        cell_width_px: width of a cell.
        empty: the index for a cell with nothing to say.

    Returns:
        int64 [num_rows, num_columns]; `IGNORED` where the page shows a character that is not in
        `words`, or where two characters share a cell and no neighbour is free.
    """
    labels = np.full((num_rows, num_columns), empty, dtype=np.int64)
    taken = np.zeros((num_rows, num_columns), dtype=bool)
    for line, follower in zip_longest(page.lines, page.lines[1:]):
        places = [(*_place(line, glyph), glyph.char) for glyph in line.glyphs]
        places += _gap(line, follower)
        for x, y, char in places:
            row, column = int(y // cell_height_px), int(x // cell_width_px)
            if not (0 <= row < num_rows and 0 <= column < num_columns):
                continue
            spot = _free_column(taken[row], column)
            if spot is None:
                labels[row, column] = IGNORED
                continue
            taken[row, spot] = True
            labels[row, spot] = words.get(char, IGNORED)
    return labels


def _place(line: Line, glyph: Glyph) -> tuple[float, float]:
    """Where a character is named: the middle of its ink, half-way up the small letters."""
    x = 0.5 * (glyph.x0 + glyph.x1)
    return x, line.baseline_at(x) - 0.5 * line.x_height_px


def _gap(line: Line, follower: Line | None) -> list[tuple[float, float, str]]:
    """The space between two runs of text that stand as close as two words do."""
    if follower is None:
        return []
    (left, y), (right, other_y) = (
        _place(line, line.glyphs[-1]),
        _place(follower, follower.glyphs[0]),
    )
    width = follower.glyphs[0].x0 - line.glyphs[-1].x1
    if abs(y - other_y) > 0.3 * line.font_px or not 0.15 < width / line.font_px < _WORD_GAP_EM:
        return []
    return [(0.5 * (left + right), y, " ")]


def _free_column(taken: NDArray[np.bool_], column: int) -> int | None:
    """The cell itself, or the next one to the right, then to the left, that is still free."""
    for candidate in (column, column + 1, column - 1):
        if 0 <= candidate < len(taken) and not taken[candidate]:
            return candidate
    return None


def labelled_reading(page: Page, characters: Sequence[str], cell_px: tuple[int, int]) -> Reading:
    """What a reader without error says of a page: its labels, read as probabilities are.

    Args:
        page: drawn, with its text.
        characters: what each word of the connector says; index 0 is "empty".
        cell_px: (height, width) of a cell.
    """
    height, width = cell_px
    labels = cell_labels(
        page,
        {char: row for row, char in enumerate(characters) if row > 0},
        num_rows=-(-page.image.height // height),
        num_columns=-(-page.image.width // width),
        cell_height_px=height,
        cell_width_px=width,
        empty=0,
    )
    sure = np.eye(len(characters), dtype=np.float32)[np.maximum(labels, 0)]
    return read(sure, characters)
