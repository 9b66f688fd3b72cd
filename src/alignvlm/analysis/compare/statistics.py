"""Paired tests over pages: two models answer the same questions, which one answers better?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["Paired", "holm", "paired"]

_NUM_DRAWS = 20_000
_SEED = 20250203
_EXACT_UP_TO = 14  # pairs: 2^14 sign patterns are all looked at
_DRAWS_AT_ONCE = 2000


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
    """Test two series of scores, page by page.

    The permutation test flips the sign of each page's difference: under the hypothesis that the
    two models are exchangeable on every page all patterns are equally likely. Up to 14 pages all
    of them are counted, else 20,000 are drawn and p is (1 + those at least as far from zero) /
    (1 + drawn), which is valid at any number of draws (Phipson and Smyth, 2010).

    Raises:
        ValueError: the series have different lengths or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError("A paired test needs two series of the same pages, at least one page")
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    rng = np.random.default_rng(_SEED)
    means = np.concatenate([gaps[rng.integers(0, len(gaps), (n, len(gaps)))].mean(axis=1)
                            for n in _portions()])  # fmt: skip
    low, high = np.quantile(means, (0.025, 0.975))
    return Paired(
        difference=float(gaps.mean()), low=float(low), high=float(high), p=_sign_flip(gaps),
        num_pages=len(gaps),
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the p values of a family of tests, each at most 1."""
    order = np.argsort(np.asarray(p, dtype=np.float64), kind="stable")
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _sign_flip(gaps: NDArray[np.float64]) -> float:
    # Sums that are equal but for rounding must count as equal.
    seen = abs(gaps.sum()) * (1 - 1e-9) - 1e-12
    if len(gaps) <= _EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=len(gaps))))
        return float((np.abs(signs @ gaps) >= seen).mean())
    rng = np.random.default_rng(_SEED + 1)
    far = 0
    for size in _portions():
        signs = rng.integers(0, 2, (size, len(gaps))) * 2.0 - 1.0
        far += int((np.abs(signs @ gaps) >= seen).sum())
    return (1 + far) / (1 + _NUM_DRAWS)


def _portions() -> list[int]:
    return [_DRAWS_AT_ONCE] * (_NUM_DRAWS // _DRAWS_AT_ONCE)
