"""Tables of numbers with a heading."""

from __future__ import annotations

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
from alignvlm.synth.kinds.sheet import Sheet, TableLook
from alignvlm.synth.kinds.topics import Series, make_series
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_NOTES = ("Source: own survey.", "Figures are rounded.", "Final figures.", "Estimates.")


def draw(seed: int, split: Split) -> Page:
    """A page with one table, text of 12-24 px."""
    context = new_context("table", seed, split, (12, 24))
    return pick_template(context, (_ruled, _grid, _striped, _turned), split)(context)


def _make(context: Context) -> Series:
    rng = context.rng
    return make_series(rng, rng.randint(3, 8), rng.randint(2, 5))


def _title(series: Series) -> str:
    unit = f" ({series.topic.unit})" if series.topic.unit else ""
    return f"{series.topic.title}{unit}"


def _rows(series: Series) -> list[list[str]]:
    body = [
        [name, *(series.cell(row, column) for column in range(len(series.columns)))]
        for row, name in enumerate(series.rows)
    ]
    return [[series.topic.head, *series.columns], *body]


def _ruled(context: Context) -> Page:
    """Rules above and below, as in a journal."""
    return _page(context, TableLook(rules=context.rng.random() < 0.5), "left")


def _grid(context: Context) -> Page:
    """Every cell in a box."""
    return _page(context, TableLook(grid=True), "center")


def _striped(context: Context) -> Page:
    """Shaded rows under a coloured header."""
    return _page(context, TableLook(stripes=True, head_band=True), "left")


def _page(context: Context, look: TableLook, align: str) -> Page:
    series, sheet = _make(context), Sheet(context)
    sheet.title(f"Table {context.rng.randint(1, 30)}: {_title(series)}", align=align, scale=1.2)
    sheet.down(0.4)
    sheet.table(_rows(series), (3, *[2] * len(series.columns)), look)
    sheet.row(context.rng.choice(_NOTES))
    return sheet.finish(_ask(context, series))


def _turned(context: Context) -> Page:
    """Rows and columns exchanged, the caption below."""
    series, sheet = _make(context), Sheet(context)
    turned = [list(cells) for cells in zip(*_rows(series), strict=True)]
    turned[0][0] = ""
    turned, shown = [row[:7] for row in turned], series.rows[:6]
    sheet.rule(width_px=2)
    sheet.table(turned, (3, *[2] * len(shown)), TableLook())
    sheet.rule(width_px=2)
    sheet.down(0.4)
    sheet.row(f"{_title(series)}. {context.rng.choice(_NOTES)}", align="center")
    kept = Series(series.topic, shown, series.columns, series.values[:6])
    return sheet.finish(_ask(context, kept))


def _ask(context: Context, series: Series) -> list[Question]:
    rng, spell = context.rng, context.style.body.spell
    questions = [
        extraction(context, rng.choice(("title of the table", "subject of the table")),
                   series.topic.title),
        count_question(context, ("How many rows of numbers are there?" if rng.random() < 0.5
                                 else f"How many entries are listed under {series.topic.head}?",),
                       len(series.rows)) if rng.random() < 0.8 else
        count_question(context, ("How many columns of numbers are there?",), len(series.columns)),
    ]  # fmt: skip
    for _ in range(4):
        row, column = rng.randrange(len(series.rows)), rng.randrange(len(series.columns))
        questions.append(
            lookup(context, ("What is the {quantity} of {row} in {column}?",
                             "What is the value for {row} in the column {column}?",
                             "Which number is given for {row} under {column}?",
                             "What {quantity} does {row} have for {column}?"),
                   series.cell(row, column), quantity=series.topic.quantity,
                   row=spell(series.rows[row]), column=series.columns[column])
        )  # fmt: skip
    column = rng.randrange(len(series.columns))
    ordered = sorted(range(len(series.rows)), key=lambda row: series.values[row][column])
    if series.values[ordered[-1]][column] > series.values[ordered[-2]][column]:
        asks = ("Which {head} has the highest {quantity} in {column}?",
                "For which {head} is the number under {column} the largest?")  # fmt: skip
        questions.append(
            lookup(context, asks, series.rows[ordered[-1]], head=series.topic.head.lower(),
                   quantity=series.topic.quantity, column=series.columns[column])
        )  # fmt: skip
    low, high = rng.sample(range(len(series.rows)), 2)
    asked = (f"Is the value of {spell(series.rows[low])} in {series.columns[column]} larger than "
             f"that of {spell(series.rows[high])}?")  # fmt: skip
    questions.append(yes_no(asked, series.values[low][column] > series.values[high][column]))
    return questions
