from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignvlm.connectors.grids import merge_blocks, pair
from alignvlm.errors import ConfigurationError

sides = st.integers(1, 6)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    T=st.integers(0, 3),
    rows=sides,
    columns=sides,
    d=st.integers(1, 4),
    block=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_blocks_hold_their_features_row_by_row(
    T: int, rows: int, columns: int, d: int, block: tuple[int, int]
) -> None:
    tiles = np.random.default_rng(0).normal(size=(T, rows, columns, d))
    a, b = block
    merged = merge_blocks(torch.from_numpy(tiles), block).numpy()
    assert merged.shape == (T, -(-rows // a), -(-columns // b), a * b * d)
    assert np.count_nonzero(merged) == tiles.size  # every feature is there, the rest is zero
    for t, r, c, k in np.ndindex(*tiles.shape):
        channel = (r % a * b + c % b) * d + k
        assert merged[t, r // a, c // b, channel] == tiles[t, r, c, k]


def test_pairs_are_two_positive_integers() -> None:
    assert pair("reduce", [1, 4]) == pair("reduce", (1, 4)) == (1, 4)
    for wrong in (4, "14", (1,), (1, 2, 3), (0, 4), (1, -4), (1, 4.0), (True, 4), None):
        with pytest.raises(ConfigurationError, match="reduce must be two positive integers"):
            pair("reduce", wrong)  # type: ignore[arg-type]
