"""What printing, scanning and photographing do to a page, seeded."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from math import cos, radians, sin, tan
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from alignvlm.synth.page import Glyph, Line, Page, clip_lines

__all__ = ["degrade", "degrade_image", "skew"]

_MAX_SKEW_DEG = 1.5


def degrade(page: Page, rng: Random, strength: float = 1.0) -> Page:
    """The page after a random few degradations; boxes follow where the geometry changes.

    Args:
        page: a clean page.
        rng: source of randomness; the result depends on nothing else.
        strength: 0 changes nothing, 1 is a mediocre office scan at worst.
    """
    if rng.random() < 0.3 * min(strength, 1.0):
        page = skew(page, rng.uniform(-_MAX_SKEW_DEG, _MAX_SKEW_DEG) * min(strength, 1.0))
    return replace(page, image=degrade_image(page.image, rng, strength))


def degrade_image(image: Image.Image, rng: Random, strength: float = 1.0) -> Image.Image:
    """An RGB image after degradations that move nothing: boxes of its text stay right."""
    steps: tuple[tuple[float, Callable[[Image.Image, Random, float], Image.Image]], ...] = (
        (0.12, _tint),
        (0.2, _resample),
        (0.25, _blur),
        (0.35, _contrast),
        (0.3, _noise),
        (0.3, _jpeg),
    )
    for probability, step in steps:
        if rng.random() < probability * min(strength, 1.0):
            image = step(image, rng, strength)
    return image


def skew(page: Page, angle_deg: float) -> Page:
    """The page turned about its centre by a small angle (counter-clockwise), boxes included."""
    corner = page.image.getpixel((0, 0))
    image = page.image.rotate(angle_deg, Image.Resampling.BICUBIC, fillcolor=corner)
    width, height = page.image.size
    turn = _Turn(width / 2, height / 2, radians(angle_deg))
    lines = clip_lines([turn.line(line) for line in page.lines], width, height)
    return replace(page, image=image, lines=tuple(lines))


class _Turn:
    """A rotation about a centre, counter-clockwise on the screen, y pointing down."""

    def __init__(self, cx: float, cy: float, angle: float) -> None:
        self._cx, self._cy, self._angle = cx, cy, angle

    def point(self, x: float, y: float) -> tuple[float, float]:
        dx, dy = x - self._cx, y - self._cy
        c, s = cos(self._angle), sin(self._angle)
        return self._cx + c * dx + s * dy, self._cy - s * dx + c * dy

    def line(self, line: Line) -> Line:
        x0, _, x1, _ = line.box
        _, baseline = self.point((x0 + x1) / 2, line.baseline_at((x0 + x1) / 2))
        glyphs = tuple(self._glyph(g) for g in line.glyphs)
        return replace(line, glyphs=glyphs, baseline_px=baseline, slope=-tan(self._angle))

    def _glyph(self, glyph: Glyph) -> Glyph:
        corners = [self.point(x, y) for x in (glyph.x0, glyph.x1) for y in (glyph.y0, glyph.y1)]
        xs, ys = zip(*corners, strict=True)
        return Glyph(glyph.char, min(xs), min(ys), max(xs), max(ys))


def _tint(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    """Coloured paper: white becomes a light colour, black stays."""
    low = round(255 - 55 * min(strength, 1.5))
    paper = [rng.randint(low, 255) for _ in range(3)]
    if rng.random() < 0.5:
        paper = [paper[0]] * 3
    tables = [round(v * p / 255) for p in paper for v in range(256)]
    return image.point(tables)


def _resample(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    factor = rng.uniform(1 - 0.3 * min(strength, 1.5), 0.95)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _blur(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8) * strength))


def _contrast(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    image = ImageEnhance.Contrast(image).enhance(1 - rng.uniform(-0.2, 0.5) * min(strength, 1.5))
    return ImageEnhance.Brightness(image).enhance(1 + rng.uniform(-0.2, 0.1) * strength)


def _noise(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    source = np.random.default_rng(rng.getrandbits(64))
    pixels = np.asarray(image, dtype=np.float32)
    shape = pixels.shape if rng.random() < 0.3 else (*pixels.shape[:2], 1)
    grain = source.standard_normal(shape, dtype=np.float32) * (rng.uniform(2, 14) * strength)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    quality = round(rng.uniform(90 - 50 * min(strength, 1.5), 92))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    # The bytes are our own, written the line before; nothing of a stranger is opened here.
    return Image.open(buffer, formats=["JPEG"]).convert("RGB")
