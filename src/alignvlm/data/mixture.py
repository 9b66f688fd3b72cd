"""The order of samples: from a position in training to a row of a source.

The order is a pure function of the seed and the position. A run that goes on needs to know its
position alone, and any number of processes can share the work without talking to each other.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alignvlm.data.permutation import Permutation, key_of, shuffled
from alignvlm.data.sample import DataSource, Sample
from alignvlm.errors import ConfigurationError, InputError

__all__ = ["Draw", "Mixture"]

_BLOCK: Final = 64
"""Positions after which the shares are as exact as whole samples allow; fewer where they can be."""

_NEIGHBOURS: Final = 4
"""Blocks of a source whose rows are shuffled together; as many row groups stay in memory."""

_FINEST: Final = 10_000
"""Shares that are no small fractions are rounded to whole multiples of one over this."""

_KEPT_EPOCHS: Final = 2


@dataclass(frozen=True)
class Draw:
    """What stands at a position: number of the source, number of its row."""

    source: int
    row: int


class Mixture:
    """Sources, mixed.

    Without weights an epoch is every row of every source once, in a new order each time. Sources
    are spread evenly: of every 64 positions each gets its share up to a whole sample.

    With weights the positions go on without end, and each source starts over, in a new order,
    whenever its rows are used up. An epoch then ends with the block of positions in which the
    first source listed has been seen once in full. Weights 5 and 1 make blocks of six, of which
    five are from the first source; shares that need blocks of more than 64 are exact up to one
    sample after every 64.

    Args:
        sources: each with its weight, all of them or none.
        seed: of the order.

    Raises:
        ConfigurationError: there is no source, one is empty, or a weight is not a positive number
            or missing beside others.
    """

    def __init__(self, sources: Sequence[tuple[DataSource, float | None]], seed: int) -> None:
        self.sources = [source for source, _ in sources]
        self.seed = seed
        self._sizes = [len(source) for source in self.sources]
        _check(self.sources, self._sizes, [weight for _, weight in sources])
        self._orders = [
            _Order(size, source.blocks(), key_of(seed, "source", number))
            for number, (source, size) in enumerate(zip(self.sources, self._sizes, strict=True))
        ]
        weights = [weight for _, weight in sources if weight is not None]
        # After block b, source s has been drawn b * shares[s] // divisor times.
        self._endless = bool(weights)
        if weights:
            whole = _whole(weights)
            block = min(sum(whole), _BLOCK)
            self._shares, self._divisor = [block * share for share in whole], sum(whole)
            last = -(-self._sizes[0] * self._divisor // self._shares[0])
        else:
            self._shares = self._sizes
            self._divisor = last = -(-sum(self._sizes) // _BLOCK)
        self._epoch_size = sum(self._drawn(last))
        self._turns: list[tuple[int, int]] = []  # of the block that was asked for last
        self._turns_of: tuple[int, int] | None = None

    @property
    def epoch_size(self) -> int:
        """Samples of one pass, see above."""
        return self._epoch_size

    def draw(self, position: int) -> Draw:
        """What stands at a position, counted from 0 over all epochs."""
        if position < 0:
            raise IndexError(position)
        epoch, inside = (0, position) if self._endless else divmod(position, self._epoch_size)
        block = self._block_of(inside)
        if self._turns_of != (epoch, block):
            self._turns, self._turns_of = self._turns_in(epoch, block), (epoch, block)
        source, turn = self._turns[inside - sum(self._drawn(block))]
        passes, turn = divmod(turn, self._sizes[source])
        return Draw(source, self._orders[source].row(epoch + passes, turn))

    def read(self, position: int, attempt: int = 0) -> Sample:
        """The sample at a position, or the one of `replacement`.

        Raises:
            InputError: the row is broken, or there is none.
        """
        drawn = self.replacement(position, attempt)
        return self.sources[drawn.source].read(drawn.row)

    def where(self, position: int, attempt: int = 0) -> tuple[str, str]:
        """Names of the source and the row that `read` reads, for messages."""
        source = self.sources[self.draw(position).source]
        try:
            row = self.replacement(position, attempt).row
        except InputError:
            return source.name, "no row left"
        try:
            return source.name, source.read(row).key
        except InputError:
            return source.name, f"row {row + 1}"

    def replacement(self, position: int, attempt: int) -> Draw:
        """A row of the same source in place of a broken one.

        Args:
            position: of the broken row.
            attempt: 1, 2, ...; each gives another row. 0 is the draw itself.

        Raises:
            InputError: the source has no other row.
        """
        drawn = self.draw(position)
        if attempt == 0:
            return drawn
        size = self._sizes[drawn.source]
        if attempt >= size:
            raise InputError(
                f"The source {self.sources[drawn.source].name!r} has no row left to take the place "
                "of a broken one: check it with `alignvlm data check`"
            )
        # Another row is the broken one plus 1 to size - 1, in an order of its own.
        steps = Permutation(size - 1, key_of(self.seed, "replacement", position))
        return Draw(drawn.source, (drawn.row + 1 + steps[attempt - 1]) % size)

    def _turns_in(self, epoch: int, block: int) -> list[tuple[int, int]]:
        """For each position of a block its source, and which draw of that source it is."""
        turns = self._drawn(block)
        slots = [
            source
            for source, end in enumerate(self._drawn(block + 1))
            for _ in range(end - turns[source])
        ]
        places = Permutation(max(1, len(slots)), key_of(self.seed, "block", epoch, block))
        found = []
        for source in (slots[places[place]] for place in range(len(slots))):
            found.append((source, turns[source]))
            turns[source] += 1
        return found

    def _drawn(self, block: int) -> list[int]:
        """Draws of each source before a block."""
        return [block * share // self._divisor for share in self._shares]

    def _block_of(self, position: int) -> int:
        """The block that holds a position."""
        # Rounding takes less than one sample from each source, so the block is one of a few.
        total = sum(self._shares)
        low = position * self._divisor // total
        high = (position + len(self._shares)) * self._divisor // total + 2
        blocks = range(low, high + 1)
        return low + bisect.bisect_right(blocks, position, key=lambda b: sum(self._drawn(b))) - 1


class _Order:
    """In which order a source's rows come, one order for each pass over them.

    Blocks are shuffled, then the rows of every few neighbours in that order, so that rows which
    lie together in a file come close to each other.
    """

    def __init__(self, size: int, blocks: Sequence[int], key: int) -> None:
        self._size, self._key = size, key
        sizes = np.asarray(blocks, dtype=np.int64)
        self._block_sizes = sizes[sizes > 0]
        self._block_starts = np.cumsum(self._block_sizes) - self._block_sizes
        self._known: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}

    def row(self, epoch: int, turn: int) -> int:
        """The row that comes in its turn."""
        if len(self._block_sizes) <= 1:
            return self._shuffle(epoch, 0, self._size)[turn]
        blocks, starts = self._blocks(epoch)
        group = int(np.searchsorted(starts[::_NEIGHBOURS], turn, side="right")) - 1
        first = group * _NEIGHBOURS
        start, end = starts[[first, min(first + _NEIGHBOURS, len(blocks))]].tolist()
        place = start + self._shuffle(epoch, group, end - start)[turn - start]
        number = int(np.searchsorted(starts, place, side="right")) - 1
        return int(self._block_starts[blocks[number]] + place - starts[number])

    def _shuffle(self, epoch: int, group: int, size: int) -> Permutation:
        return Permutation(size, key_of(self._key, "rows", epoch, group))

    def _blocks(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks in their order, and how many rows come before each one and in all."""
        if epoch not in self._known:
            blocks = shuffled(len(self._block_sizes), key_of(self._key, "blocks", epoch))
            starts = np.concatenate([[0], np.cumsum(self._block_sizes[blocks])])
            if len(self._known) == _KEPT_EPOCHS:
                self._known.clear()
            self._known[epoch] = (blocks, starts)
        return self._known[epoch]


def _check(
    sources: Sequence[DataSource], sizes: Sequence[int], weights: Sequence[float | None]
) -> None:
    if not sources:
        raise ConfigurationError("The mixture has no data: give it at least one source")
    for source, size in zip(sources, sizes, strict=True):
        if not size:
            raise ConfigurationError(
                f"The source {source.name!r} has no rows: check its path, or leave it out"
            )
    given = [weight for weight in weights if weight is not None]
    if 0 < len(given) < len(weights):
        raise ConfigurationError(
            "Some parts of the mixture have a weight and some have none: give all of them one, or "
            "none"
        )
    for weight in given:
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigurationError(
                f"A weight in the mixture is {weight}: give a positive number, or leave the part "
                "out"
            )


def _whole(weights: Sequence[float]) -> list[int]:
    """Whole numbers in the same proportion: exactly if none needs to be above `_FINEST`."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    common = math.gcd(*whole)
    whole = [share // common for share in whole]
    if sum(whole) <= _FINEST:
        return whole
    return [max(1, round(share * _FINEST / sum(whole))) for share in whole]
