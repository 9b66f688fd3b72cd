"""Relaxed accuracy of ChartQA: numbers within 5 % of the gold, other answers equal.

Masry et al., "ChartQA" (2022), section 5.1: "We consider an answer to be correct if it is within
5% of the gold answer. For non-numeric answers, we still need an exact match".
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, best, column

TOLERANCE = 0.05


def to_float(text: str) -> float | None:
    """A text as a number, "14%" as 0.14; None where it is none. "nan" and "inf" are numbers."""
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def within(text: str, reference: str) -> bool:
    """Whether `text` is within 5 % of `reference`, or both are one text but for letter case.

    Binary arithmetic is the toolkits': 1.05 is not within 5 % of 1. A reference of zero has no
    5 %, so that texts are compared.
    """
    number, base = to_float(text), to_float(reference)
    if number is not None and base:
        return abs(number - base) / abs(base) <= TOLERANCE
    return text.lower() == reference.lower()


def within_exactly(text: str, reference: str) -> bool:
    """`within` in decimal arithmetic, where a reference of zero asks for zero."""
    number, base = _to_decimal(text), _to_decimal(reference)
    if number is not None and base is not None:
        return abs(number - base) <= abs(base) / 20
    return text.lower() == reference.lower()


def _to_decimal(text: str) -> Decimal | None:
    number = to_float(text)
    if number is None or not isfinite(number):
        return None
    try:
        exact = Decimal(text.rstrip("%"))
    except InvalidOperation:
        return None
    return exact / 100 if text.endswith("%") else exact


def _vlmevalkit(prediction: Any, answers: Any) -> tuple[float, Parts]:
    return _compare(as_text(prediction).strip(), column(answers, plain=True))


def _vlmevalkit_2025(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """The two arguments are swapped: the tolerance is 5 % of the prediction."""
    said = as_text(prediction).strip()
    return _compare(said, column(answers, plain=True), swapped=True)


def _lmms_eval(prediction: Any, answers: Any) -> tuple[float, Parts]:
    return _compare(as_text(prediction).strip(), as_texts(answers))


def _pix2struct(prediction: Any, answers: Any) -> tuple[float, Parts]:
    return _compare(as_text(prediction), as_texts(answers))


def _docowl(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Line breaks go, and one full stop at the end of the gold answer."""
    golds = [docowl_line(answer).removesuffix(".") for answer in as_texts(answers)]
    return _compare(docowl_line(as_text(prediction)), golds)


def _strict(prediction: Any, answers: Any) -> tuple[float, Parts]:
    said = as_text(prediction).strip()
    golds = [answer.strip() for answer in as_texts(answers)]
    return _result(said, golds, [within_exactly(said, gold) for gold in golds])


def docowl_line(text: str) -> str:
    """A text as DocOwl reads predictions and answers: without line breaks and outer blanks."""
    return text.replace("\n", "").strip()


def _compare(said: str, golds: list[str], *, swapped: bool = False) -> tuple[float, Parts]:
    hits = [within(gold, said) if swapped else within(said, gold) for gold in golds]
    return _result(said, golds, hits)


def _result(said: str, golds: list[str], hits: list[bool]) -> tuple[float, Parts]:
    index = best([float(hit) for hit in hits]) if hits else None
    right = index is not None and hits[index]
    return float(right), {
        "matched": golds[index] if right and index is not None else None,
        "normalised_prediction": said,
        "prediction_number": _json_number(to_float(said)),
        "answer_number": None if index is None else _json_number(to_float(golds[index])),
    }


def _json_number(number: float | None) -> float | None:
    return number if number is not None and isfinite(number) else None


RELAXED: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit_2025,
    "vlmevalkit-2026.08": _vlmevalkit,
    "lmms-eval": _lmms_eval,
    "pix2struct": _pix2struct,
    "docowl": _docowl,
    "strict": _strict,
}
