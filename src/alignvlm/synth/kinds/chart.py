"""Simple charts whose values are written beside bars, points and slices."""

from __future__ import annotations

from math import cos, radians, sin

from alignvlm.synth.fonts import Split
from alignvlm.synth.kinds.base import (
    Context,
    count_question,
    extraction,
    lookup,
    new_context,
    pick_template,
    yes_no,
)
from alignvlm.synth.kinds.series import Series, make_series
from alignvlm.synth.kinds.sheet import Sheet
from alignvlm.synth.page import Color, Page, Question

__all__ = ["draw"]

_PALETTES: tuple[tuple[Color, ...], ...] = (
    ((78, 121, 167), (242, 142, 43), (225, 87, 89), (118, 183, 178), (89, 161, 79), (237, 201, 72)),
    ((60, 60, 60), (110, 110, 110), (160, 160, 160), (200, 200, 200), (85, 85, 85), (99, 99, 99)),
    ((27, 158, 119), (217, 95, 2), (117, 112, 179), (231, 41, 138), (102, 166, 30), (230, 171, 2)),
)  # fmt: skip
_PLOT_ROWS = 14  # height of the plot in rows of text


def draw(seed: int, split: Split) -> Page:
    """A page with one chart, text of 14-24 px."""
    context = new_context("chart", seed, split, (14, 24))
    return pick_template(context, (_bars, _line, _pie, _lying_bars))(context)


def _start(context: Context, num: int) -> tuple[Series, Sheet]:
    """The data (one number for each row name) and a page with the chart's title.

    No more rows than can have their whole names side by side.
    """
    series, sheet = make_series(context.rng, context.split, num, 1), Sheet(context)
    while not sheet.has_room(series.rows, sheet.width / len(series.rows) - 4):
        series = series.part(len(series.rows) - 1, 1)
    sheet.pitch = min(sheet.pitch, 1.5 * sheet.px)
    unit = f" ({series.table.unit})" if series.table.unit else ""
    align = context.rng.choice(("left", "center"))
    sheet.title(f"{series.table.title}, {series.columns[0]}{unit}", align=align, scale=1.25)
    sheet.down(0.5)
    return series, sheet


def _values(series: Series) -> list[float]:
    return [series.value(row, 0) for row in range(len(series.rows))]


def _bars(context: Context) -> Page:
    """Upright bars, values over them and names under them."""
    series, sheet = _start(context, context.rng.randint(3, 6))
    colors = context.rng.choice(_PALETTES)
    top, base = sheet.y + sheet.pitch, sheet.y + _PLOT_ROWS * sheet.pitch
    step = sheet.width / len(series.rows)
    largest = max(_values(series))
    one_color = context.rng.random() < 0.6
    for index, name in enumerate(series.rows):
        x = sheet.left + index * step
        high = base - (base - top) * series.value(index, 0) / largest
        color = colors[0 if one_color else index % len(colors)]
        sheet.canvas.box(x + 0.2 * step, high, x + 0.8 * step, base, fill=color)
        sheet.y = high - sheet.pitch
        sheet.put(series.cells[index][0], x, x + step, align="center")
        sheet.y = base + 0.1 * sheet.pitch
        sheet.put(name, x, x + step - 4, align="center")
    sheet.canvas.rule(sheet.left, base, sheet.right, base, sheet.style.ink)
    sheet.down(1.2)
    return _close(sheet, series, "bar", "bars")


def _lying_bars(context: Context) -> Page:
    """Bars from left to right, names before them and values behind them."""
    series, sheet = _start(context, context.rng.randint(3, 7))
    color = context.rng.choice(_PALETTES)[0]
    start, end = sheet.left + 0.28 * sheet.width, sheet.right - 5 * sheet.px
    largest = max(_values(series))
    top = sheet.y
    for index, name in enumerate(series.rows):
        sheet.put(name, sheet.left, start - 8, align="right")
        right = start + (end - start) * series.value(index, 0) / largest
        sheet.canvas.box(start, sheet.y + 2, right, sheet.y + sheet.pitch - 2, fill=color)
        sheet.put(series.cells[index][0], right + 6, sheet.right)
        sheet.down(1.5)
    sheet.canvas.rule(start, top - 4, start, sheet.y, sheet.style.ink)
    return _close(sheet, series, "bar", "bars")


