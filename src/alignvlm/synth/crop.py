"""A square part of a page, with the text that is still readable in it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from PIL import Image

from alignvlm.synth.page import Glyph, Line, Page, clip_lines


def random_crop(page: Page, rng: Random, size_px: int) -> Page:
    """A `size_px` x `size_px` part at a random place; a smaller page is set on white paper.

    Questions are dropped: their answers may lie outside.
    """
    left = rng.randint(0, max(0, page.image.width - size_px))
    top = rng.randint(0, max(0, page.image.height - size_px))
    sheet = Image.new("RGB", (size_px, size_px), (255, 255, 255))
    sheet.paste(page.image, (-left, -top))
    moved = [_moved(line, -left, -top) for line in page.lines]
    kept = tuple(clip_lines(moved, size_px, size_px))
    return replace(page, image=sheet, lines=kept, questions=())


def _moved(line: Line, dx: float, dy: float) -> Line:
    glyphs = tuple(Glyph(g.char, g.x0 + dx, g.y0 + dy, g.x1 + dx, g.y1 + dy) for g in line.glyphs)
    return replace(line, glyphs=glyphs, baseline_px=line.baseline_px + dy)
