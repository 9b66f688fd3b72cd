"""A page that knows what it says, and the canvas that draws it.

Everything that puts ink of a character on a page goes through `Canvas.text`, which records the
ink box of each glyph while it draws; so the boxes cannot disagree with the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor

from PIL import Image, ImageDraw

from alignvlm.synth.fonts import Font

__all__ = ["Canvas", "Color", "Glyph", "Line", "Page", "Question"]

Color = tuple[int, int, int]

_MIN_VISIBLE = 0.5  # a glyph cut by more than half is no longer readable, and no longer counted


@dataclass(frozen=True)
class Glyph:
    """One character and its ink box in px (x to the right, y down; x1 and y1 exclusive).

    The box of a space is the gap between its neighbours, from x-height to baseline.
    """

    char: str
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Line:
    """One run of text drawn with one font on one baseline (a table cell is a run of its own).

    Attributes:
        text: the characters, one for each glyph.
        glyphs: the glyphs in reading order.
        baseline_px: y of the baseline at the horizontal middle of the run.
        font_px: pixels per em.
        x_height_px: height of `x` over the baseline.
        slope: baseline's dy/dx; not zero only on skewed pages.
    """

    text: str
    glyphs: tuple[Glyph, ...]
    baseline_px: float
    font_px: float
    x_height_px: float
    slope: float = 0.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Ink box (x0, y0, x1, y1) of the whole run in px."""
        return (
            min(g.x0 for g in self.glyphs),
            min(g.y0 for g in self.glyphs),
            max(g.x1 for g in self.glyphs),
            max(g.y1 for g in self.glyphs),
        )

    def baseline_at(self, x: float) -> float:
        """The y of the baseline under `x`, both in px."""
        middle = (self.glyphs[0].x0 + self.glyphs[-1].x1) / 2
        return self.baseline_px + self.slope * (x - middle)


@dataclass(frozen=True)
class Question:
    """A question about a page.

    Attributes:
        question: as a person would ask it.
        answers: accepted answers; the first is the one to train on.
        kind: `"extraction"`, `"lookup"`, `"count"` or `"yes/no"`; the answers of the first two
            stand literally on the page.
    """

    question: str
    answers: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Page:
    """A drawn page: its picture (RGB), its text with boxes, and questions about it.

    Attributes:
        image: the picture.
        lines: every run of text, in reading order.
        questions: questions with answers.
        kind: document kind, one of `alignvlm.synth.ALL_KINDS` or `"tile"` or `"pdf"`.
        seed: what it was made from; with the kind and the split it makes the page again.
        font: family of the main font.
    """

    image: Image.Image
    lines: tuple[Line, ...]
    questions: tuple[Question, ...]
    kind: str
    seed: int
    font: str

    @property
    def text(self) -> str:
        """The page's text from top to bottom as an eye sweeps it, row by row across all columns.

        Runs of one visual row are joined by two spaces, rows by line breaks.
        """
        rows: list[list[Line]] = []
        for line in sorted(self.lines, key=lambda line: line.baseline_at(0.0)):
            if rows and _same_row(rows[-1][0], line):
                rows[-1].append(line)
            else:
                rows.append([line])
        texts = ([line.text for line in sorted(row, key=lambda run: run.box[0])] for row in rows)
        return "\n".join("  ".join(row) for row in texts)


def _same_row(first: Line, line: Line) -> bool:
    """Whether two runs stand on one baseline, which may be skewed."""
    apart = abs(first.baseline_at(0.0) - line.baseline_at(0.0))
    return apart < 0.35 * min(first.font_px, line.font_px)


