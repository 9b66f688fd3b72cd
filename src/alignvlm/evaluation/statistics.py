"""Bootstrap intervals, paired tests, and the correction for many of them.

All work on sums: a score of a set is a function of the sums, over its units, of a few numbers of
each unit. A mean is sum of scores over number of questions, a pooled F1 a function of counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Rate", "holm", "interval", "mcnemar", "resampled_sums", "swap_test"]

Array: TypeAlias = NDArray[np.float64]

Rate: TypeAlias = Callable[[Array], Array]
"""Scores of sets from the sums over them: [..., k] to [...]."""

CONFIDENCE = 0.95

_EXACT_UP_TO = 14  # units that differ: all 2^14 ways to swap them are looked at
_CELLS_AT_ONCE = 2_000_000


def resampled_sums(
    units: Array, strata: Sequence[str], num_draws: int, rng: np.random.Generator
) -> Array:
    """Sums over sets of units drawn with replacement: [num_draws, k].

    Args:
        units: what each adds to the sums, [n, k].
        strata: of each unit; as many as there are of a stratum are drawn from it.
        num_draws: how many sets are drawn.
        rng: what they are drawn with.
    """
    total = np.zeros((num_draws, units.shape[1]))
    labels = np.asarray(strata, dtype=object)
    for stratum in sorted(set(strata)):
        members = units[labels == stratum]
        # Units that are alike are drawn together: how often each kind comes is multinomial.
        kinds, counts = np.unique(members, axis=0, return_counts=True)
        shares = counts / len(members)
        for start, stop in _portions(num_draws, len(kinds)):
            total[start:stop] += rng.multinomial(len(members), shares, stop - start) @ kinds
    return total


def interval(values: Array) -> tuple[float, float]:
    """The 95 % percentile interval: the 2.5 % and 97.5 % quantiles."""
    low, high = np.quantile(values, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return float(low), float(high)


def swap_test(
    first: Array, second: Array, rate: Rate, num_draws: int, rng: np.random.Generator
) -> float:
    """The p value of the permutation test that two models are exchangeable on every unit.

    Under that hypothesis the answers to any units may be swapped between the models, all ways of
    it being equally likely. Where at most 14 units differ all of them are counted; else `num_draws`
    are drawn and p is (1 + those at least as far apart) / (1 + num_draws), which is valid for any
    number of draws (Phipson and Smyth, 2010). For a mean this is the sign-flip test, and for scores
    of 0 and 1 its exact form is McNemar's.

    Args:
        first: what each unit adds to the sums of the first model, [n, k].
        second: the same units of the second.
        rate: scores from sums.
        num_draws: at most; the more, the finer p.
        rng: what they are drawn with.
    """
    total, gaps = first.sum(0) + second.sum(0), first - second
    gaps = gaps[gaps.any(axis=1)]

    def far(shift: Array) -> Array:
        return np.abs(rate((total + shift) / 2) - rate((total - shift) / 2))

    # Differences that are equal but for rounding must count as equal.
    seen = float(far(gaps.sum(0))) * (1 - 1e-9) - 1e-12
    if len(gaps) <= _EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=len(gaps))))
        return float((far(signs @ gaps) >= seen).mean())
    kinds, counts = _unsigned(gaps)
    num_far = 0
    for start, stop in _portions(num_draws, len(kinds)):
        kept = rng.binomial(counts, 0.5, (stop - start, len(kinds)))
        num_far += int((far((2.0 * kept - counts) @ kinds) >= seen).sum())
    return (1 + num_far) / (1 + num_draws)


def mcnemar(only_first: int, only_second: int) -> float:
    """The p value of McNemar's exact two-sided test.

    Twice the smaller tail of the binomial distribution of the questions that one model alone
    answers rightly, at most 1.

    Args:
        only_first: questions that the first model alone answers rightly.
        only_second: the second alone.
    """
    num = only_first + only_second
    tail = ways = 1
    for index in range(min(only_first, only_second)):
        ways = ways * (num - index) // (index + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**num)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values of a family of tests, each at most 1."""
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def _unsigned(gaps: Array) -> tuple[Array, NDArray[np.int64]]:
    """Kinds of differences, a difference and its opposite being one, and how often each comes."""
    leading = gaps[np.arange(len(gaps)), (gaps != 0).argmax(axis=1)]
    kinds, counts = np.unique(gaps * np.sign(leading)[:, None], axis=0, return_counts=True)
    return kinds, counts


def _portions(num: int, width: int) -> list[tuple[int, int]]:
    """Ranges that cover `num` rows of a `width`, none of which is large."""
    size = max(1, _CELLS_AT_ONCE // max(1, width))
    return [(start, min(num, start + size)) for start in range(0, num, size)]
