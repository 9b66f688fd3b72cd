"""ANLS: normalised Levenshtein similarity to the nearest answer, nothing below the threshold.

Biten et al., "Scene Text Visual Question Answering" (2019), eq. 1: an answer with the normalised
distance NL scores 1 - NL where NL < 0.5 and 0 elsewhere; a question scores what its best answer
does. Implementations differ in what they fold before comparing, in the length that they divide
by, and in whether exactly 0.5 is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alignvlm.errors import MissingDependencyError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, column

ANLS_THRESHOLD = 0.5
"""Similarities below it count nothing, so that a wrong answer scores 0."""


def folded(text: str) -> str:
    """Lower case, any run of blanks one space, none at the ends."""
    return " ".join(text.lower().split())


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One implementation's way of comparing two texts.

    Attributes:
        fold: what is done to both before their distance is taken.
        length: of one text, from (the text as given, the folded text); the longer divides.
        keeps_half: whether a similarity of exactly 0.5 counts.
        strips: whether the prediction is stripped first, which changes its length.
        listed: whether a text of answers may be a list, as in VLMEvalKit's column.
    """

    fold: Callable[[str], str] = folded
    length: Callable[[str, str], int] = lambda _, text: len(text)
    keeps_half: bool = False
    strips: bool = False
    listed: bool = False


def _length_as_given(text: str, _: str) -> int:
    return len(text.upper())


VLMEVALKIT = Rule(length=_length_as_given, keeps_half=True, listed=True)

RULES = {
    "vlmevalkit-2025.05": VLMEVALKIT,
    "vlmevalkit-2026.08": VLMEVALKIT,
    "lmms-eval": Rule(length=_length_as_given, keeps_half=True, strips=True),
    "due": Rule(fold=str.upper),
    "pix2struct": Rule(fold=str.lower),
    "mmf": Rule(fold=lambda text: text.lower().strip(), keeps_half=True),
    "anls-0.0.2": Rule(length=lambda _, text: len(text.upper())),
    "anls_star-1.0.1": Rule(keeps_half=True),
    "strict": Rule(),
}
"""How each dialect compares; `strict` is the definition, on folded texts."""


def anls(prediction: str, answers: Sequence[str], rule: Rule = VLMEVALKIT) -> float:
    """Similarity to the nearest accepted answer, in [0, 1]; 0 where there is no answer.

    By default as VLMEvalKit and lmms-eval have it: letter case and the kind and number of blanks
    do not count, the distance is divided by the longer of the two texts as given, and exactly 0.5
    is kept, which the definition would drop.

    Raises:
        MissingDependencyError: rapidfuzz, of the extra `eval`, is not installed.
    """
    return compare(prediction, answers, rule)[0]


def compare(prediction: str, answers: Sequence[str], rule: Rule) -> tuple[float, Parts]:
    """The score, with the nearest answer and its distance."""
    said = rule.fold(prediction)
    said_length = rule.length(prediction, said)
    if not answers:
        return 0.0, {"matched": None, "normalised_prediction": said}
    distance = levenshtein()
    similarity, edits, length, matched, true = float("-inf"), 0, 0, "", ""
    for answer in answers:
        other = rule.fold(answer)
        longest = max(said_length, rule.length(answer, other))
        apart = distance(said, other)
        like = 1 - apart / longest if longest else 1.0
        if like > similarity:
            similarity, edits, length, matched, true = like, apart, longest, answer, other
    kept = similarity > ANLS_THRESHOLD or (rule.keeps_half and similarity == ANLS_THRESHOLD)
    return similarity if kept else 0.0, {
        "matched": matched,
        "distance": edits,
        "length": length,
        "similarity": similarity,
        "normalised_prediction": said,
        "normalised_answer": true,
    }


def anls_scorer(dialect: str) -> Scorer:
    """ANLS in a dialect of `RULES`."""
    rule = RULES[dialect]

    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        said = as_text(prediction)
        return compare(
            said.strip() if rule.strips else said,
            column(answers) if rule.listed else as_texts(answers),
            rule,
        )

    return scorer


@cache
def levenshtein() -> Callable[[str, str], int]:
    """The number of insertions, deletions and substitutions between two texts."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise MissingDependencyError("rapidfuzz", "score answers", extra="eval") from error
    return Levenshtein.distance
