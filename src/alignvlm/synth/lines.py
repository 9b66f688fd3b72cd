"""Dense tiles of text: the training material of the character reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from alignvlm.synth import content
from alignvlm.synth.degrade import degrade
from alignvlm.synth.fonts import Font, Split, pick_font
from alignvlm.synth.page import Canvas, Color, Page

__all__ = ["text_tile"]

_WORD_EM = 3.2  # a word and its space are about this many ems wide: how many words fill a line


@dataclass
class _Column:
    """A part of the tile between two x, filled from top to bottom with text of a split."""

    x0: float
    x1: float
    y: float
    split: Split


@dataclass(frozen=True)
class _Ink:
    """How one block of text looks."""

    font: Font
    font_px: int
    pitch: float
    fill: Color
    paper: Color


def text_tile(
    rng: Random,
    fonts: Sequence[Font],
    size_px: int = 384,
    font_px: tuple[int, int] = (12, 40),
    strength: float = 1.0,
    split: Split = "train",
) -> Page:
    """A square tile densely covered with random text, as if cropped from a page.

    Columns of paragraphs, keys with values, tables, headings and gaps; ruled, shaded or light on
    dark; cut off at the border like any crop. Sizes are log-uniform in `font_px` (inclusive), in
    pixels per em.

    Args:
        rng: source of randomness; the tile depends on it, `fonts` and the sizes alone.
        fonts: faces to draw with, from `find_fonts`.
        size_px: side of the tile.
        font_px: smallest and largest text.
        strength: of the degradations, 0 for a clean tile.
        split: whose sentences are quoted.

    Raises:
        MissingDependencyError: faker is not installed.
    """
    seed = rng.getrandbits(32)
    paper, ink = _colors(rng)
    canvas = Canvas(size_px, size_px, paper, scale=rng.choice((1, 2)))
    main = pick_font(rng, fonts)
    for column in _columns(rng, size_px, split):
        mixed = rng.random() < 0.4
        size = _log_uniform(rng, font_px)
        while column.y < size_px:
            font = pick_font(rng, fonts) if mixed else main
            px = _log_uniform(rng, font_px) if mixed else size
            shaded = rng.random() < 0.06
            behind, before = _colors(rng) if shaded else (paper, ink)
            look = _Ink(font, px, rng.uniform(1.05, 2.0) ** rng.choice((1, 0.5)), before, behind)
            _block(canvas, rng, column, look, shaded)
    return degrade(canvas.finish("tile", seed, main), rng, strength)


def _log_uniform(rng: Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return min(high, int(low * ((high + 1) / low) ** rng.random()))


def _colors(rng: Random) -> tuple[Color, Color]:
    """Paper and ink that can be told apart: mostly black on white, sometimes light on dark."""
    draw = rng.random()
    light = (255, 255, 255) if draw < 0.7 else _shade(rng, 215, 255)
    dark = (0, 0, 0) if draw < 0.4 else _shade(rng, 0, 110)
    return (dark, light) if rng.random() < 0.1 else (light, dark)


def _shade(rng: Random, low: int, high: int) -> Color:
    grey = rng.randint(low, high)
    if rng.random() < 0.4:
        return (grey, grey, grey)
    return (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))


def _columns(rng: Random, size_px: int, split: Split) -> list[_Column]:
    """One to three columns, starting anywhere, now and then cut by the border of the tile."""
    num = rng.choices((1, 2, 3), (0.6, 0.33, 0.07))[0]
    left = rng.uniform(-40, 30) if rng.random() < 0.5 else rng.uniform(2, 30)
    right = size_px + rng.uniform(-40, 60)
    gap = rng.uniform(10, 30)
    cuts = sorted(rng.uniform(0.3, 0.7) * (right - left) + left for _ in range(num - 1))
    if num == 3:
        cuts = [left + (right - left) * share for share in (1 / 3, 2 / 3)]
    edges = [left, *cuts, right + gap]
    return [_Column(x0, x1 - gap, rng.uniform(-30, 25), split) for x0, x1 in pairwise(edges)]


def _block(canvas: Canvas, rng: Random, column: _Column, look: _Ink, shaded: bool) -> None:
    """Draw one block at the column's y and move the y below it."""
    if shaded:
        height = look.font_px * look.pitch * rng.randint(1, 3) + 6
        canvas.box(column.x0 - 4, column.y, column.x1 + 4, column.y + height, fill=look.paper)
        bottom = column.y + height
        _paragraph(canvas, rng, column, look, bottom)
        column.y = bottom + rng.uniform(2, 8)
        return
    draw = rng.random()
    if draw < 0.5:
        bottom = column.y + look.font_px * look.pitch * rng.randint(1, 7) + 2
        _paragraph(canvas, rng, column, look, bottom)
    elif draw < 0.68:
        _pairs(canvas, rng, column, look)
    elif draw < 0.92:
        _table(canvas, rng, column, look)
    else:
        column.y += rng.uniform(10, 60)
    if rng.random() < 0.12:
        canvas.rule(column.x0, column.y + 3, column.x1, column.y + 3, look.fill, rng.choice((1, 2)))
        column.y += 5
    column.y += rng.uniform(0, 0.8) * look.font_px


