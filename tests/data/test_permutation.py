"""Shuffles that are computed: bijective, keyed, and the same for ever."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.data.permutation import Permutation, key_of, shuffled

KEYS = st.integers(0, 2**64 - 1)


@given(size=st.integers(1, 600), key=KEYS)
def test_every_element_goes_to_another_place(size: int, key: int) -> None:
    shuffle = Permutation(size, key)
    assert sorted(shuffle[index] for index in range(size)) == list(range(size))


@given(size=st.integers(2**20, 2**42), key=KEYS, data=st.data())
def test_large_shuffles_stay_inside_and_collide_nowhere(
    size: int, key: int, data: st.DataObject
) -> None:
    indices = data.draw(st.sets(st.integers(0, size - 1), min_size=2, max_size=20))
    shuffle = Permutation(size, key)
    places = {shuffle[index] for index in indices}
    assert len(places) == len(indices)
    assert all(0 <= place < size for place in places)


@pytest.mark.parametrize("index", [-1, 5])
def test_outside(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, 0)[index]


def test_every_place_is_equally_likely() -> None:
    # 4000 keys, 10 places: 400 each, standard deviation 19.
    for index in (0, 3, 9):
        counts = Counter(Permutation(10, key_of("test", key))[index] for key in range(4000))
        assert all(abs(counts[place] - 400) < 95 for place in range(10)), counts


def test_neighbours_do_not_stay_neighbours() -> None:
    shuffle = Permutation(10_000, 7)
    steps = np.diff([shuffle[index] for index in range(10_000)])
    assert np.mean(np.abs(steps) < 100) < 0.04  # 0.02 for a random order


def test_a_stored_shuffle() -> None:
    order = shuffled(1000, 3)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != shuffled(1000, 4).tolist()


def test_orders_never_change() -> None:
    """A run that was interrupted goes on with a later version of this package."""
    assert key_of("a", 1) == 90929097926411725
    assert [Permutation(10, 42)[index] for index in range(10)] == [9, 3, 4, 5, 6, 7, 1, 0, 2, 8]
    assert shuffled(8, 42).tolist() == [1, 5, 3, 4, 0, 2, 7, 6]
