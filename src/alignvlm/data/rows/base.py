"""What every file format gives: rows as plain values, by number."""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

__all__ = ["BadRowError", "BlockedRows", "ChosenRows", "Place", "Row", "Rows", "SeveralRows"]

Row = Mapping[str, Any]
T = TypeVar("T")


class BadRowError(Exception):
    """A row that cannot be used; the message completes "Row 17 of 'file' ..."."""


@dataclass(frozen=True)
class Place:
    """Where a row stands: its file and its number in it, counted from 1."""

    path: Path
    number: int


class Rows(ABC):
    """Rows by number. Instances are sent to worker processes and open files when they read."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """The fields of row `index`, counted from 0.

        Raises:
            BadRowError: it cannot be read or is no object.
        """

    @abstractmethod
    def place(self, index: int) -> Place:
        """Where row `index` stands."""

    def blocks(self) -> Sequence[int]:
        """As `DataSource.blocks`."""
        return (len(self),)

    def only(self, names: Sequence[str]) -> Iterator[Row]:
        """All rows in order, at least with the fields `names`; an unreadable one has none."""
        for index in range(len(self)):
            try:
                yield self.row(index)
            except BadRowError:
                yield {}


class BlockedRows(Rows, Generic[T]):
    """Rows in blocks that are loaded whole, the last few of which stay in memory.

    Args:
        paths: files in order.
        sizes: for each file the number of rows of each of its blocks.
        num_kept: blocks that stay in memory.
    """

    def __init__(
        self, paths: Sequence[Path], sizes: Sequence[Sequence[int]], num_kept: int
    ) -> None:
        self._paths = list(paths)
        self._sizes = [size for file in sizes for size in file]
        self._starts = list(accumulate(self._sizes, initial=0))
        self._first_block = list(accumulate((len(file) for file in sizes), initial=0))
        self._num_kept = num_kept
        self._loaded: OrderedDict[int, T] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": OrderedDict()}

    def __len__(self) -> int:
        return self._starts[-1]

    def blocks(self) -> Sequence[int]:
        """One for each row group, record batch or shard."""
        return self._sizes

    def row(self, index: int) -> Row:
        """See `Rows.row`."""
        block = bisect.bisect_right(self._starts, index) - 1
        if block in self._loaded:
            self._loaded.move_to_end(block)
        else:
            file = bisect.bisect_right(self._first_block, block) - 1
            content = self.load_block(self._paths[file], block - self._first_block[file])
            while len(self._loaded) >= self._num_kept:
                self._loaded.popitem(last=False)
            self._loaded[block] = content
        return self.take(self._loaded[block], index - self._starts[block])

    def place(self, index: int) -> Place:
        """See `Rows.place`."""
        block = bisect.bisect_right(self._starts, index) - 1
        file = bisect.bisect_right(self._first_block, block) - 1
        return Place(self._paths[file], index - self._starts[self._first_block[file]] + 1)

    @abstractmethod
    def load_block(self, path: Path, number: int) -> T:
        """Block `number` of a file, counted from 0.

        Raises:
            BadRowError: it is damaged.
        """

    @abstractmethod
    def take(self, block: T, number: int) -> Row:
        """Row `number` of a block, counted from 0.

        Raises:
            BadRowError: it is damaged.
        """


class SeveralRows(Rows):
    """The rows of several files, one file after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = list(parts)
        self._starts = list(accumulate((len(part) for part in parts), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> Row:
        """See `Rows.row`."""
        part = bisect.bisect_right(self._starts, index) - 1
        return self._parts[part].row(index - self._starts[part])

    def place(self, index: int) -> Place:
        """See `Rows.place`."""
        part = bisect.bisect_right(self._starts, index) - 1
        return self._parts[part].place(index - self._starts[part])


class ChosenRows(Rows):
    """Some of the rows, in their order.

    Args:
        rows: all of them.
        chosen: the numbers of those to keep, ascending.
    """

    def __init__(self, rows: Rows, chosen: Sequence[int]) -> None:
        self._rows, self._chosen = rows, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def row(self, index: int) -> Row:
        """See `Rows.row`."""
        return self._rows.row(int(self._chosen[index]))

    def place(self, index: int) -> Place:
        """See `Rows.place`."""
        return self._rows.place(int(self._chosen[index]))

    def blocks(self) -> Sequence[int]:
        """What is left of the blocks."""
        ends = accumulate(self._rows.blocks())
        cuts = [0, *(bisect.bisect_left(self._chosen, end) for end in ends)]
        return [end - start for start, end in pairwise(cuts) if end > start]
