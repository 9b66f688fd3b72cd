"""Soft accuracy of VQA and TextVQA: an answer counts in full when three of ten people gave it.

Antol et al., "VQA" (2015): min(1, people who gave the answer / 3), averaged over the subsets
that leave one person out. The published evaluation normalises answers first; the toolkits copied
that code with small changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, column
from alignvlm.evaluation.scorers.vqa_words import ARTICLES, CONTRACTIONS, DIGITS

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
"""As published, where `(?!<=\\d)` was meant as a look-behind and has no effect."""
PERIOD_2026 = re.compile(r"(?<!\d)\.(?!\d)")
_MAX_PERIODS = 32
"""The code passes `re.UNICODE` where `sub` takes a count, so that 32 full stops go at most."""


def strip_punctuation(text: str, period: re.Pattern[str]) -> str:
    """Punctuation away where a blank stands beside it, else to a blank; full stops away.

    A sign that stands beside a blank anywhere, or any comma between digits, makes all of that
    sign, or of all signs, vanish without a blank.
    """
    joined = _THOUSANDS.search(text) is not None
    out = text
    for sign in _PUNCTUATION:
        if sign in text:
            near = joined or f"{sign} " in text or f" {sign}" in text
            out = out.replace(sign, "" if near else " ")
    return period.sub("", out, count=_MAX_PERIODS)


def spell(text: str) -> str:
    """Lower case, number words to digits, articles away, contractions with their apostrophes."""
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_vqa(text: str) -> str:
    """As the published VQA evaluation and VLMEvalKit until May 2025."""
    return spell(strip_punctuation(_one_line(text), PERIOD))


def normalise_2026(text: str) -> str:
    """As VLMEvalKit since May 2025: "15." keeps its full stop."""
    return spell(strip_punctuation(_one_line(text), PERIOD_2026))


def normalise_evalai(text: str) -> str:
    """As EvalAI, mmf and lmms-eval: commas and question marks go first, "'s" stands alone."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return spell(strip_punctuation(_one_line(text), PERIOD))


def soft_accuracy(said: str, golds: list[str]) -> float:
    """Mean over the answers of min(1, how many of the others equal `said` / 3)."""
    if not golds:
        return 0.0
    matches = golds.count(said)
    others = len(golds) - matches
    return (matches * min(1.0, (matches - 1) / 3) + others * min(1.0, matches / 3)) / len(golds)


def _scorer(
    normalise: Callable[[str], str],
    read: Callable[[Any], list[str]],
) -> Scorer:
    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        said = normalise(as_text(prediction))
        golds = [normalise(answer) for answer in read(answers)]
        return soft_accuracy(said, golds), _parts(said, golds)

    return scorer


def _official(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Nothing is normalised when all answers are one text: "two" is then not "2"."""
    said = _one_line(as_text(prediction))
    golds = [_one_line(answer) for answer in as_texts(answers)]
    if len(set(golds)) > 1:
        said, golds = normalise_vqa(said), [normalise_vqa(gold) for gold in golds]
    return soft_accuracy(said, golds), _parts(said, golds)


def _parts(said: str, golds: list[str]) -> Parts:
    return {
        "normalised_prediction": said,
        "normalised_answers": golds,
        "matches": golds.count(said),
    }


VQA_SOFT_ACCURACY: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _scorer(normalise_vqa, column),
    "vlmevalkit-2026.08": _scorer(normalise_2026, column),
    "lmms-eval": _scorer(normalise_evalai, as_texts),
    "mmf": _scorer(normalise_evalai, as_texts),
    "official": _official,
}
