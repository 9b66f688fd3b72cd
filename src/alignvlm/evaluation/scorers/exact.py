"""Equality of answers: GQA in two toolkits, TabFact as DocOwl scores it."""

from __future__ import annotations

import string
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, column
from alignvlm.evaluation.scorers.relaxed import docowl_line

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _vlmevalkit(prediction: Any, answers: Any) -> tuple[float, Parts]:
    golds = column(answers, plain=True)
    return _equal(as_text(prediction), golds, lambda text: text.strip().lower())


def _lmms_eval(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Letter case and ASCII punctuation do not count; blanks at the ends of the gold do.

    numpy compares there, which cuts a text that grows in lower case ("İ") to the length it had,
    and drops NULs at the end.
    """
    golds = as_texts(answers)

    def fold(text: str) -> str:
        return text.lower()[: len(text)].rstrip("\0").translate(_NO_PUNCTUATION).rstrip("\0")

    return _equal(as_text(prediction).strip(), golds, fold)


def _docowl(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Letter case counts, and a full stop at the end of the prediction."""
    golds = [docowl_line(answer).removesuffix(".") for answer in as_texts(answers)]
    return _equal(docowl_line(as_text(prediction)), golds, str)


def _equal(said: str, golds: list[str], fold: Any) -> tuple[float, Parts]:
    said = fold(said)
    matched = next((gold for gold in golds if fold(gold) == said), None)
    return float(matched is not None), {"matched": matched, "normalised_prediction": said}


EXACT_MATCH: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit,
    "vlmevalkit-2026.08": _vlmevalkit,
    "lmms-eval": _lmms_eval,
}

EXACT_ACCURACY: dict[str, Scorer] = {"docowl": _docowl}