def _paragraph(canvas: Canvas, rng: Random, column: _Column, look: _Ink, bottom: float) -> None:
    """Lines of running text as long as their bottom stays over `bottom`."""
    align = rng.choices(("left", "center", "right"), (0.8, 0.1, 0.1))[0]
    indent = rng.choice((0, 0, rng.uniform(5, 40)))
    underline = rng.random() < 0.05
    while column.y + look.font_px * look.pitch <= bottom:
        width = column.x1 - column.x0 - indent
        text = content.run_of_text(rng, 1 + int(width / look.font_px / _WORD_EM), column.split)
        text = _fit(canvas, look, text, width if rng.random() < 0.8 else width * rng.random())
        x = {"left": column.x0 + indent, "right": column.x1, "center": (column.x0 + column.x1) / 2}
        baseline = column.y + look.font_px * (0.5 * look.pitch + 0.3)
        end = canvas.text(x[align], baseline, text, look.font, look.font_px, look.fill, align)
        if underline and align == "left":
            canvas.rule(x[align], baseline + 2, end, baseline + 2, look.fill)
        column.y += look.font_px * look.pitch
        indent = indent if rng.random() < 0.3 else 0


def _pairs(canvas: Canvas, rng: Random, column: _Column, look: _Ink) -> None:
    """Lines of `Key: value`, the values in a column of their own or right after the key."""
    stop = column.x0 + (column.x1 - column.x0) * rng.uniform(0.3, 0.6)
    aligned, right = rng.random() < 0.5, rng.random() < 0.3
    mark = rng.choice((":", ":", "", " -", " ="))
    for _ in range(rng.randint(1, 6)):
        baseline = column.y + look.font_px * (0.5 * look.pitch + 0.3)
        key = " ".join(content.word(rng) for _ in range(rng.randint(1, 2))).capitalize() + mark
        key = _fit(canvas, look, key, stop - column.x0)
        end = canvas.text(column.x0, baseline, key, look.font, look.font_px, look.fill)
        start = stop + look.font_px * 0.5 if aligned else end + look.font_px * 0.4
        text = content.run_of_text(rng, rng.randint(1, 3), column.split)
        value = _fit(canvas, look, text, column.x1 - start)
        x = column.x1 if right else start
        canvas.text(x, baseline, value, look.font, look.font_px, look.fill,
                    "right" if right else "left")  # fmt: skip
        column.y += look.font_px * look.pitch


def _table(canvas: Canvas, rng: Random, column: _Column, look: _Ink) -> None:
    """Rows of cells, sometimes ruled, sometimes with every other row shaded."""
    width = column.x1 - column.x0
    num_columns = max(1, min(5, int(width / (look.font_px * rng.uniform(3, 7)))))
    step = width / num_columns
    ruled, framed, striped = rng.random() < 0.3, rng.random() < 0.3, rng.random() < 0.25
    pitch = max(look.pitch, 1.3) if ruled or framed else look.pitch
    align = rng.choice(("left", "right", "center"))
    fades = sum(look.paper) > 3 * 128
    shade = tuple(v - 22 if fades else v + 22 for v in look.paper)
    for row in range(rng.randint(2, 6)):
        top, height = column.y, look.font_px * pitch
        if striped and row % 2:
            canvas.box(column.x0, top, column.x1, top + height, fill=(shade[0], shade[1], shade[2]))
        for index in range(num_columns):
            x0 = column.x0 + index * step
            if framed:
                canvas.box(x0, top, x0 + step, top + height, outline=look.fill)
            text = content.run_of_text(rng, 2, column.split)
            text = _fit(canvas, look, text, step - look.font_px * 0.6)
            x = x0 + {"left": 0.3 * look.font_px, "right": step - 0.3 * look.font_px,
                      "center": step / 2}[align]  # fmt: skip
            baseline = top + look.font_px * (0.5 * pitch + 0.3)
            canvas.text(x, baseline, text, look.font, look.font_px, look.fill, align)
        column.y += height
        if ruled and not framed:
            canvas.rule(column.x0, column.y, column.x1, column.y, look.fill)


def _fit(canvas: Canvas, look: _Ink, text: str, width_px: float) -> str:
    """The beginning of `text` that fits in a width; cut between characters if it must be."""
    length = canvas.measure(text, look.font, look.font_px)
    while text and length > width_px:
        keep = int(len(text) * max(0.0, width_px) / length)
        text = text[: min(keep, len(text) - 1)].rstrip()
        length = canvas.measure(text, look.font, look.font_px)
    return text