class Canvas:
    """A white or coloured sheet on which text is drawn and recorded.

    Args:
        width_px, height_px: size of the finished page.
        paper: background colour.
        scale: draw this many times larger and shrink at the end: glyphs then sit at fractions of
            a pixel, unhinted, as PDF renderers and scanners place them. All coordinates given to
            the canvas stay those of the finished page.
    """

    def __init__(
        self, width_px: int, height_px: int, paper: Color = (255, 255, 255), scale: int = 1
    ) -> None:
        self.width_px = width_px
        self.height_px = height_px
        self.paper = paper
        self._scale = scale
        self._image = Image.new("RGB", (width_px * scale, height_px * scale), paper)
        self._draw = ImageDraw.Draw(self._image)
        self._lines: list[Line] = []

    def measure(self, text: str, font: Font, font_px: int) -> float:
        """Advance width of `text` in px of the finished page."""
        return font.at(font_px * self._scale).length(font.spell(text)) / self._scale

    def text(
        self,
        x: float,
        baseline_px: float,
        text: str,
        font: Font,
        font_px: int,
        fill: Color = (0, 0, 0),
        align: str = "left",
    ) -> float:
        """Draw one run of text and record its glyphs.

        Characters that the font lacks are spelled with others; spaces at both ends are not drawn.

        Args:
            x: the left end, middle or right end of the run, by `align`.
            baseline_px: y of the baseline.
            text: what to draw.
            font: the face.
            font_px: pixels per em.
            fill: colour of the ink.
            align: `"left"`, `"center"` or `"right"`.

        Returns:
            The x of the run's right end.
        """
        text = " ".join(font.spell(text).split())
        if not text:
            return x
        sized = font.at(font_px * self._scale)
        origins = sized.origins(text)
        shift = {"left": 0.0, "center": 0.5, "right": 1.0}[align] * origins[-1]
        left, base = round(x * self._scale - shift), round(baseline_px * self._scale)
        self._draw.text((left, base), text, font=sized.face, fill=fill, anchor="ls")
        glyphs = []
        for char, origin in zip(text, origins, strict=False):
            x0, y0, x1, y1 = sized.ink(char)
            start = left + origin
            glyphs.append(Glyph(char, floor(start + x0), base + y0, ceil(start + x1), base + y1))
        glyphs = _box_spaces(glyphs, base, sized.x_height_px)
        line = Line(text, tuple(glyphs), base, sized.size_px, sized.x_height_px)
        self._lines.append(scale_line(line, 1 / self._scale, 1 / self._scale))
        return (left + origins[-1]) / self._scale

    def rule(
        self, x0: float, y0: float, x1: float, y1: float, fill: Color, width_px: float = 1
    ) -> None:
        """Draw a straight line."""
        width = max(1, round(width_px * self._scale))
        self._draw.line(self._to_ink(x0, y0, x1, y1), fill=fill, width=width)

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: Color | None = None,
        outline: Color | None = None,
        width_px: float = 1,
    ) -> None:
        """Draw a rectangle, filled, outlined or both."""
        width = max(1, round(width_px * self._scale))
        self._draw.rectangle(self._to_ink(x0, y0, x1, y1), fill=fill, outline=outline, width=width)

    def ellipse(
        self, x0: float, y0: float, x1: float, y1: float, fill: Color | None, outline: Color | None
    ) -> None:
        """Draw an ellipse in a box."""
        self._draw.ellipse(
            self._to_ink(x0, y0, x1, y1), fill=fill, outline=outline, width=self._scale
        )

    def slice(
        self, box: tuple[float, float, float, float], start: float, end: float, fill: Color
    ) -> None:
        """Draw a slice of a pie that fills `box`, from `start` to `end` degrees."""
        self._draw.pieslice(self._to_ink(*box), start, end, fill=fill, outline=self.paper)

    def curve(self, points: list[tuple[float, float]], fill: Color, width_px: float = 1) -> None:
        """Draw line segments through points."""
        inked = [(x * self._scale, y * self._scale) for x, y in points]
        self._draw.line(inked, fill=fill, width=max(1, round(width_px * self._scale)))

    def crop(self, height_px: int) -> None:
        """Cut the sheet off below `height_px`."""
        self.height_px = min(self.height_px, height_px)
        self._image = self._image.crop(
            (0, 0, self.width_px * self._scale, self.height_px * self._scale)
        )
        self._draw = ImageDraw.Draw(self._image)

    def finish(
        self, kind: str, seed: int, font: Font, questions: tuple[Question, ...] = ()
    ) -> Page:
        """The finished page; text outside of the sheet is dropped."""
        image = self._image
        if self._scale > 1:
            image = image.reduce(self._scale)
        lines = clip_lines(self._lines, self.width_px, self.height_px)
        return Page(image, tuple(lines), questions, kind, seed, font.family)

    def _to_ink(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
        s = self._scale
        return round(x0 * s), round(y0 * s), round(x1 * s), round(y1 * s)


def _box_spaces(glyphs: list[Glyph], baseline: float, x_height: float) -> list[Glyph]:
    """Give every space the box of the gap between its neighbours."""
    for index, glyph in enumerate(glyphs):
        if glyph.char == " ":
            x0, x1 = glyphs[index - 1].x1, glyphs[index + 1].x0
            glyphs[index] = Glyph(" ", x0, baseline - x_height, max(x0 + 1, x1), baseline)
    return glyphs


def scale_line(line: Line, sx: float, sy: float) -> Line:
    """The line on a page stretched by `sx` and `sy`."""
    glyphs = tuple(Glyph(g.char, g.x0 * sx, g.y0 * sy, g.x1 * sx, g.y1 * sy) for g in line.glyphs)
    return Line(
        line.text,
        glyphs,
        line.baseline_px * sy,
        line.font_px * sy,
        line.x_height_px * sy,
        line.slope * sy / sx,
    )


def clip_lines(lines: list[Line], width_px: float, height_px: float) -> list[Line]:
    """What of `lines` can be read on a sheet: glyphs cut by more than half are dropped."""
    kept = []
    for line in lines:
        x0, y0, x1, y1 = line.box
        if x0 >= 0 and y0 >= 0 and x1 <= width_px and y1 <= height_px:
            kept.append(line)
            continue
        glyphs = [g for g in (_clip(g, width_px, height_px) for g in line.glyphs) if g]
        while glyphs and glyphs[0].char == " ":
            del glyphs[0]
        while glyphs and glyphs[-1].char == " ":
            del glyphs[-1]
        if glyphs:
            middle = (glyphs[0].x0 + glyphs[-1].x1) / 2
            kept.append(
                replace(
                    line,
                    text="".join(g.char for g in glyphs),
                    glyphs=tuple(glyphs),
                    baseline_px=line.baseline_at(middle),
                )
            )
    return kept


def _clip(glyph: Glyph, width_px: float, height_px: float) -> Glyph | None:
    x0, y0 = max(glyph.x0, 0.0), max(glyph.y0, 0.0)
    x1, y1 = min(glyph.x1, width_px), min(glyph.y1, height_px)
    if x1 <= x0 or y1 <= y0:
        return None
    whole = max((glyph.x1 - glyph.x0) * (glyph.y1 - glyph.y0), 1e-6)
    if (x1 - x0) * (y1 - y0) / whole < _MIN_VISIBLE:
        return None
    return Glyph(glyph.char, x0, y0, x1, y1)
