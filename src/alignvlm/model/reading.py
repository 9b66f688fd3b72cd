"""Reads a page off P_vocab: from the words of every cell to lines of characters.

The connector says each character at one cell and "empty" elsewhere. A character whose middle lies
near a border shares its probability between two cells, so probabilities are added up before
anything is decided: first down the rows (a line of text belongs to the row where most of it is),
then along them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EMPTY_ROW = 0
"""Index of "empty" in the connector's vocabulary (alignvlm.model.characters)."""

_RUN_GAP = 8  # cells without text that end a run
_TRACE = 0.15  # less probability than this says nothing
_STRONG = 0.4  # with this a cell holds a character; below a half, for a line has few gaps
_WEAK = 0.2  # two neighbours above it may be one character between them
_PAIR = 0.55  # what two weak neighbours must have together
_AT_ODDS = 0.4  # share of what two rows both say that may differ if they hold one line
_SAME = 1.5  # likewise, if both say the same one
_CERTAIN = 1.9  # with more than this together they are two, whatever their width
_APART = 1.6  # cells that two equal characters must be apart, by their width, to stay two
_MIN_PITCH = 1.5  # cells between characters of small text
# Widths of narrow characters as a share of the mean.
_WIDTHS = {
    **dict.fromkeys("iIjl|!.,:;'", 0.56),
    **dict.fromkeys('frt()[]{}-"/1', 0.72),
}
_PITCH_QUANTILE = 0.4  # of the distances nearby: below the gaps between columns of numbers
_WIDEST = 1.6  # in median distances of the page: characters of a heading
_WORD_GAP = 2.2  # in distances between characters: a space the connector did not say
_COLUMN_GAP = 4.5  # likewise: another column of the page


@dataclass(frozen=True)
class ReadGlyph:
    """One character read off the page.

    Attributes:
        char: the most probable character.
        probability: its share among the characters, "empty" left out.
        row, column: its cell on the page.
        other: the second most probable character and its share.
    """

    char: str
    probability: float
    row: int
    column: int
    other: tuple[str, float]


@dataclass(frozen=True)
class ReadLine:
    """Characters of one line, left to right, spaces included."""

    glyphs: tuple[ReadGlyph, ...]

    @property
    def text(self) -> str:
        """The characters as a string."""
        return "".join(glyph.char for glyph in self.glyphs)


@dataclass(frozen=True)
class Reading:
    """A page's text: visual rows from top to bottom, each with its lines from left to right."""

    rows: tuple[tuple[ReadLine, ...], ...]

    @property
    def text(self) -> str:
        """One visual row a line of text, its parts joined by two spaces."""
        return "\n".join("  ".join(line.text for line in row) for row in self.rows)


def read(probabilities: NDArray[np.float32], characters: Sequence[str]) -> Reading:
    """Read a page.

    Args:
        probabilities: P_vocab on the page's cells, float32 [rows, columns, V'].
        characters: what each of the V' words says; index 0 is "empty".

    Returns:
        The text with the cell and the probability of every character.
    """
    snapped = _snap_rows(np.asarray(probabilities, dtype=np.float32))
    written = np.flatnonzero(snapped[..., 1:].sum(-1).max(axis=1, initial=0) >= _WEAK)
    glyphs = [_emit(snapped[row], int(row), characters) for row in written]
    gaps = np.concatenate([_gaps(row) for row in glyphs] or [np.empty(0)])
    widest = _WIDEST * float(np.median(gaps)) if len(gaps) else _MIN_PITCH
    lines = [segment for row in glyphs for segment in _segments(row, widest)]
    lines = [line for line in map(_stripped, _linked(lines)) if line.glyphs]
    return Reading(rows=_visual_rows(lines))


