"""The order of samples: complete, proportional, local, repeatable, and cheap."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignvlm.data.mixture import Draw, Mixture
from alignvlm.data.sample import DataSource, Sample
from alignvlm.errors import ConfigurationError, InputError


class Numbers(DataSource):
    """Rows whose key is their number; some are broken."""

    def __init__(
        self, blocks: Sequence[int], name: str = "numbers", broken: Sequence[int] = ()
    ) -> None:
        self.name, self._blocks, self._broken = name, blocks, broken

    def __len__(self) -> int:
        return sum(self._blocks)

    def blocks(self) -> Sequence[int]:
        return self._blocks

    def read(self, index: int) -> Sample:
        if index in self._broken:
            raise InputError(f"Row {index + 1} is broken: repair it")
        return Sample(key=f"{self.name}:{index + 1}", messages=[])


BLOCKS = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any)


@given(sources=st.lists(BLOCKS, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_an_epoch_without_weights_is_every_row_once(sources: list[list[int]], seed: int) -> None:
    mixture = Mixture([(Numbers(blocks), None) for blocks in sources], seed)
    rows = {Draw(s, row) for s, blocks in enumerate(sources) for row in range(sum(blocks))}
    assert mixture.epoch_size == len(rows)
    for epoch in range(3):
        start = epoch * len(rows)
        draws = [mixture.draw(position) for position in range(start, start + len(rows))]
        assert set(draws) == rows


@settings(max_examples=25)
@given(
    parts=st.lists(st.tuples(BLOCKS, st.integers(1, 9)), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
def test_with_weights_every_block_has_the_exact_proportions(
    parts: list[tuple[list[int], int]], seed: int
) -> None:
    mixture = Mixture([(Numbers(blocks), weight) for blocks, weight in parts], seed)
    weights = [weight for _, weight in parts]
    period = sum(weights)  # at most 36, a multiple of the block
    for start in range(0, 5 * period, period):
        counts = Counter(mixture.draw(start + step).source for step in range(period))
        assert [counts[source] for source in range(len(parts))] == weights
    # The first source has been seen in full, and each source is used up before it starts over.
    first = {mixture.draw(position).row for position in range(mixture.epoch_size)
             if mixture.draw(position).source == 0}  # fmt: skip
    assert len(first) == sum(parts[0][0])
    for source, (blocks, _) in enumerate(parts):
        size = sum(blocks)
        draws = (mixture.draw(position) for position in count())
        rows = [draw.row for draw in islice((d for d in draws if d.source == source), 2 * size)]
        assert sorted(rows[:size]) == sorted(rows[size:]) == list(range(size))


def test_the_papers_blend() -> None:
    """ "5:1 blended ratio of DocDownstream and VCR training data"."""
    mixture = Mixture([(Numbers([100]), 5), (Numbers([7]), 1)], 0)
    assert mixture.epoch_size == 120
    draws = [mixture.draw(position) for position in range(120)]
    assert Counter(draw.source for draw in draws) == {0: 100, 1: 20}
    assert Counter(Counter(draw.row for draw in draws if draw.source == 0).values()) == {1: 100}
    assert set(Counter(draw.row for draw in draws if draw.source == 1).values()) == {2, 3}


@pytest.mark.parametrize(
    ("weights", "share"), [((0.333, 0.667), 0.333), ((1e-3, 1), 1 / 1001), ((2**0.5, 1), 0.5858)]
)
def test_odd_weights_hold_up_to_one_sample(weights: tuple[float, float], share: float) -> None:
    mixture = Mixture([(Numbers([50]), weights[0]), (Numbers([50]), weights[1])], 0)
    seen = 0
    for position in range(3200):
        seen += mixture.draw(position).source == 0
        if position % 64 == 63:
            assert abs(seen - share * (position + 1)) <= 2.5


def test_sources_are_spread_evenly_without_weights() -> None:
    mixture = Mixture([(Numbers([9000]), None), (Numbers([1000]), None)], 0)
    rare = [mixture.draw(position).source for position in range(10_000)]
    for end in range(64, 10_000, 64):
        assert abs(sum(rare[:end]) - end / 10) <= 5


def test_the_order_depends_on_seed_and_epoch() -> None:
    sources = [(Numbers([5, 5, 5, 5, 5, 5]), None), (Numbers([30]), None)]
    one, same, other = Mixture(sources, 1), Mixture(sources, 1), Mixture(sources, 2)
    order = [one.draw(position) for position in range(120)]
    assert order == [same.draw(position) for position in reversed(range(120))][::-1]
    assert order != [other.draw(position) for position in range(120)]
    assert order[:60] != order[60:]


def test_rows_of_a_block_come_close_to_each_other() -> None:
    """At most four blocks are open at a time, so four in memory are never read twice."""
    mixture = Mixture([(Numbers([25] * 40), None)], 0)
    blocks = [mixture.draw(position).row // 25 for position in range(1000)]
    groups = [blocks[start : start + 100] for start in range(0, 1000, 100)]
    for group in groups:
        assert sorted(Counter(group).values()) == [25] * 4
        assert len(set(group[:12])) > 2  # shuffled, not one after the other
    order = list(dict.fromkeys(blocks))
    assert len(order) == 40 and order != sorted(order)


def test_a_source_beside_others_keeps_its_order() -> None:
    rows = Numbers([25] * 40)
    mixture = Mixture([(rows, 3), (Numbers([7]), 1)], 0)
    draws = [mixture.draw(position) for position in range(400)]
    mine = [draw.row // 25 for draw in draws if draw.source == 0]
    assert all(len(set(mine[start : start + 100])) == 4 for start in (0, 100, 200))


def test_replacements_are_other_rows_of_the_same_source() -> None:
    mixture = Mixture([(Numbers([4, 3]), None), (Numbers([9]), None)], 5)
    for position in range(16):
        drawn = mixture.draw(position)
        assert mixture.replacement(position, 0) == drawn
        size = (7, 9)[drawn.source]
        others = [mixture.replacement(position, attempt) for attempt in range(1, size)]
        assert {draw.source for draw in others} == {drawn.source}
        assert {draw.row for draw in others} == set(range(size)) - {drawn.row}
        with pytest.raises(InputError, match="no row left to take the place of a broken one"):
            mixture.replacement(position, size)


def test_reading_and_naming() -> None:
    mixture = Mixture([(Numbers([2], "x", broken=[0]), None)], 0)
    position = next(p for p in range(2) if mixture.draw(p).row == 0)
    with pytest.raises(InputError, match="Row 1 is broken"):
        mixture.read(position)
    assert mixture.where(position) == ("x", "row 1")
    assert mixture.read(position, 1).key == "x:2"
    assert mixture.where(position, 1) == ("x", "x:2")
    assert mixture.where(position, 2) == ("x", "no row left")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "has no data: give"),
        ([(Numbers([0], "x"), None)], "source 'x' has no rows: check"),
        ([(Numbers([3]), 1), (Numbers([3]), None)], "some have none: give all"),
        ([(Numbers([3]), 0)], "weight in the mixture is 0: give a positive"),
        ([(Numbers([3]), -1.0)], "weight in the mixture is -1.0"),
        ([(Numbers([3]), float("nan"))], "weight in the mixture is nan"),
        ([(Numbers([3]), float("inf"))], "weight in the mixture is inf"),
    ],
)
def test_mixtures_that_cannot_be(
    sources: list[tuple[DataSource, float | None]], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Mixture(sources, 0)


def test_no_position_is_negative() -> None:
    with pytest.raises(IndexError):
        Mixture([(Numbers([3]), None)], 0).draw(-1)


def test_twelve_million_rows_start_at_once() -> None:
    sources = [Numbers([12_000_000]), Numbers([100] * 120_000)]
    tracemalloc.start()
    try:
        start = time.perf_counter()
        mixture = Mixture([(source, None) for source in sources], 0)
        draws = {mixture.draw(position) for position in range(23_999_000, 24_001_000)}
        seconds = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(draws) >= 1999  # the next epoch may repeat a row
    assert peak < 20e6
    assert seconds < 5  # half a second on an idle core
