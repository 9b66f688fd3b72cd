"""TableVQA-Bench: its scorers for VWTQ and VWTQ-Syn, VTabFact, and FinTabNetQA.

Kim et al., "TableVQA-Bench" (2024). VLMEvalKit copied the official code; what differs is the type
of VTabFact's gold, and that its driver takes a leading "Answer: " off every prediction.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text
from alignvlm.evaluation.scorers.denotation import cell, compare, normalise, to_values

_UNIT_WORDS = re.compile(
    r"\b(?:dollar|gallons|square feet|shares|mbtu|mbpd|mbbls|mmbtu|unit|gwh|year|mmcf|mile|mboe)"
    r"s?\b",
    re.IGNORECASE,
)
_SCALES = [
    (re.compile(pattern), power)
    for pattern, power in (
        (r" \bthousand\b", "e3"),
        (r" \bmillion\b", "e6"),
        (r" \bbillion\b", "e9"),
        (r"\bthousand\b", "e3"),
        (r"\bmillion\b", "e6"),
        (r"\bbillion\b", "e9"),
        (r" ?%", "e-2"),
    )
]


def _wtq(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Denotation without canonical targets; "||" between several answers is one bar."""
    said = as_text(prediction).replace("||", "|")
    golds = cell(_one(answers)) if _is_one(answers) else [as_text(answer) for answer in answers]
    return compare(to_values(golds), to_values(cell(said)))


def _tabfact(prediction: Any, answers: Any, *, true: Any, false: Any) -> tuple[float, Parts]:
    """Whether "true" or "false" stands in the prediction; both at once is not understood."""
    said = "none" if prediction is None else as_text(prediction).lower()
    gold = answers[0] if isinstance(answers, list | tuple) and len(answers) == 1 else answers
    says_true, says_false = "true" in said, "false" in said
    both = says_true and says_false
    right = not both and ((says_true and gold == true) or (says_false and gold == false))
    found = None if both or not (says_true or says_false) else says_true
    return float(right), {"found": found, "unparsed": both}


def _tabfact_vlmevalkit(prediction: Any, answers: Any) -> tuple[float, Parts]:
    return _tabfact(prediction, answers, true="1", false="0")


def _tabfact_official(prediction: Any, answers: Any) -> tuple[float, Parts]:
    return _tabfact(prediction, answers, true=1, false=0)


def normalise_amount(text: str) -> list[float | str]:
    """A FinTabNetQA answer twice: with its unit's scale ("34.2%" is 0.342), and without.

    Both are numbers, or both are texts where either is no number.
    """
    scaled = _UNIT_WORDS.sub("", re.sub(r"[$(),]", "", normalise(text)))
    bare = scaled
    for pattern, power in _SCALES:
        scaled, bare = pattern.sub(power, scaled), pattern.sub("", bare)
    try:
        return [float(scaled), float(bare)]
    except ValueError:
        return [scaled, bare]


def _fintabnet(prediction: Any, answers: Any) -> tuple[bool, bool, Parts]:
    said = normalise_amount(as_text(prediction))
    gold = normalise_amount(_one(answers))
    relieved = any(one == other for one in said for other in gold)
    return (
        said[0] == gold[0],
        relieved,
        {
            "normalised_prediction": _shown(said),
            "normalised_answer": _shown(gold),
        },
    )


def _shown(values: list[float | str]) -> list[Any]:
    """(value, (value, value without scale)), ready for JSON, which has no "nan" and no "inf"."""
    shown = [value if isinstance(value, str) or isfinite(value) else str(value) for value in values]
    return [shown[0], shown]


def _fintabnet_exact(prediction: Any, answers: Any) -> tuple[float, Parts]:
    exact, _, parts = _fintabnet(prediction, answers)
    return float(exact), parts


def _fintabnet_relieved(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """The one that is reported: values with and without their scale may meet."""
    exact, relieved, parts = _fintabnet(prediction, answers)
    return float(relieved), parts | {"exact": exact}


def _is_one(answers: Any) -> bool:
    return not isinstance(answers, list | tuple) or len(answers) == 1


def _one(answers: Any) -> str:
    if isinstance(answers, list | tuple):
        return as_text(answers[0]) if answers else ""
    return as_text(answers)


_DIALECTS = ("vlmevalkit-2025.05", "vlmevalkit-2026.08", "official")

TABLEVQA_WTQ: dict[str, Scorer] = dict.fromkeys(_DIALECTS, _wtq)
TABLEVQA_TABFACT: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _tabfact_vlmevalkit,
    "vlmevalkit-2026.08": _tabfact_vlmevalkit,
    "official": _tabfact_official,
}
FINTABNET_RELIEVED: dict[str, Scorer] = dict.fromkeys(_DIALECTS, _fintabnet_relieved)
FINTABNET_EXACT: dict[str, Scorer] = dict.fromkeys(_DIALECTS, _fintabnet_exact)
