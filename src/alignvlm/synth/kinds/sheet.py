"""A page filled from top to bottom: a canvas with margins, a cursor and a text size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alignvlm.synth.kinds.base import Context, finish
from alignvlm.synth.page import Color, Page, Question

__all__ = ["Sheet", "TableLook", "pale"]

_HEIGHT_PX = (500, 1200)
_SMALLEST_PX = 12
_EMS_A_LINE = 27  # a page narrower than this many ems has no room for four columns


@dataclass(frozen=True, kw_only=True)
class TableLook:
    """How a table is ruled.

    Attributes:
        rules: lines between rows.
        grid: a box around every cell.
        stripes: every other row shaded.
        head_band: the header on a band of the accent colour.
    """

    rules: bool = False
    grid: bool = False
    stripes: bool = False
    head_band: bool = False


class Sheet:
    """A page 600-940 px wide whose height follows from what is written on it.

    Attributes:
        y: top of the next row in px; `row` and its like move it down.
        left, right: the margins in px.
        px: pixels per em of the text.
        pitch: distance between baselines in px.
    """

    def __init__(self, context: Context, width_px: tuple[int, int] = (600, 940)) -> None:
        rng = context.rng
        self.context = context
        self.style = context.style
        self.px = context.style.font_px
        narrowest = min(width_px[1], max(width_px[0], self.px * _EMS_A_LINE))
        width = rng.randint(narrowest, width_px[1])
        self.canvas = context.canvas(width, _HEIGHT_PX[1])
        self.left: float = rng.randint(24, 56)
        self.right: float = width - self.left
        self.y: float = rng.randint(24, 50)
        self.pitch = self.px * rng.uniform(1.25, 1.65)

    @property
    def width(self) -> float:
        """Between the margins, in px."""
        return self.right - self.left

    @property
    def full(self) -> bool:
        """Whether hardly a row is left."""
        return self.y > _HEIGHT_PX[1] - 3 * self.pitch

    def put(
        self,
        text: str,
        x0: float,
        x1: float,
        *,
        bold: bool = False,
        scale: float = 1.0,
        align: str = "left",
        fill: Color | None = None,
    ) -> float:
        """Write `text` on the current row between two x; returns where it ends.

        Text too long for its place is set smaller, then cut after a word.
        """
        font = self.style.bold if bold else self.style.body
        px = round(self.px * scale)
        while px > _SMALLEST_PX and self.canvas.measure(text, font, px) > x1 - x0:
            px -= 1
        while text and self.canvas.measure(text, font, px) > x1 - x0:
            text = text.rpartition(" ")[0]
        x = {"left": x0, "right": x1, "center": (x0 + x1) / 2}[align]
        baseline = self.y + 0.5 * self.pitch + 0.33 * self.px
        ink = self.style.ink if fill is None else fill
        return self.canvas.text(x, baseline, text, font, px, ink, align)

    def has_room(self, texts: Iterable[str], width_px: float, *, bold: bool = False) -> bool:
        """Whether `put` would cut none of these texts in such a place."""
        font = self.style.bold if bold else self.style.body
        # Not where it fits to the last bit: a place's ends are sums, and rounded otherwise.
        return all(self.canvas.measure(text, font, _SMALLEST_PX) < width_px for text in texts)

    def row(self, text: str, *, bold: bool = False, align: str = "left") -> None:
        """Write a row from margin to margin."""
        self.put(text, self.left, self.right, bold=bold, align=align)
        self.down()

    def title(self, text: str, *, align: str = "left", scale: float = 1.5) -> None:
        """Write a heading in the accent colour."""
        self.y += 0.25 * self.px * scale
        self.put(text, self.left, self.right, bold=True, scale=scale, align=align,
                 fill=self.style.accent)  # fmt: skip
        self.down(0.5 + 0.6 * scale)

    def down(self, rows: float = 1.0) -> None:
        """Move down by rows of text."""
        self.y += rows * self.pitch

    def rule(self, x0: float | None = None, x1: float | None = None, width_px: float = 1) -> None:
        """A line across the page, or between two x, with a little space below."""
        left, right = self.left if x0 is None else x0, self.right if x1 is None else x1
        self.canvas.rule(left, self.y + 2, right, self.y + 2, self.style.accent, width_px)
        self.y += 6

    def pair(self, label: str, value: str, x0: float, x1: float, stop: float | None = None) -> None:
        """A label and its value on the current row; the value starts at `stop` if it is given."""
        end = self.put(label, x0, stop or x1, bold=True)
        self.put(value, max(end + 0.4 * self.px, stop or 0), x1)

    def pairs(
        self, pairs: Sequence[tuple[str, str]], x0: float, x1: float, stop: float | None = None
    ) -> None:
        """A row for every label and value."""
        for label, value in pairs:
            self.pair(label, value, x0, x1, stop)
            self.down()

    def paragraph(self, text: str, x0: float | None = None, x1: float | None = None) -> None:
        """Write running text, broken between words."""
        left, right = self.left if x0 is None else x0, self.right if x1 is None else x1
        for line in self.wrap(text, right - left):
            self.put(line, left, right + 1)
            self.down()

    def wrap(self, text: str, width_px: float) -> list[str]:
        """`text` broken between words into lines no wider than `width_px`."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.canvas.measure(longer, self.style.body, self.px) <= width_px:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def table(
        self,
        rows: Sequence[Sequence[str]],
        shares: Sequence[float],
        look: TableLook,
        x0: float | None = None,
        x1: float | None = None,
    ) -> None:
        """Write a table: the first row is its header, the first column is flush left, others right.

        Args:
            rows: the cells, header first.
            shares: width of every column, relative to the others.
            look: rules and shades.
            x0: where it starts; at the left margin by default.
            x1: where it ends; at the right margin by default.
        """
        left, right = self.left if x0 is None else x0, self.right if x1 is None else x1
        unit = (right - left) / sum(shares)
        for index, cells in enumerate(rows):
            self.band(index, look, left, right)
            x = left
            for column, (cell, share) in enumerate(zip(cells, shares, strict=True)):
                width = share * unit
                if look.grid:
                    box = (x, self.y, x + width, self.y + self.pitch)
                    self.canvas.box(*box, outline=self.style.accent)
                white = look.head_band and index == 0
                self.put(cell, x + 0.3 * self.px, x + width - 0.3 * self.px, bold=index == 0,
                         align="right" if column else "left",
                         fill=(255, 255, 255) if white else None)  # fmt: skip
                x += width
            self.down()
            if look.rules or (index == 0 and not look.grid and not look.head_band):
                self.canvas.rule(left, self.y, right, self.y, self.style.accent)
        self.y += 0.3 * self.px

    def band(
        self, index: int, look: TableLook, x0: float | None = None, x1: float | None = None
    ) -> None:
        """Shade the current row as the look wants it for a table's row `index` (0 the header)."""
        left, right = self.left if x0 is None else x0, self.right if x1 is None else x1
        box = (left, self.y, right, self.y + self.pitch)
        if look.head_band and index == 0:
            self.canvas.box(*box, fill=self.style.accent)
        elif look.stripes and index % 2 == 0:
            self.canvas.box(*box, fill=pale(self.style.accent))

    def finish(self, questions: Sequence[Question]) -> Page:
        """The page, cut off below its last row (at least 500 px high, at most 1200)."""
        margin = self.context.rng.randint(20, 50)
        self.canvas.crop(max(_HEIGHT_PX[0], round(self.y + margin)))
        return finish(self.context, self.canvas, questions)


def pale(color: Color) -> Color:
    """A very light tone of a colour, to write on."""
    red, green, blue = (255 - (255 - v) // 10 for v in color)
    return red, green, blue
