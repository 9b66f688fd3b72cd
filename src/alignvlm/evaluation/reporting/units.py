"""From the scores of a run to what is drawn in the bootstrap: questions, or whole documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignvlm.errors import InputError
from alignvlm.evaluation.scorers import Score
from alignvlm.evaluation.scorers.due import count, regroup
from alignvlm.evaluation.statistics import Array, Rate

__all__ = ["Scored", "Units", "as_units"]


@dataclass(frozen=True)
class Scored:
    """One question's score by one metric.

    Attributes:
        id: of the question.
        group: of the question; several are joined by commas.
        score: what the answer is worth, 0 where there is none.
    """

    id: str
    group: str
    score: Score

    @property
    def groups(self) -> list[str]:
        """Its groups, one by one."""
        return [name.strip() for name in self.group.split(",")]

    def alone(self, group: str) -> Scored:
        """The same as a member of this group only."""
        return replace(self, group=group)


@dataclass(frozen=True)
class Units:
    """Independent units of a set of scores.

    Attributes:
        kind: "questions", or "documents" where a score pools counts over them.
        sums: what each unit adds, [n, k].
        strata: of each; only where the score is a mean of groups are there several.
        rate: the set's score from the sums.
    """

    kind: str
    sums: Array
    strata: tuple[str, ...]
    rate: Rate

    @property
    def value(self) -> float:
        """The set's score."""
        return float(self.rate(self.sums.sum(0)))

    @property
    def are_right_or_wrong(self) -> bool:
        """Whether the score is the share of questions answered rightly."""
        plain = self.rate is _ratio and len(set(self.strata)) == 1
        tops, bottoms = self.sums[:, 0], self.sums[:, -1]
        return plain and bool((bottoms == 1).all() and np.isin(tops, (0, 1)).all())


def as_units(scored: Sequence[Scored], headline: str = "mean") -> Units:
    """The units of a benchmark, at least one question of it.

    DeepForm and Kleister Charity are drawn by documents, whose fields their scores pool, everything
    else by questions. Where the score is a mean of groups' scores, as many questions of each group
    are drawn as there are.

    Args:
        scored: of the benchmark's questions.
        headline: "mean" or "mean_of_groups".

    Raises:
        InputError: scores that cannot be put together are in one set.
    """
    if headline != "mean_of_groups":
        kind, sums, rate = _counted(scored)
        return Units(kind, sums, ("",) * len(sums), rate)
    names = sorted({name for one in scored for name in one.groups})
    parts = [_counted([one.alone(name) for one in scored if name in one.groups]) for name in names]
    kinds = {(kind, rate, sums.shape[1]) for kind, sums, rate in parts}
    if len(kinds) > 1 or parts[0][0] == "documents":
        raise InputError(
            f"The groups {', '.join(names)} are not scored alike, so that they have no mean: "
            "score the benchmark as a whole"
        )
    ((_, rate, width),) = kinds
    sums = np.zeros((len(scored), len(names), width))
    for place, (name, (_, of_group, _)) in enumerate(zip(names, parts, strict=True)):
        sums[[name in one.groups for one in scored], place] = of_group

    def mean_of_groups(totals: Array) -> Array:
        return rate(totals.reshape(*totals.shape[:-1], len(names), width)).mean(axis=-1)

    flat = sums.reshape(len(scored), -1)
    return Units("questions", flat, tuple(one.group for one in scored), mean_of_groups)


def _counted(scored: Sequence[Scored]) -> tuple[str, Array, Rate]:
    """Kind of the units, what each adds, and the rate."""
    ways = sorted({_way(one.score.metric) for one in scored})
    if len(ways) > 1:
        raise InputError(
            f"One set holds scores that are put together in different ways ({', '.join(ways)}): "
            "score it by one metric"
        )
    if ways[0] in ("pooled F1", "mean F1 of documents"):
        documents = regroup([dict(one.score.parts) for one in scored])
        counts = [count(predicted, gold) for _, predicted, gold in documents]
        if ways[0] == "pooled F1":
            rows = [(one.hits, one.predicted, one.found, one.gold) for one in counts]
            return "documents", np.array(rows, dtype=np.float64), _f1
        return "documents", np.array([(one.f1, 1.0) for one in counts]), _ratio
    rows_of = {"F1 of yes": _yes, "pooled": _blanks, "mean": _single}[ways[0]]
    rate = _f1_of_yes if ways[0] == "F1 of yes" else _ratio
    return "questions", np.array([rows_of(one) for one in scored], dtype=np.float64), rate


def _way(metric: str) -> str:
    measure, _, dialect = metric.partition("@")
    if measure == "due_f1":
        return "pooled F1"
    if measure == "due_mean_f1":
        return "mean F1 of documents"
    if measure == "pope" and not dialect.startswith("lmms-eval"):
        return "F1 of yes"
    return "pooled" if measure.startswith("vcr_") else "mean"


def _single(one: Scored) -> tuple[float, ...]:
    return one.score.value, 1.0


def _blanks(one: Scored) -> tuple[float, ...]:
    blanks = one.score.parts["per_blank"]
    return sum(blanks), len(blanks)


def _yes(one: Scored) -> tuple[float, ...]:
    """A question counts once for each group that it is in, as VLMEvalKit has it."""
    said, gold = one.score.parts["extracted"] == "Yes", one.score.parts["gold"] == "Yes"
    times = len(one.groups)
    return times * (said and gold), times * said, times * gold


def _ratio(sums: Array) -> Array:
    return _divided(sums[..., 0], sums[..., 1])


def _f1(sums: Array) -> Array:
    precision = _divided(sums[..., 0], sums[..., 1])
    recall = _divided(sums[..., 2], sums[..., 3])
    return _divided(2 * precision * recall, precision + recall)


def _f1_of_yes(sums: Array) -> Array:
    return _divided(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _divided(top: Array, bottom: Array) -> Array:
    """The quotient, 0 where nothing is divided by nothing."""
    top, bottom = np.asarray(top), np.asarray(bottom)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
