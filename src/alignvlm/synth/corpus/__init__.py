"""Real text and real tables for drawn pages; README.md beside this file has sources and licences.

`scripts/make_corpus.py` made the files. The two splits share neither a source text nor a table.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignvlm.synth.fonts import Split

__all__ = ["Table", "sentences", "tables", "words"]

_FOLDER = Path(__file__).parent
_WORD = re.compile(r"(?<!['’])\b[A-Za-z]{2,14}\b(?!['’])")  # not the halves of "don't"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A real data set, as its numbers are written.

    Attributes:
        title: heading, e.g. `"Rain in Seattle"`.
        quantity: how a question calls a number of it, e.g. `"rainfall"`.
        unit: of every number, may be empty.
        head: header of the first column, e.g. `"Month"`.
        ordered: whether rows follow each other in time, so that a part of them is a run.
        source: the package and data set it comes from.
        columns: names of the columns of numbers.
        rows: name of a row and its cells, one for each of `columns`, none below zero.
    """

    title: str
    quantity: str
    unit: str
    head: str
    ordered: bool
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@lru_cache(maxsize=2)
def sentences(split: Split) -> tuple[str, ...]:
    """Sentences of 40-150 characters: of presidents' addresses, held out of Moby-Dick."""
    return tuple((_FOLDER / f"{split}.txt").read_text(encoding="utf-8").splitlines())


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """Every word of the training sentences once, so that rare ones are drawn as often as common.

    A word is in lower case if it ever is so in the text.
    """
    found = {word for sentence in sentences("train") for word in _WORD.findall(sentence)}
    return tuple(sorted({word.lower() if word.lower() in found else word for word in found}))


@lru_cache(maxsize=2)
def tables(split: Split) -> tuple[Table, ...]:
    """The tables of a split."""
    lines = (_FOLDER / "tables.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_table(row) for row in map(json.loads, lines) if row.pop("split") == split)


def _table(row: dict[str, Any]) -> Table:
    rows = tuple((name, tuple(cells)) for name, *cells in row.pop("rows"))
    return Table(columns=tuple(row.pop("columns")), rows=rows, **row)
