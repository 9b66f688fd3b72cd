"""Easy pages: three to eight lines of `Key: value` in large print on one small tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from alignvlm.synth import content
from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.base import Context, extraction, finish, new_context, pick_template
from alignvlm.synth.page import Canvas, Page

__all__ = ["Sheet", "draw", "draw_on"]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The size of a page.

    Attributes:
        side_px: its width, and its largest height.
        font_px: smallest and largest print.
        num_lines: fewest and most lines of `Key: value`.
        pitch_px: least distance of two baselines.
    """

    side_px: int
    font_px: tuple[int, int]
    num_lines: tuple[int, int]
    pitch_px: int = 0


_SHEET = Sheet(side_px=384, font_px=(20, 36), num_lines=(3, 8))


def draw(seed: int, split: Split) -> Page:
    """An easy page: at most 384 x 384 px, text of 20-36 px."""
    return draw_on(_SHEET, "easy", seed, split)


def draw_on(sheet: Sheet, kind: str, seed: int, split: Split) -> Page:
    """A page of `Key: value` lines of this size."""
    context = new_context(kind, seed, split, sheet.font_px)
    layouts = [partial(layout, sheet=sheet) for layout in (_plain, _aligned, _framed, _titled)]
    return pick_template(context, layouts)(context)


def _value(context: Context, key: str) -> str:
    return context.date() if key in _DATED else _MAKERS[key](context.rng)


_TITLES = ("Summary", "Order", "Details", "Record", "Note", "Label", "Delivery", "Ticket", "Card")
_NAMES = {"Invoice": "invoice number", "Order": "order number", "Account": "account number"}
_DATED = ("Date", "Due date", "Birthday")
_COLOURS = (
    "red", "green", "blue", "black", "white", "yellow", "dark grey", "orange", "light brown",
)  # fmt: skip
_MAKERS: dict[str, Callable[[Random], str]] = {
    "Name": lambda rng: rng.choice(content.pools().names),
    "Customer": lambda rng: rng.choice(content.pools().names),
    "Contact": lambda rng: rng.choice(content.pools().names),
    "Patient": lambda rng: rng.choice(content.pools().names),
    "City": lambda rng: rng.choice(content.pools().towns),
    "Company": lambda rng: rng.choice(content.pools().companies),
    "Total": content.money,
    "Price": content.money,
    "Balance": content.money,
    "Deposit": content.money,
    "Invoice": content.code,
    "Order": content.code,
    "Reference": content.code,
    "Account": lambda rng: str(rng.randrange(10**5, 10**9)),
    "Phone": content.phone,
    "Email": content.email,
    "Quantity": lambda rng: str(rng.randint(1, 999)),
    "Weight": lambda rng: f"{rng.uniform(0.1, 99):.1f} kg",
    "Length": lambda rng: f"{rng.randint(2, 400)} cm",
    "Colour": lambda rng: rng.choice(_COLOURS),
    "Status": lambda rng: rng.choice(("paid", "open", "sent", "late", "closed", "on hold")),
    "Room": lambda rng: f"{rng.choice('ABCDEFG')}{rng.randint(1, 599)}",
    "Code": content.random_string,
    "Password": content.random_string,
    "Item": lambda rng: f"{content.word(rng)} {content.word(rng)}",
    "Subject": lambda rng: f"{content.word(rng)} {content.word(rng)}",
    "Product": content.word,
    "Job": lambda rng: rng.choice(content.pools().jobs),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Layout:
    aligned: bool = False
    framed: bool = False
    title: bool = False


def _plain(context: Context, sheet: Sheet) -> Page:
    """Key, colon and value on one line after another."""
    return _draw(context, _Layout(), sheet)


def _aligned(context: Context, sheet: Sheet) -> Page:
    """The values in a column of their own."""
    return _draw(context, _Layout(aligned=True), sheet)


def _framed(context: Context, sheet: Sheet) -> Page:
    """Every line in a box."""
    return _draw(context, _Layout(framed=True), sheet)


def _titled(context: Context, sheet: Sheet) -> Page:
    """A heading over a rule, then the lines."""
    return _draw(context, _Layout(title=True, aligned=context.rng.random() < 0.5), sheet)


def _draw(context: Context, layout: _Layout, sheet: Sheet) -> Page:
    rng, style, side = context.rng, context.style, sheet.side_px
    px = style.font_px
    pitch = max(sheet.pitch_px, px * rng.uniform(1.25, 1.9))
    left, top = rng.randint(6, 20), rng.randint(4, 14)
    used = top + (pitch if layout.title else 0)
    fewest, most = sheet.num_lines
    num = rng.randint(fewest, max(fewest, min(most, int((side - 8 - used) / pitch))))
    height = min(side, round(used + pitch * num + rng.randint(6, 40)))
    canvas = context.canvas(side, height)
    keys = rng.sample(sorted((*_MAKERS, *_DATED)), num)
    if layout.title:
        canvas.text(left, top + px, rng.choice(_TITLES), style.bold, px, style.accent)
        canvas.rule(left, top + pitch - 2, side - left, top + pitch - 2, style.accent)
    label_font = style.bold if layout.framed or rng.random() < 0.2 else style.body
    stop = max(canvas.measure(f"{key}:", label_font, px) for key in keys)
    questions = []
    for index, key in enumerate(keys):
        row = used + pitch * index
        if layout.framed:
            canvas.box(left - 4, row, side - 4, row + pitch, outline=style.accent)
        y = row + 0.5 * pitch + 0.33 * px
        end = canvas.text(left, y, f"{key}:", label_font, px, style.ink)
        x = left + stop + 0.5 * px if layout.aligned else end + 0.35 * px
        value = _fitting(context, canvas, key, side - 8 - x)
        canvas.text(x, y, value, style.body, px, style.ink)
        questions.append(extraction(context, _NAMES.get(key, key.lower()), value))
    return finish(context, canvas, questions)


def _fitting(context: Context, canvas: Canvas, key: str, room_px: float) -> str:
    """A value of a key that fits in the room left, or a number when none is found."""
    style = context.style
    for _ in range(10):
        value = _value(context, key)
        if canvas.measure(value, style.body, style.font_px) <= room_px:
            return value
    return str(context.rng.randint(1, 99))
