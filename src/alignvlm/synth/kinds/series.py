"""Parts of real tables, small enough for a page: what tables and charts show."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from alignvlm.synth import corpus
from alignvlm.synth.fonts import Split

__all__ = ["Series", "make_series"]


@dataclass(frozen=True)
class Series:
    """A part of a table: `cells[i][j]` belongs to `rows[i]` and `columns[j]`."""

    table: corpus.Table
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    @property
    def heading(self) -> str:
        """The table's title, with its unit where it has one."""
        return f"{self.table.title} ({self.table.unit})" if self.table.unit else self.table.title

    def part(self, num_rows: int, num_columns: int) -> Series:
        """Its first rows and columns."""
        cells = tuple(row[:num_columns] for row in self.cells[:num_rows])
        return Series(self.table, self.rows[:num_rows], self.columns[:num_columns], cells)

    def value(self, row: int, column: int) -> float:
        """The number in a cell."""
        return float(self.cells[row][column])


def make_series(rng: Random, split: Split, num_rows: int, num_columns: int) -> Series:
    """Rows and columns of a random table of this split, all numbers above zero.

    Columns keep their order; rows keep theirs where they follow each other in time. A table with
    fewer columns gives all of them.
    """
    while True:
        table = rng.choice(corpus.tables(split))
        first = rng.randrange(max(1, len(table.columns) - num_columns + 1))
        shown = slice(first, first + num_columns)
        rows = _rows(rng, table, num_rows)
        cells = tuple(cells[shown] for _, cells in rows)
        if all(float(cell) > 0 for row in cells for cell in row):  # a bar of 0 cannot be seen
            return Series(table, tuple(name for name, _ in rows), table.columns[shown], cells)


def _rows(rng: Random, table: corpus.Table, num: int) -> list[tuple[str, tuple[str, ...]]]:
    if not table.ordered:
        return rng.sample(table.rows, num)
    first = rng.randrange(len(table.rows) - num + 1)
    return list(table.rows[first : first + num])
