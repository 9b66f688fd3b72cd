"""Which questions are shown: the worst answered, and those on which the runs disagree.

As in Figures 6 to 9 of the paper, a case is one question with the answers of every run.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.reporting.runs import Run
from alignvlm.evaluation.scorers import Score

__all__ = ["RIGHT", "Case", "Said", "all_cases", "disagreeing_cases", "verdict", "worst_cases"]

_SAME = 1e-9

RIGHT = 1 - _SAME
"""Scores from here on are right, 0 is wrong, what lies between is partly right."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one run answered."""

    run: str
    prediction: Prediction
    score: Score

    @property
    def value(self) -> float:
        """The score, 0 where it is no number."""
        return self.score.value if self.score.value == self.score.value else 0.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question and every run's answer.

    Attributes:
        benchmark: that it is of.
        place: its number in the run that is named first, in the benchmark's order.
        said: by each run that was asked it, in the order of the runs.
    """

    benchmark: str
    place: int
    said: tuple[Said, ...]

    @property
    def question(self) -> Prediction:
        """Any run's record of the question."""
        return self.said[0].prediction

    @property
    def mean(self) -> float:
        """Of the runs' scores."""
        return sum(one.value for one in self.said) / len(self.said)

    @property
    def spread(self) -> float:
        """Highest score minus lowest."""
        values = [one.value for one in self.said]
        return max(values) - min(values)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Of each run."""
        return tuple(verdict(one.value) for one in self.said)


def verdict(value: float) -> str:
    """Whether a score is "right", "partly" so, or "wrong"."""
    return "right" if value >= RIGHT else "wrong" if value <= 0 else "partly"


def all_cases(runs: Sequence[Run], benchmark: str) -> list[Case]:
    """Every question of a benchmark that any of the runs was asked."""
    said: dict[str, list[Said]] = defaultdict(list)
    places: dict[str, int] = {}
    for run in runs:
        if benchmark not in run.results:
            continue
        result = run.results[benchmark]
        rows = zip(result.predictions, result.scores, strict=True)
        for place, (prediction, scores) in enumerate(rows):
            if scores:
                said[prediction.id].append(
                    Said(run=run.label, prediction=prediction, score=scores[0])
                )
                places.setdefault(prediction.id, place)
    return [
        Case(benchmark=benchmark, place=places[name], said=tuple(answers))
        for name, answers in said.items()
    ]


def worst_cases(cases: Sequence[Case], most: int) -> list[Case]:
    """The lowest mean scores, groups in turn; of equal ones whichever a hash puts first.

    Questions that no run has a fault in are left out, and those that no run could answer.
    """
    answered = [one for one in cases if one.mean < RIGHT and not _failed(one)]
    ordered = sorted(answered, key=lambda one: (round(one.mean, 9), _shuffled(one)))
    return _in_turn(ordered, lambda one: one.question.group, most)


def disagreeing_cases(cases: Sequence[Case], most: int) -> list[Case]:
    """The largest differences between runs, who is right and who is wrong in turn.

    Questions that failed in a run are left out: they are listed as failures.
    """
    apart = [
        one
        for one in cases
        if one.spread > _SAME and all(said.prediction.error is None for said in one.said)
    ]
    ordered = sorted(apart, key=lambda one: (-round(one.spread, 9), _shuffled(one)))
    return _in_turn(ordered, lambda one: one.verdicts, most)


def _failed(case: Case) -> bool:
    return all(one.prediction.error is not None for one in case.said)


def _shuffled(case: Case) -> str:
    """Not the file's order, in which the first pages would be shown alone."""
    return hashlib.sha256(case.question.id.encode("utf-8", "replace")).hexdigest()


def _in_turn(ordered: Iterable[Case], kind: Callable[[Case], Hashable], most: int) -> list[Case]:
    """The first of each kind, then the second of each, up to `most`, the worse first."""
    turns: dict[Any, int] = defaultdict(int)
    ranked = []
    for rank, case in enumerate(ordered):
        ranked.append((turns[kind(case)], rank, case))
        turns[kind(case)] += 1
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])[:most]]