def _line(context: Context) -> Page:
    """Points joined by a line, a value over every point."""
    series, sheet = _start(context, context.rng.randint(4, 6))
    color = context.rng.choice(_PALETTES)[0]
    top, base = sheet.y + sheet.pitch, sheet.y + _PLOT_ROWS * sheet.pitch
    step = sheet.width / len(series.rows)
    largest = max(_values(series))
    points = [
        (sheet.left + (index + 0.5) * step, base - 0.85 * (base - top) * value / largest)
        for index, value in enumerate(_values(series))
    ]
    if context.rng.random() < 0.5:
        for part in range(1, 5):
            y = base - part * (base - top) / 4.5
            sheet.canvas.rule(sheet.left, y, sheet.right, y, (215, 215, 215))
    sheet.canvas.curve(points, color, 2)
    for index, (x, y) in enumerate(points):
        sheet.canvas.ellipse(x - 4, y - 4, x + 4, y + 4, color, color)
        sheet.y = y - 1.2 * sheet.pitch
        sheet.put(series.cells[index][0], x - step / 2, x + step / 2, align="center")
        sheet.y = base + 0.1 * sheet.pitch
        sheet.put(series.rows[index], x - step / 2, x + step / 2 - 4, align="center")
    sheet.canvas.rule(sheet.left, top, sheet.left, base, sheet.style.ink)
    sheet.canvas.rule(sheet.left, base, sheet.right, base, sheet.style.ink)
    sheet.down(1.2)
    return _close(sheet, series, "point", "points")


def _pie(context: Context) -> Page:
    """A pie with values at its slices and a legend on the right."""
    series, sheet = _start(context, context.rng.randint(3, 6))
    colors = context.rng.choice(_PALETTES)
    radius = 0.19 * sheet.width
    cx, cy = sheet.left + 0.3 * sheet.width, sheet.y + radius + 1.6 * sheet.pitch
    total = sum(_values(series))
    angle, legend = -90.0, cy - len(series.rows) * 0.65 * sheet.pitch
    for index, name in enumerate(series.rows):
        turn = 360 * series.value(index, 0) / total
        color = colors[index % len(colors)]
        box = (cx - radius, cy - radius, cx + radius, cy + radius)
        sheet.canvas.slice(box, angle, angle + turn, color)
        middle = radians(angle + turn / 2)
        x, y = cx + (radius + 1.7 * sheet.px) * cos(middle), cy + 1.2 * radius * sin(middle)
        sheet.y = y - 0.5 * sheet.pitch
        if turn > 14:  # narrower slices have no room for a number of their own
            sheet.put(series.cells[index][0], x - 60, x + 60, align="center")
        sheet.y = legend + index * 1.3 * sheet.pitch
        left = sheet.left + 0.64 * sheet.width
        box_px = 0.7 * sheet.px
        top = sheet.y + 0.5 * sheet.pitch - 0.5 * box_px
        sheet.canvas.box(left, top, left + box_px, top + box_px, fill=color)
        sheet.put(f"{name}: {series.cells[index][0]}", left + 1.3 * box_px, sheet.right)
        angle += turn
    sheet.y = cy + radius + 2.5 * sheet.pitch
    return _close(sheet, series, "slice", "slices")


def _close(sheet: Sheet, series: Series, part: str, parts: str) -> Page:
    context, rng = sheet.context, sheet.context.rng
    spell = context.style.body.spell
    values = _values(series)
    best = max(range(len(values)), key=values.__getitem__)
    least = min(range(len(values)), key=values.__getitem__)
    names = {"parts": parts, "part": part, "quantity": series.table.quantity}
    questions: list[Question] = [
        extraction(context, rng.choice(("title of the chart", "subject of the chart")),
                   f"{series.table.title}, {series.columns[0]}"),
        count_question(context, (f"How many {parts} are there?", f"Count the {parts}."),
                       len(series.rows)),
    ]  # fmt: skip
    for index in rng.sample(range(len(values)), min(3, len(values))):
        questions.append(
            lookup(context, ("What is the value of {row}?", "What is the {quantity} for {row}?",
                             "Which number belongs to {row}?"), series.cells[index][0],
                   row=spell(series.rows[index]), **names)
        )  # fmt: skip
    if values.count(values[best]) == 1:
        questions.append(lookup(context, ("Which {part} is the largest?",
                                          "What has the highest {quantity}?"),
                                series.rows[best], **names))  # fmt: skip
    if values.count(values[least]) == 1:
        questions.append(lookup(context, ("Which {part} is the smallest?",
                                          "What has the lowest {quantity}?"),
                                series.rows[least], **names))  # fmt: skip
    one, two = rng.sample(range(len(values)), 2)
    asked = f"Is {spell(series.rows[one])} higher than {spell(series.rows[two])}?"
    questions.append(yes_no(asked, values[one] > values[two]))
    return sheet.finish(questions)
