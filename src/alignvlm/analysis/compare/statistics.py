"""Paired tests over pages: two models answer the same questions, which one answers better?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignvlm.evaluation.statistics import Array, interval, resampled_sums, swap_test

__all__ = ["Paired", "paired"]

_NUM_DRAWS = 20_000
_SEED = 20250203


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two series of scores of the same pages differ.

    Attributes:
        difference: mean of first minus second.
        low, high: its 95 % bootstrap interval over pages.
        p: of the two-sided sign-flip permutation test of a difference of zero.
        num_pages: pairs.
    """

    difference: float
    low: float
    high: float
    p: float
    num_pages: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Test two series of scores, page by page; see `swap_test` for what is tested.

    Raises:
        ValueError: the series have different lengths or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError("A paired test needs two series of the same pages, at least one page")
    ours, theirs = (np.asarray(scores, dtype=np.float64)[:, None] for scores in (first, second))
    num, gaps, rng = len(first), ours - theirs, np.random.default_rng(_SEED)

    def mean(sums: Array) -> Array:
        return sums[..., 0] / num

    low, high = interval(mean(resampled_sums(gaps, [""] * num, _NUM_DRAWS, rng)))
    p = swap_test(ours, theirs, mean, _NUM_DRAWS, rng)
    return Paired(difference=float(gaps.mean()), low=low, high=high, p=p, num_pages=num)
