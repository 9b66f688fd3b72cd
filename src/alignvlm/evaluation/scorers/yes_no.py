"""POPE: yes or no, answer by answer, and precision, recall and F1 of "yes" over many.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (2023).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts
from alignvlm.evaluation.scorers.vqa import PERIOD, PERIOD_2026, strip_punctuation

UNKNOWN = "Unknown"


def extract(answer: str, period: re.Pattern[str] = PERIOD_2026) -> str:
    """Which of "Yes" and "No" stands in an answer as a word, "Unknown" where both or neither do."""
    words = strip_punctuation(answer.lower(), period).split()
    yes, no = "yes" in words, "no" in words
    return UNKNOWN if yes == no else "Yes" if yes else "No"


def _vlmevalkit(period: re.Pattern[str]) -> Scorer:
    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        found = extract(as_text(prediction), period)
        gold = (as_texts(answers) or [""])[0]
        parts = {"extracted": found, "gold": gold, "unparsed": found == UNKNOWN}
        return float(found == gold), parts

    return scorer


def _lmms_eval(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Equality but for letter case and outer blanks: "Yes." is wrong."""
    found = as_text(prediction).lower().strip()
    gold = (as_texts(answers) or [""])[0].lower().strip()
    parts = {"extracted": found, "gold": gold, "unparsed": found not in ("yes", "no")}
    return float(found == gold), parts


POPE: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit(PERIOD),
    "vlmevalkit-2026.08": _vlmevalkit(PERIOD_2026),
    "lmms-eval": _lmms_eval,
}


def rate_vlmevalkit(
    rows: Sequence[Parts], categories: Sequence[str] | None = None
) -> tuple[float, Parts]:
    """VLMEvalKit's report, in per cent, and F1 as the value.

    A row counts once for each of its comma-separated categories, in "Overall" too; an answer that
    is neither yes nor no counts as not yes.
    """
    names = [""] * len(rows) if categories is None else list(categories)
    spread = [
        (name, row["gold"], row["extracted"])
        for row, joined in zip(rows, names, strict=True)
        for name in joined.split(",")
    ]
    report = {"Overall": _percentages([(gold, found) for _, gold, found in spread])}
    if categories is not None:
        for wanted in sorted({name for name, _, _ in spread}):
            kept = [(gold, found) for name, gold, found in spread if name == wanted]
            report[wanted] = _percentages(kept)
    return report["Overall"]["Overall"] / 100, {"report": report}


def _percentages(pairs: list[tuple[str, str]]) -> dict[str, float]:
    hits = sum(gold == "Yes" == found for gold, found in pairs)
    said = sum(found == "Yes" for _, found in pairs)
    true = sum(gold == "Yes" for gold, _ in pairs)
    right = sum(gold == found for gold, found in pairs)
    precision, recall, f1 = _f1(hits, said, true)
    return {
        "Overall": f1 * 100,
        "acc": _ratio(right, len(pairs)) * 100,
        "precision": precision * 100,
        "recall": recall * 100,
    }


def rate_lmms_eval(rows: Sequence[Parts]) -> tuple[float, Parts]:
    """lmms-eval's report, and accuracy as the value.

    Recall leaves out answers that are neither yes nor no, and `yes_ratio` counts the gold
    answers, not the predictions.
    """
    pairs = [(row["gold"], row["extracted"]) for row in rows]
    hits = pairs.count(("yes", "yes"))
    precision, recall, f1 = _f1(
        hits, hits + pairs.count(("no", "yes")), hits + pairs.count(("yes", "no"))
    )
    golds = [gold for gold, _ in pairs]
    accuracy = _ratio(sum(gold == found for gold, found in pairs), len(pairs))
    report = {
        "accuracy": accuracy,
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "yes_ratio": _ratio(golds.count("yes"), golds.count("yes") + golds.count("no")),
    }
    return accuracy, {"report": report}


def _f1(hits: int, said: int, true: int) -> tuple[float, float, float]:
    precision, recall = _ratio(hits, said), _ratio(hits, true)
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else 0.0


def _corpus(dialect: str) -> Scorer:
    def scorer(
        prediction: Any, answers: Any, categories: Sequence[str] | None = None
    ) -> tuple[float, Parts]:
        predictions, golds = list(prediction), list(answers)
        if len(predictions) != len(golds):
            raise UsageError(
                f"There are {len(predictions)} predictions and {len(golds)} answers: a score over "
                "a whole set needs one answer for each"
            )
        one = POPE[dialect]
        rows = [one(said, gold)[1] for said, gold in zip(predictions, golds, strict=True)]
        return rate_lmms_eval(rows) if dialect == "lmms-eval" else rate_vlmevalkit(rows, categories)

    return scorer


POPE_CORPUS: dict[str, Scorer] = {dialect: _corpus(dialect) for dialect in POPE}
"""A whole set at once: lists of predictions and answers, `categories` as VLMEvalKit has them."""