def _snap_rows(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring each line of text into one row, where it was split between two neighbours.

    Two rows hold the same line where they agree wherever both say something; the run of text
    then moves into the row that says more of it.
    """
    result = probabilities.copy()
    for row in range(len(result) - 1):
        pair = result[row : row + 2]
        mass = pair[..., 1:].sum(-1)
        both = mass.min(axis=0)
        differ = both * (pair[0, :, 1:].argmax(-1) != pair[1, :, 1:].argmax(-1))
        for start, end in _runs(mass.sum(axis=0)):
            run = slice(start, end)
            if differ[run].sum() > _AT_ODDS * both[run].sum() + _TRACE:
                continue
            weaker = int(mass[0, run].sum() > mass[1, run].sum())
            pair[1 - weaker, run, 1:] += pair[weaker, run, 1:]
            pair[weaker, run, 1:] = 0
    return result


def _runs(mass: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Stretches of columns that hold text, without a gap as wide as that between columns."""
    written = np.flatnonzero(mass > _TRACE)
    if not len(written):
        return []
    cuts = np.flatnonzero(np.diff(written) > _RUN_GAP)
    starts = written[np.concatenate(([0], cuts + 1))]
    ends = written[np.concatenate((cuts, [len(written) - 1]))] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _emit(cells: NDArray[np.float32], row: int, characters: Sequence[str]) -> list[ReadGlyph]:
    """The characters of one row of cells [columns, V']."""
    said = cells[:, 1:]
    mass, best = said.sum(-1), said.argmax(-1)
    pitch = _pitch(mass, best)
    glyphs: list[ReadGlyph] = []
    column = 0
    while column < len(mass):
        pair = mass[column : column + 2].sum()
        follows = column + 1 < len(mass) and mass[column + 1] >= _WEAK
        same = follows and best[column] == best[column + 1]
        if mass[column] < _WEAK:
            width = 0
        elif same and _is_one(characters[best[column] + 1], pair, pitch):
            width = 2 if pair >= _STRONG else 0
        elif mass[column] >= _STRONG:
            width = 1
        else:
            width = 2 if follows and mass[column + 1] < _STRONG and pair >= _PAIR else 0
        if width:
            share = said[column : column + width].sum(0)
            glyphs.append(_glyph(share, row, column, characters))
        column += max(1, width)
    return glyphs


def _pitch(mass: NDArray[np.float32], best: NDArray[np.int64]) -> float:
    """Typical distance of neighbouring characters in a row, runs of one character counted once."""
    strong = np.flatnonzero(mass >= _STRONG)
    repeated = np.zeros(len(strong), dtype=bool)
    repeated[1:] = (np.diff(strong) == 1) & (best[strong[1:]] == best[strong[:-1]])
    gaps = np.diff(strong[~repeated])
    return max(_MIN_PITCH, float(np.median(gaps))) if len(gaps) else _MIN_PITCH


def _is_one(char: str, mass: float, pitch: float) -> bool:
    """Whether two neighbouring cells that both say `char` show it once."""
    far_apart = _WIDTHS.get(char, 1.0) * pitch >= _APART
    return mass < (_CERTAIN if far_apart else _SAME)


def _glyph(
    share: NDArray[np.float32], row: int, column: int, characters: Sequence[str]
) -> ReadGlyph:
    share = share / share.sum()
    second, first = np.argpartition(share, -2)[-2:] if len(share) > 1 else (0, 0)
    if share[second] > share[first]:
        first, second = second, first
    return ReadGlyph(
        char=characters[first + 1],
        probability=float(share[first]),
        row=row,
        column=column,
        other=(characters[second + 1], float(share[second])),
    )


def _gaps(glyphs: list[ReadGlyph]) -> NDArray[np.float64]:
    """Distances in cells between neighbours of one row."""
    return np.diff(np.array([glyph.column for glyph in glyphs], dtype=np.float64))


def _segments(glyphs: list[ReadGlyph], widest: float) -> list[ReadLine]:
    """Cut a row of characters where another column of the page begins; add missing spaces.

    Args:
        glyphs: of one row, from left to right.
        widest: largest distance in cells that neighbouring characters of this page may have.
    """
    gaps = _gaps(glyphs)
    segments: list[list[ReadGlyph]] = [glyphs[:1]]
    for index, gap in enumerate(gaps):
        near = gaps[max(0, index - 6) : index + 7]
        pitch = max(_MIN_PITCH, min(widest, float(np.quantile(near, _PITCH_QUANTILE))))
        left, right = glyphs[index], glyphs[index + 1]
        if gap > _COLUMN_GAP * pitch:
            segments.append([])
        elif gap > _WORD_GAP * pitch and " " not in (left.char, right.char):
            middle = (left.column + right.column) // 2
            segments[-1].append(ReadGlyph(" ", 1.0, left.row, middle, (" ", 0.0)))
        segments[-1].append(right)
    return [ReadLine(tuple(segment)) for segment in segments if segment]


def _linked(lines: list[ReadLine]) -> list[ReadLine]:
    """Join lines that go on in the row above or below, as those of a skewed page do."""
    lines = sorted(lines, key=lambda line: line.glyphs[0].column)
    joined: list[ReadLine] = []
    for line in lines:
        start = line.glyphs[0]
        for index, other in enumerate(joined):
            end = other.glyphs[-1]
            if abs(end.row - start.row) == 1 and 0 < start.column - end.column <= _reach(other):
                joined[index] = ReadLine(other.glyphs + line.glyphs)
                break
        else:
            joined.append(line)
    return joined


def _reach(line: ReadLine) -> float:
    """How many cells after a line's end its next character may stand."""
    columns = [glyph.column for glyph in line.glyphs]
    pitch = float(np.median(np.diff(columns))) if len(columns) > 1 else 3.0
    return 2.0 * max(_MIN_PITCH, pitch)


def _stripped(line: ReadLine) -> ReadLine:
    """The line without spaces at its ends and without a second space in a row."""
    glyphs: list[ReadGlyph] = []
    for glyph in line.glyphs:
        if glyph.char != " " or (glyphs and glyphs[-1].char != " "):
            glyphs.append(glyph)
    if glyphs and glyphs[-1].char == " ":
        glyphs.pop()
    return ReadLine(tuple(glyphs))


def _visual_rows(lines: list[ReadLine]) -> tuple[tuple[ReadLine, ...], ...]:
    """Lines side by side become one row; rows go from top to bottom."""
    rows: list[list[ReadLine]] = []
    for line in sorted(lines, key=_height):
        if rows and abs(_height(rows[-1][0]) - _height(line)) <= 1 and _beside(rows[-1], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return tuple(tuple(sorted(row, key=lambda line: line.glyphs[0].column)) for row in rows)


def _height(line: ReadLine) -> float:
    return float(np.mean([glyph.row for glyph in line.glyphs]))


def _beside(row: list[ReadLine], line: ReadLine) -> bool:
    start, end = line.glyphs[0].column, line.glyphs[-1].column
    return all(end < other.glyphs[0].column or start > other.glyphs[-1].column for other in row)
