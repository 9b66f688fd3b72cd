"""The paper's tables as data: Tables 1 to 3, and what it says about VCR."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["ColumnGroup", "PaperRow", "PaperTable", "PaperVcr", "paper_tables", "paper_vcr"]


@dataclass(frozen=True, kw_only=True)
class ColumnGroup:
    """Columns with their average, which stands after them.

    Attributes:
        title: above them, "" if there is none.
        benchmarks: our names, in the paper's order.
        headings: the paper's names.
        average: heading of the average.
    """

    title: str
    benchmarks: tuple[str, ...]
    headings: tuple[str, ...]
    average: str


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row as printed.

    Attributes:
        section: heading above it, "" if there is none.
        model: its name without citations.
        values: in per cent, one for each column, averages included.
    """

    section: str
    model: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table as printed.

    Averages are the paper's own. Most are cut after two decimals rather than rounded, and
    Fuyu-8B's (22.97) is not the mean of its row (27.98).
    """

    name: str
    title: str
    column_groups: tuple[ColumnGroup, ...]
    rows: tuple[PaperRow, ...]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Of all columns but the averages."""
        return tuple(name for group in self.column_groups for name in group.benchmarks)


@dataclass(frozen=True, kw_only=True)
class PaperVcr:
    """What the paper says about VCR: Figure 5 is a diagram, only differences stand in the text.

    Attributes:
        name, title: of the figure and its section.
        quote: the sentence.
        model, other: whose scores are compared.
        differences: benchmark to `model` minus `other`, in points; of which metric is not said.
    """

    name: str
    title: str
    quote: str
    model: str
    other: str
    differences: dict[str, float]


@cache
def paper_tables() -> tuple[PaperTable, ...]:
    """Tables 1, 2 and 3.

    The order of the columns is that of the sentences which name the benchmarks (Sections 4 and
    5.2.2); "MMMU-dev" is the validation split, as its values are multiples of 1/900.
    """
    return tuple(_table(record) for record in _content()["tables"])


@cache
def paper_vcr() -> PaperVcr:
    """Appendix A.3."""
    return PaperVcr(**_content()["vcr"])


def _table(record: dict[str, Any]) -> PaperTable:
    groups = tuple(
        ColumnGroup(
            title=group["title"],
            benchmarks=tuple(group["benchmarks"]),
            headings=tuple(group["headings"]),
            average=group["average"],
        )
        for group in record["column_groups"]
    )
    rows = tuple(
        PaperRow(section=section["title"], model=row["model"], values=tuple(row["values"]))
        for section in record["sections"]
        for row in section["rows"]
    )
    return PaperTable(name=record["name"], title=record["title"], column_groups=groups, rows=rows)


def _content() -> dict[str, Any]:
    text = files("alignvlm.evaluation.reporting").joinpath("paper.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
