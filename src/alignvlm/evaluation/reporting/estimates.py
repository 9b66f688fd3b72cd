"""Scores with their intervals, and differences between runs with their tests."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from alignvlm.evaluation.reporting.runs import Result, Run
from alignvlm.evaluation.reporting.units import Scored, Units, as_units
from alignvlm.evaluation.statistics import (
    Array,
    holm,
    interval,
    mcnemar,
    resampled_sums,
    swap_test,
)

__all__ = [
    "FEWEST", "Difference", "Draws", "Figure", "compare_runs", "figure", "mean_difference",
    "mean_interval",
]  # fmt: skip

FEWEST = 10
"""Units from which on there is an interval: of few, the bootstrap's is far too narrow."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How many sets are drawn, and the seed; every set of scores has draws of its own."""

    num: int = 10_000
    seed: int = 0

    def rng(self, *names: str) -> np.random.Generator:
        """The same for the same names, whatever else is in the report."""
        keys = (zlib.crc32(name.encode("utf-8", "surrogatepass")) for name in names)
        return np.random.default_rng([self.seed, *keys])


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A score of a set, a fraction, with its 95 % interval.

    Attributes:
        value: None where a score is no number.
        low, high: None there, and where fewer than 10 units are too few to draw from.
        kind: of the units that were drawn, "questions" or "documents".
        num_units: how many there are.
        values: over the drawn sets.
    """

    value: float | None
    low: float | None
    high: float | None
    kind: str
    num_units: int
    values: Array = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two runs on the same questions: the first minus the second, a fraction.

    Attributes:
        benchmark: what they were asked.
        first, second: labels of the runs.
        difference, low, high: with the 95 % interval, the same questions drawn for both; None
            as in `Figure`.
        test: which; p: of it; p_holm: corrected for all comparisons of the report.
        num_questions: that both runs have.
        kind, num_units: see `Figure`.
        first_better, second_better: questions on which one run's score is higher.
        remark: why the comparison is to be read with care, else "".
        values: over the drawn sets.
    """

    benchmark: str
    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    test: str
    p: float
    p_holm: float
    num_questions: int
    kind: str
    num_units: int
    first_better: int
    second_better: int
    remark: str
    values: Array = field(repr=False)


def figure(scored: Sequence[Scored], headline: str, draws: Draws, *names: str) -> Figure:
    """The score of a set with its interval.

    Args:
        scored: of its questions.
        headline: see `as_units`.
        draws: for the bootstrap.
        names: what the draws go by, e.g. the benchmark's.
    """
    units = as_units(scored, headline)
    if not np.isfinite(units.sums).all():
        return Figure(value=None, low=None, high=None, kind=units.kind,
                      num_units=len(units.sums), values=np.full(draws.num, math.nan))  # fmt: skip
    values = units.rate(resampled_sums(units.sums, units.strata, draws.num, draws.rng(*names)))
    low, high = _interval(values, units)
    return Figure(value=units.value, low=low, high=high, kind=units.kind,
                  num_units=len(units.sums), values=values)  # fmt: skip


def compare_runs(runs: Sequence[Run], draws: Draws) -> list[Difference]:
    """Every two runs on every benchmark that both have, in the order of the runs.

    Raises:
        InputError: see `as_units`.
    """
    found = []
    for first, second in combinations(runs, 2):
        for name in first.results:
            if name in second.results:
                made = _compare(first, second, name, draws)
                found += [] if made is None else [made]
    corrected = holm([one.p for one in found])
    return [
        Difference(**{**vars(one), "p_holm": p}) for one, p in zip(found, corrected, strict=True)
    ]


def _compare(first: Run, second: Run, name: str, draws: Draws) -> Difference | None:
    """The comparison on one benchmark; None where they share no question of like answers."""
    here, there = first.results[name], second.results[name]
    ids, remark = _shared(here, there)
    if not ids:
        return None
    ours = [one for one in here.scored() if one.id in ids]
    by_id = {one.id: one for one in there.scored()}
    theirs = [by_id[one.id] for one in ours]
    a, b = as_units(ours, here.headline), as_units(theirs, here.headline)
    if a.sums.shape != b.sums.shape or not np.isfinite([a.value, b.value]).all():
        return None
    both = np.concatenate([a.sums, b.sums], axis=1)
    width = a.sums.shape[1]
    sums = resampled_sums(both, a.strata, draws.num, draws.rng(name, "pairs"))
    values = a.rate(sums[:, :width]) - a.rate(sums[:, width:])
    low, high = _interval(values, a)
    gaps = [one.score.value - other.score.value for one, other in zip(ours, theirs, strict=True)]
    better, worse = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    test, p = _test(a, b, better, worse, draws, name)
    return Difference(
        benchmark=name, first=first.label, second=second.label, difference=a.value - b.value,
        low=low, high=high, test=test, p=p, p_holm=p, num_questions=len(ours), kind=a.kind,
        num_units=len(a.sums), first_better=better, second_better=worse, remark=remark,
        values=values,
    )  # fmt: skip


def _test(
    a: Units, b: Units, better: int, worse: int, draws: Draws, name: str
) -> tuple[str, float]:
    if a.are_right_or_wrong and b.are_right_or_wrong:
        return "McNemar, exact", mcnemar(better, worse)
    p = swap_test(a.sums, b.sums, a.rate, draws.num, draws.rng(name, "test"))
    return f"permutation of {a.kind}", p


def _shared(here: Result, there: Result) -> tuple[set[str], str]:
    """Questions with the same accepted answers in both runs, and what to say about the others."""
    theirs = {one.id: one for one in there.predictions}
    pairs = [(one, theirs[one.id]) for one in here.predictions if one.id in theirs]
    alike = [(a, b) for a, b in pairs if a.answers == b.answers and a.measures == b.measures]
    said = []
    num_all = len(here.predictions) + len(there.predictions) - len(pairs)
    if len(pairs) < num_all:
        said.append(f"{len(pairs):,} of {num_all:,} questions are in both")
    if len(alike) < len(pairs):
        said.append(f"left out with other accepted answers: {len(pairs) - len(alike):,}")
    if others := sum(a.prompt_sha256 != b.prompt_sha256 for a, b in alike):
        said.append(f"put in other words: {others:,}")
    return {a.id for a, _ in alike}, "; ".join(said)


def mean_interval(
    found: Sequence[Figure] | Sequence[Difference],
) -> tuple[float, float] | tuple[None, None]:
    """Of the mean over benchmarks; none where one of them has none."""
    if any(one.low is None for one in found):
        return None, None
    return interval(np.mean([one.values for one in found], axis=0))


def _interval(values: Array, units: Units) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if len(units.sums) < FEWEST else interval(values)


def mean_difference(differences: Sequence[Difference]) -> dict[str, Any]:
    """The mean of two runs' differences over benchmarks, which are drawn independently."""
    low, high = mean_interval(differences)
    return {
        "benchmarks": [one.benchmark for one in differences],
        "difference": sum(one.difference for one in differences) / len(differences),
        "low": low,
        "high": high,
    }
