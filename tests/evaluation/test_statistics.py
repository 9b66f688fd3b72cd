"""Intervals against a plain loop and formulas, tests against counting every possibility."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.evaluation.statistics import (
    Array,
    holm,
    interval,
    mcnemar,
    resampled_sums,
    swap_test,
)


def ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def f1(sums: Array) -> Array:
    return np.asarray(2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def with_ones(values: Array) -> Array:
    return np.stack([values, np.ones_like(values)], axis=1)


def one_stratum(units: Array) -> list[str]:
    return [""] * len(units)


def test_bootstrap_agrees_with_a_loop_that_draws_questions() -> None:
    units = with_ones(rng(1).beta(0.5, 0.4, 40).round(2))
    fast = ratio(resampled_sums(units, one_stratum(units), 10_000, rng(2)))
    draw = rng(3)
    slow = np.array([units[draw.integers(0, 40, 40), 0].mean() for _ in range(10_000)])
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.003)
    assert fast.std() == pytest.approx(slow.std(), rel=0.03)
    assert interval(fast) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), rel=0.02)


def test_bootstrap_of_a_pooled_score_agrees_with_a_loop_that_draws_documents() -> None:
    counts = rng(4).integers(0, 6, (30, 3)).astype(float)
    fast = f1(resampled_sums(counts, one_stratum(counts), 10_000, rng(5)))
    draw = rng(6)
    slow = np.array([f1(counts[draw.integers(0, 30, 30)].sum(0)) for _ in range(10_000)])
    assert fast.std() == pytest.approx(slow.std(), rel=0.03)
    assert interval(fast) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), rel=0.02)


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = rng(7).normal(0.5, 0.1, 200)
    low, high = interval(ratio(resampled_sums(
        with_ones(values), one_stratum(values), 10_000, rng(8)
    )))  # fmt: skip
    half = 1.959964 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half * 0.06)
    assert high == pytest.approx(values.mean() + half, abs=half * 0.06)


def test_share_of_right_answers_is_binomial() -> None:
    """Of n questions, k right: resampled counts are binomial with n and k / n."""
    units = with_ones(np.array([1.0] * 3 + [0.0] * 7))
    counts = resampled_sums(units, one_stratum(units), 50_000, rng(9))[:, 0].round().astype(int)
    for hits in range(11):
        expected = math.comb(10, hits) * 0.3**hits * 0.7 ** (10 - hits)
        assert (counts == hits).mean() == pytest.approx(expected, abs=0.01)


def test_groups_keep_their_sizes() -> None:
    units = np.zeros((9, 2))
    units[:4, 0], units[4:, 1] = 1, 1
    sums = resampled_sums(units, ["b"] * 4 + ["a"] * 5, 500, rng())
    assert (sums == (4, 5)).all()


def test_portions_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    units = with_ones(rng(1).random(50))
    whole = resampled_sums(units, one_stratum(units), 300, rng(1))
    monkeypatch.setattr("alignvlm.evaluation.statistics._CELLS_AT_ONCE", 120)
    parts = resampled_sums(units, one_stratum(units), 300, rng(1))
    np.testing.assert_allclose(parts, whole)


def counted(first: Array, second: Array, rate: Callable[[Array], Array]) -> Fraction:
    """The permutation p by swapping rows in every possible way, in the plainest words."""
    seen = abs(rate(first.sum(0)) - rate(second.sum(0)))
    far = 0
    for swaps in product((False, True), repeat=len(first)):
        a = sum(s if swap else f for f, s, swap in zip(first, second, swaps, strict=True))
        b = sum(f if swap else s for f, s, swap in zip(first, second, swaps, strict=True))
        far += bool(abs(rate(np.asarray(a)) - rate(np.asarray(b))) >= seen - 1e-9)
    return Fraction(far, 2 ** len(first))


scores = st.lists(
    st.tuples(st.sampled_from((0.0, 0.3, 0.5, 1.0)), st.sampled_from((0.0, 0.3, 0.5, 1.0))),
    min_size=1, max_size=6,
)  # fmt: skip


@given(scores)
def test_swap_test_of_means_counts_every_way(pairs: list[tuple[float, float]]) -> None:
    first, second = (with_ones(np.array(side)) for side in zip(*pairs, strict=True))
    assert swap_test(first, second, ratio, 100, rng()) == float(counted(first, second, ratio))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 6), min_size=1, max_size=7))
def test_swap_test_of_a_pooled_score_counts_every_way(rows: list[tuple[int, ...]]) -> None:
    both = np.array(rows, dtype=float)
    first, second = both[:, :3], both[:, 3:]
    assert swap_test(first, second, f1, 100, rng()) == float(counted(first, second, f1))


def test_drawn_permutations_are_close_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    both = rng(11).random((12, 2)).round(1)
    first, second = with_ones(both[:, 0]), with_ones(both[:, 1])
    exact = swap_test(first, second, ratio, 1, rng())
    monkeypatch.setattr("alignvlm.evaluation.statistics._EXACT_UP_TO", 3)
    drawn = swap_test(first, second, ratio, 40_000, rng())
    assert 0.05 < exact < 0.95
    assert drawn == pytest.approx(exact, abs=0.01)


def test_drawn_p_is_never_zero() -> None:
    ones, zeros = with_ones(np.ones(200)), with_ones(np.zeros(200))
    assert swap_test(ones, zeros, ratio, 999, rng()) == 1 / 1000
    assert swap_test(ones, ones, ratio, 999, rng()) == 1.0


@given(st.integers(0, 7), st.integers(0, 7))
def test_mcnemar_counts_every_way(first: int, second: int) -> None:
    num = first + second
    gap = abs(first - second)
    far = sum(abs(sum(signs)) >= gap for signs in product((1, -1), repeat=num))
    assert mcnemar(first, second) == float(Fraction(far, 2**num))


@given(st.integers(0, 7), st.integers(0, 6), st.integers(0, 3))
def test_mcnemar_is_the_swap_test_of_right_and_wrong(only_a: int, only_b: int, both: int) -> None:
    first = with_ones(np.array([1.0] * only_a + [0.0] * only_b + [1.0] * (both + 1)))
    second = with_ones(np.array([0.0] * only_a + [1.0] * only_b + [1.0] * (both + 1)))
    assert swap_test(first, second, ratio, 10, rng()) == mcnemar(only_a, only_b)


def test_mcnemar_of_many_questions() -> None:
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(10_000, 10_000) == 1.0
    assert 0 < mcnemar(6000, 5000) < 1e-20
    # With a normal distribution in place of the binomial one: z = (|b - c| - 1) / sqrt(b + c).
    z = (abs(260 - 320) - 1) / math.sqrt(580)
    assert mcnemar(260, 320) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.02)


def test_holm_by_hand() -> None:
    """Four p values: the smallest times 4, the next times 3, ..., never less than one before."""
    assert holm([0.03, 0.01, 0.04, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_raw_p_and_bonferroni(p: list[float]) -> None:
    corrected = holm(p)
    for raw, found in zip(p, corrected, strict=True):
        assert raw <= found <= max(min(1.0, raw * len(p)), max(p))
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= 0)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_step_down_rejects(p: list[float]) -> None:
    """The corrected value is at most alpha just where Holm's procedure rejects at alpha."""
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.3):
        order = sorted(range(len(p)), key=lambda index: p[index])
        rejected = set()
        for rank, index in enumerate(order):
            if p[index] * (len(p) - rank) > alpha:
                break
            rejected.add(index)
        assert {i for i, value in enumerate(corrected) if value <= alpha} == rejected
