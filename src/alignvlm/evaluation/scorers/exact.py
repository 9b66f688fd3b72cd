"""Equality of answers: GQA in two toolkits, TabFact as DocOwl scores it."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, column
from alignvlm.evaluation.scorers.relaxed import docowl_line

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _vlmevalkit(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Of several answers each counts for its share, and not the best one for all."""
    golds = column(answers, plain=True)
    found, parts = _equal(as_text(prediction), golds, lambda text: text.strip().lower())
    return found / len(golds) if golds else 0.0, parts


def _lmms_eval(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Letter case and ASCII punctuation do not count; blanks at the ends of the gold do.

    numpy compares there, which cuts a text that grows in lower case ("İ") to the length it had,
    and drops NULs at the end.
    """
    golds = as_texts(answers)

    def fold(text: str) -> str:
        return text.lower()[: len(text)].translate(_NO_PUNCTUATION).rstrip("\0")

    return _any(*_equal(as_text(prediction).strip(), golds, fold))


def _docowl(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Letter case counts, and a full stop at the end of the prediction."""
    golds = [docowl_line(answer).removesuffix(".") for answer in as_texts(answers)]
    return _any(*_equal(docowl_line(as_text(prediction)), golds, str))


def _equal(said: str, golds: list[str], fold: Callable[[str], str]) -> tuple[int, Parts]:
    """How many answers a prediction equals."""
    said = fold(said)
    matched = [gold for gold in golds if fold(gold) == said]
    first = matched[0] if matched else None
    return len(matched), {"matched": first, "normalised_prediction": said}


def _any(found: int, parts: Parts) -> tuple[float, Parts]:
    return float(found > 0), parts


EXACT_MATCH: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit,
    "vlmevalkit-2026.08": _vlmevalkit,
    "lmms-eval": _lmms_eval,
}

EXACT_ACCURACY: dict[str, Scorer] = {"docowl": _docowl}
