"""Scores of single predictions to the score of a set, as each measure wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.base import Parts, Score
from alignvlm.evaluation.scorers.due import rate_mean, rate_pooled, regroup
from alignvlm.evaluation.scorers.yes_no import rate_lmms_eval, rate_vlmevalkit


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The score of a set.

    Attributes:
        metric: of the scores.
        value: in [0, 1]: a mean, a pooled F1, or what the toolkit reports for the set.
        num_scores: how many it was made of.
        parts: what else is known, e.g. precision and recall, or the groups' own values.
    """

    metric: str
    value: float
    num_scores: int
    parts: Mapping[str, Any] = field(default_factory=dict)


def aggregate(scores: Sequence[Score], groups: Sequence[str] | None = None) -> Aggregate:
    """The score of a set from the scores of its predictions.

    DeepForm and Kleister Charity pool counts of fields over the set, VCR pools blanks, POPE takes
    precision, recall and F1 of "yes"; others take the mean.

    Args:
        scores: of one metric, in the set's order.
        groups: which group each belongs to, e.g. a split; several are joined by commas. Each
            group's value and the plain mean of these values are added to the parts.

    Raises:
        UsageError: there is no score, they are of several metrics, or groups differ in number.
    """
    metrics = sorted({score.metric for score in scores})
    if len(metrics) != 1:
        raise UsageError(
            f"Scores of one metric can be put together, not of {', '.join(metrics) or 'none'}: "
            "aggregate each metric by itself"
        )
    if groups is not None and len(groups) != len(scores):
        raise UsageError(
            f"There are {len(scores)} scores and {len(groups)} groups: name a group for each"
        )
    measure, _, dialect = metrics[0].partition("@")
    if measure == "pope" and not dialect.startswith("lmms-eval"):
        value, parts = rate_vlmevalkit([dict(score.parts) for score in scores], groups)
    else:
        value, parts = _RATES.get(measure, _mean)(scores)
    if groups is not None:
        parts = parts | _by_group(scores, groups)
    return Aggregate(metrics[0], value, len(scores), parts)


def _by_group(scores: Sequence[Score], groups: Sequence[str]) -> Parts:
    members: dict[str, list[Score]] = {}
    for score, joined in zip(scores, groups, strict=True):
        for name in joined.split(","):
            members.setdefault(name.strip(), []).append(score)
    values = {name: aggregate(found).value for name, found in members.items()}
    return {"groups": values, "mean_of_groups": sum(values.values()) / len(values)}


def _mean(scores: Sequence[Score]) -> tuple[float, Parts]:
    return sum(score.value for score in scores) / len(scores), {}


def _pooled_f1(scores: Sequence[Score]) -> tuple[float, Parts]:
    return rate_pooled(regroup([dict(score.parts) for score in scores]))


def _mean_f1(scores: Sequence[Score]) -> tuple[float, Parts]:
    return rate_mean(regroup([dict(score.parts) for score in scores]))


def _pooled_blanks(scores: Sequence[Score]) -> tuple[float, Parts]:
    blanks = [value for score in scores for value in score.parts["per_blank"]]
    return sum(blanks) / len(blanks) if blanks else 0.0, {"num_blanks": len(blanks)}


def _yes_no(scores: Sequence[Score]) -> tuple[float, Parts]:
    return rate_lmms_eval([dict(score.parts) for score in scores])


_RATES: dict[str, Callable[[Sequence[Score]], tuple[float, Parts]]] = {
    "due_f1": _pooled_f1,
    "due_mean_f1": _mean_f1,
    "vcr_exact_match": _pooled_blanks,
    "vcr_jaccard": _pooled_blanks,
    "pope": _yes_no,
}
