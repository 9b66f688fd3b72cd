from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.analysis.compare.statistics import paired

SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8)


def test_equal_differences_leave_two_patterns_of_all() -> None:
    found = paired([2.0] * 6, [1.0] * 6)
    assert (found.difference, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.p == 2 / 2**6
    assert found.num_pages == 6


def test_no_difference_is_no_evidence() -> None:
    assert paired([0.3, 0.7], [0.3, 0.7]).p == 1.0


@given(SCORES)
def test_few_pages_are_counted_out(pairs: list[tuple[float, float]]) -> None:
    gaps = [a - b for a, b in pairs]
    seen = abs(math.fsum(gaps))
    sums = [abs(math.fsum(s * g for s, g in zip(signs, gaps, strict=True)))
            for signs in product((1, -1), repeat=len(gaps))]  # fmt: skip
    sure = sum(total > seen + 1e-6 for total in sums) / len(sums)
    most = sum(total > seen - 1e-6 for total in sums) / len(sums)
    first, second = zip(*pairs, strict=True)
    found = paired(first, second)
    assert sure <= found.p <= most
    assert found.p == paired(second, first).p


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3])
def test_many_pages_agree_with_the_normal_approximation(shift: float) -> None:
    """The sign-flipped sum has mean 0 and variance the sum of squares."""
    gaps = np.random.default_rng(3).normal(shift, 1.0, 200)
    found = paired(gaps.tolist(), [0.0] * 200)
    z = abs(gaps.sum()) / math.sqrt((gaps**2).sum())
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.012)
    half = 1.96 * gaps.std() / math.sqrt(200)
    assert found.low == pytest.approx(gaps.mean() - half, abs=0.01)
    assert found.high == pytest.approx(gaps.mean() + half, abs=0.01)


def test_many_pages_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    first, second = rng.random(60), rng.random(60) + 0.05
    theirs = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples",
        n_resamples=20_000, random_state=1,
    )  # fmt: skip
    assert paired(first.tolist(), second.tolist()).p == pytest.approx(theirs.pvalue, abs=0.01)


def test_the_same_pages_give_the_same_numbers() -> None:
    gaps = np.random.default_rng(1).normal(size=40).tolist()
    assert paired(gaps, [0.0] * 40) == paired(gaps, [0.0] * 40)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_series_of_other_lengths_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="paired test needs two series"):
        paired(first, second)
