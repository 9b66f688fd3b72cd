"""Tables of numbers with a heading."""

from __future__ import annotations

from dataclasses import dataclass

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
from alignvlm.synth.kinds.sheet import Sheet, TableLook
from alignvlm.synth.page import Page, Question

__all__ = ["draw"]

_NOTES = ("Source: {}.", "Figures are rounded.")


def draw(seed: int, split: Split) -> Page:
    """A page with one table, text of 12-24 px."""
    context = new_context("table", seed, split, (12, 24))
    return pick_template(context, (_ruled, _grid, _striped, _turned))(context)


def _make(context: Context) -> Series:
    rng = context.rng
    return make_series(rng, context.split, rng.randint(3, 8), rng.randint(2, 5))


def _rows(series: Series) -> list[list[str]]:
    body = [[name, *cells] for name, cells in zip(series.rows, series.cells, strict=True)]
    return [[series.table.head, *series.columns], *body]


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
    sheet = Sheet(context)
    series = _that_fits(sheet, _make(context))
    sheet.title(f"Table {context.rng.randint(1, 30)}: {series.heading}", align=align, scale=1.2)
    sheet.down(0.4)
    sheet.table(_rows(series), _shares(len(series.columns)), look)
    sheet.row(_note(context, series))
    return sheet.finish(_ask(context, series))


def _turned(context: Context) -> Page:
    """Rows and columns exchanged, the caption below."""
    sheet = Sheet(context)
    series = _make(context).part(6, 5)
    while not sheet.has_room(series.rows, _room(sheet, len(series.rows)), bold=True):
        series = series.part(len(series.rows) - 1, 5)
    turned = [list(cells) for cells in zip(*_rows(series), strict=True)]
    sheet.rule(width_px=2)
    sheet.table(turned, _shares(len(series.rows)), TableLook())
    sheet.rule(width_px=2)
    sheet.down(0.4)
    sheet.row(f"{series.heading}. {_note(context, series)}", align="center")
    return sheet.finish(_ask(context, series, _TURNED))


def _shares(num_columns: int) -> tuple[int, ...]:
    """Widths of a column of names and of so many of numbers."""
    return (3, *[2] * num_columns)


def _room(sheet: Sheet, num_columns: int) -> float:
    """Pixels for the text of a number's cell."""
    return sheet.width * 2 / sum(_shares(num_columns)) - 0.6 * sheet.px


def _that_fits(sheet: Sheet, series: Series) -> Series:
    """As many columns as can have their whole names; two always can."""
    while not sheet.has_room(series.columns, _room(sheet, len(series.columns)), bold=True):
        series = series.part(len(series.rows), len(series.columns) - 1)
    return series


def _note(context: Context, series: Series) -> str:
    return context.rng.choice(_NOTES).format(series.table.source)


@dataclass(frozen=True)
class _Words:
    """How questions speak of a page: on a turned one the series' rows are its columns."""

    along: str = "row"
    across: str = "column"
    listed: str = "under"


_TURNED = _Words("column", "row", "beside")


def _ask(context: Context, series: Series, words: _Words = _Words()) -> list[Question]:
    rng, spell, table = context.rng, context.style.body.spell, series.table
    counts = (
        (f"How many {words.along}s of numbers are there?", len(series.rows)),
        (f"How many entries are listed {words.listed} {table.head}?", len(series.rows)),
        (f"How many {words.across}s of numbers are there?", len(series.columns)),
    )
    asked, number = rng.choices(counts, (0.4, 0.4, 0.2))[0]
    questions = [
        extraction(context, rng.choice(("title of the table", "subject of the table")),
                   table.title),
        count_question(context, (asked,), number),
        *(_cell(context, series, words) for _ in range(4)),
    ]  # fmt: skip
    column = rng.randrange(len(series.columns))
    values = [series.value(row, column) for row in range(len(series.rows))]
    if values.count(max(values)) == 1:
        asks = ("Which {head} has the highest {quantity} in {column}?",
                "For which {head} is the number {listed} {column} the largest?")  # fmt: skip
        questions.append(
            lookup(context, asks, series.rows[values.index(max(values))], head=table.head.lower(),
                   quantity=table.quantity, column=series.columns[column], listed=words.listed)
        )  # fmt: skip
    low, high = rng.sample(range(len(series.rows)), 2)
    asked = (f"Is the value of {spell(series.rows[low])} in {series.columns[column]} larger than "
             f"that of {spell(series.rows[high])}?")  # fmt: skip
    return [*questions, yes_no(asked, values[low] > values[high])]


def _cell(context: Context, series: Series, words: _Words) -> Question:
    """Asks for one number by the names of its row and its column."""
    row = context.rng.randrange(len(series.rows))
    column = context.rng.randrange(len(series.columns))
    return lookup(
        context,
        (
            "What is the {quantity} of {row} in {column}?",
            "What is the value for {row} in the {across} {column}?",
            "Which number is given for {row} {listed} {column}?",
            "What {quantity} does {row} have for {column}?",
        ),
        series.cells[row][column],
        quantity=series.table.quantity,
        row=context.style.body.spell(series.rows[row]),
        column=series.columns[column],
        across=words.across,
        listed=words.listed,
    )
