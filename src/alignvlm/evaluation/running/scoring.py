"""Scores from predictions alone: no model, no benchmark, no images.

What a prediction holds is enough: its answers, its options, and which measures it has. Scores that
it carries are not used here, so that a run can be scored again in any dialect.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from alignvlm.errors import AlignVLMError, InputError, UsageError
from alignvlm.evaluation import scorers
from alignvlm.evaluation.benchmarks.answers import fit_answers
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.scorers import (
    MEASURES,
    PAPER_DIALECT,
    Judge,
    RecordedJudge,
    Score,
    aggregate,
    metric_name,
    metric_names,
    score,
)
from alignvlm.evaluation.scorers.registry import PIPELINE
from alignvlm.hints import did_you_mean

__all__ = [
    "check_dialect",
    "check_judge",
    "is_poolable",
    "missed_score",
    "score_again",
    "score_answer",
    "score_predictions",
    "scorers_version",
]

_JUDGED = "mmvet"

# What stands for the answer that a failed sample has not: measures that pool counts over a set
# need to know what was missed.
_MISSED = {
    "due_f1": "None", "due_mean_f1": "None", "vcr_exact_match": "", "vcr_jaccard": "", "pope": "",
}  # fmt: skip

# Stands for the answer of a row that could not be read: nothing that was said is equal to it.
_UNREAD = "(unread)"

# Parts of a whole set that only repeat what the predictions say.
_LONG_PARTS = ("documents", "per_document")


def check_dialect(dialect: str) -> str:
    """The dialect, if any measure has it.

    Raises:
        UsageError: none has.
    """
    known = list(dict.fromkeys(name.partition("@")[2] for name in metric_names()))
    if dialect not in known:
        raise UsageError(
            f"There is no dialect {dialect!r}{did_you_mean(dialect, known)}: use one of "
            f"{', '.join(known)}"
        )
    return dialect


def check_judge(measures: Iterable[str], judge: Judge | None) -> None:
    """Refuse what only a language model can grade where there is none.

    Raises:
        UsageError: so it is.
    """
    if judge is None and _JUDGED in measures:
        raise UsageError(
            "MM-Vet is graded by a language model: give --judge a file of replies or an endpoint"
        )


def score_answer(
    prediction: Prediction, dialect: str = PAPER_DIALECT, judge: Judge | None = None
) -> dict[str, Score]:
    """Scores of one answer by metric's full name, in the order of its measures.

    Args:
        prediction: one that has an answer.
        dialect: a measure that lacks it is taken in its own default.
        judge: grades MM-Vet; without one the replies that the prediction keeps are used again.

    Raises:
        UsageError: a measure is unknown, or needs a judge and there is none.
        Exception: the answers or the options are nothing that the measure can read, or that it
            can put together with those of other questions.
        InputError: the judge has no reply to this answer.
        MissingDependencyError: ANLS, and rapidfuzz is not installed.
    """
    found = {}
    for measure in prediction.measures:
        name = metric_name(measure, dialect)
        options = _options_for(name, prediction, judge)
        found[name] = _pooled_score(name, prediction.raw, prediction.answers, options)
    return found


def is_poolable(found: Score) -> bool:
    """Whether a saved score still has the parts of which the score of a set is made."""
    try:
        _check_pooled(found)
    except Exception:
        return False
    return True


def missed_score(prediction: Prediction, name: str) -> Score:
    """What a failed sample is worth: 0, with the parts by which it is counted as missed.

    Args:
        prediction: whose own answers may be what is wrong with it; then it counts as one thing
            missed.
        name: metric's full name.
    """
    said = _MISSED.get(name.partition("@")[0])
    if said is None:
        return Score(name, 0.0, {"failed": True})
    try:
        if prediction.answers is None:
            raise TypeError("the row could not be read")
        options = _options_for(name, prediction, None)
        found = _pooled_score(name, said, prediction.answers, options)
    except Exception:
        # A document of its own: fields of one name and document count once.
        document = {"document": f"{_UNREAD} {prediction.id}"}
        own = {key: value for key, value in document.items() if key in _option_names(name)}
        found = score(name, said, [_UNREAD], **own)
    return Score(name, 0.0, {**found.parts, "failed": True})


def score_again(
    prediction: Prediction, dialect: str, judge: Judge | None = None
) -> dict[str, Score]:
    """Scores of a saved prediction; one that failed, or that cannot be scored, is missed.

    Raises:
        AlignVLMError: see `score_answer`.
    """
    if prediction.error is None:
        try:
            return score_answer(prediction, dialect, judge)
        except AlignVLMError:
            raise
        except Exception:  # whatever else odd answers lead to
            pass
    names = (metric_name(measure, dialect) for measure in prediction.measures)
    return {name: missed_score(prediction, name) for name in names}


def score_predictions(
    predictions: Sequence[Prediction],
    *,
    benchmark: str,
    headline: str = "mean",
    dialect: str = PAPER_DIALECT,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """The content of `scores.json`.

    A sample that failed counts as 0, and so does one that this dialect cannot score. Where it could
    not even be read, so that its group is not known, it counts in every group.

    Args:
        predictions: of one benchmark, in its order.
        benchmark: its name.
        headline: "mean" over the set, pooled where the measure pools, or "mean_of_groups".
        dialect: a measure that lacks it is taken in its own default, which is said under
            "not_in_dialect".
        judge: as in `score_answer`.

    Raises:
        InputError: there is no prediction, or the judge has no reply to one of MM-Vet.
        UsageError: there is no such dialect or measure.
    """
    check_dialect(dialect)
    if not predictions:
        raise InputError(f"{benchmark} has no predictions: run `alignvlm eval` first")
    groups = _groups(predictions)
    firsts: list[Score] = []
    by_metric: dict[str, tuple[list[Score], list[str]]] = {}
    for prediction, group in zip(predictions, groups, strict=True):
        scores = score_again(prediction, dialect, judge)
        firsts.append(next(iter(scores.values())))
        for name, found in scores.items():
            members = by_metric.setdefault(name, ([], []))
            members[0].append(found)
            members[1].append(group)
    names = list(dict.fromkeys(first.metric for first in firsts))
    return {
        "benchmark": benchmark,
        "dialect": dialect,
        "scorers": scorers_version(),
        "num_questions": len(predictions),
        "num_failed": sum(bool(first.parts.get("failed")) for first in firsts),
        "num_unparsed": sum(bool(first.parts.get("unparsed")) for first in firsts),
        "headline": {"metric": "+".join(names), "value": _headline(firsts, groups, headline)},
        "not_in_dialect": _departures(by_metric, dialect),
        "metrics": {name: _whole(*members) for name, members in by_metric.items()},
    }


@cache
def scorers_version() -> str:
    """Twelve digits that change with any line of the scorers' code."""
    digest = hashlib.sha256()
    for path in sorted(Path(scorers.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _pooled_score(name: str, said: Any, answers: Any, options: Mapping[str, Any]) -> Score:
    """One score, which can be put together with others."""
    found = score(name, said, fit_answers(name, answers), **options)
    _check_pooled(found)
    return found


def _check_pooled(found: Score) -> None:
    if found.metric.partition("@")[0] in _MISSED:
        aggregate([found])


def _options_for(name: str, prediction: Prediction, judge: Judge | None) -> dict[str, Any]:
    """Of the question's options those that this metric takes; others are for other dialects."""
    known = _option_names(name)
    options = {key: value for key, value in prediction.options.items() if key in known}
    if "judge" in known:
        options["judge"] = judge or _replayed(prediction)
        check_judge([_JUDGED], options["judge"])
        options.setdefault("question", prediction.question)
    return options


def _replayed(prediction: Prediction) -> RecordedJudge | None:
    """A judge that says again what one said about this answer."""
    for name, found in prediction.scores.items():
        parts = found.get("parts", {})
        if name.startswith(f"{_JUDGED}@") and parts.get("replies"):
            return RecordedJudge({parts["prompt_sha256"]: parts["replies"]})
    return None


@cache
def _option_names(name: str) -> frozenset[str]:
    measure, _, dialect = name.partition("@")
    scorer = MEASURES[measure][dialect.removesuffix(PIPELINE)]
    return frozenset(list(inspect.signature(scorer).parameters)[2:])


def _groups(predictions: Sequence[Prediction]) -> list[str]:
    known = dict.fromkeys(
        name.strip() for found in predictions if found.group for name in found.group.split(",")
    )
    every = ",".join(known)
    return [found.group or (every if found.error else "") for found in predictions]


def _headline(scores: Sequence[Score], groups: Sequence[str], rule: str) -> float:
    if rule == "mean":
        return _pooled(scores, groups)
    if rule != "mean_of_groups":
        raise UsageError(f"A headline is no {rule!r}: use mean or mean_of_groups")
    members: dict[str, list[Score]] = {}
    for found, joined in zip(scores, groups, strict=True):
        for name in joined.split(","):
            members.setdefault(name.strip(), []).append(found)
    values = [_pooled(of_group) for of_group in members.values()]
    return sum(values) / len(values)


def _pooled(scores: Sequence[Score], groups: Sequence[str] | None = None) -> float:
    """What each metric makes of its scores, weighted by how many they are."""
    total = 0.0
    for metric in dict.fromkeys(found.metric for found in scores):
        places = [place for place, found in enumerate(scores) if found.metric == metric]
        of_metric = [scores[place] for place in places]
        named = [groups[place] for place in places] if groups is not None else []
        total += aggregate(of_metric, named if any(named) else None).value * len(of_metric)
    return total / len(scores)


def _whole(scores: Sequence[Score], groups: Sequence[str]) -> dict[str, Any]:
    found = aggregate(scores, groups if any(groups) else None)
    parts = {name: part for name, part in found.parts.items() if name not in _LONG_PARTS}
    num_unparsed = sum(bool(one.parts.get("unparsed")) for one in scores)
    if any("unparsed" in one.parts for one in scores):
        parts["num_unparsed"] = num_unparsed
    return {"value": found.value, "num_scores": found.num_scores, "parts": parts}


def _departures(names: Mapping[str, Any], dialect: str) -> dict[str, str]:
    """Measures that lack the dialect, and in which they were taken instead."""
    pairs = (name.split("@", 1) for name in names)
    return {measure: taken for measure, taken in pairs if taken != dialect}
