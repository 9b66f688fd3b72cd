"""Open questions of MMMU.

The official evaluation (Yue et al., "MMMU", 2024) draws candidate phrases and numbers from an
answer and asks whether any meets the gold. VLMEvalKit rewrites the question as a choice between
the gold and "Other Answers". lmms-eval compares single characters, and so finds nothing right.
"""

from __future__ import annotations

import re
import string
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts
from alignvlm.evaluation.scorers.choices import UNPARSED, extract

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")

_DIGITS = r"(?<!\d)\d++"
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(rf"-?{_DIGITS}(?:\.\d++)?[eE][+-]?\d+")
_SIMPLE = re.compile(rf"-?(?:{_DIGITS}\.\d++|\.\d++|{_DIGITS}\b)(?![eE][+-]?\d)(?![,\d])")
"""As the official patterns; a run of digits is read from its start and at once, in linear time."""


def numbers_in(text: str) -> list[str]:
    """Numbers with commas, then in scientific notation, then simple ones."""
    return [
        number
        for pattern in (_WITH_COMMAS, _SCIENTIFIC, _SIMPLE)
        for number in pattern.findall(text)
    ]


def candidates(text: str) -> list[float | str]:
    """A phrase as a number to two decimals, or in lower case, one letter with a blank beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def key_phrases(answer: str) -> list[str]:
    """Of each line the shortest part that follows a word such as "is"; else the answer whole.

    Sentences are meant to be told apart too, but the code looks for a capital after it has put
    everything in lower case.
    """
    answer = answer.strip().strip(".").lower()
    lines = answer.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        keys = (*_KEYS, "=") if number == len(lines) else _KEYS
        tails = [line.rpartition(key)[2].strip() for key in keys if key in line]
        # An empty tail is forgotten as soon as another follows it.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            found.append(shortest)
    return found or [answer]


def parse_open(answer: str) -> list[float | str]:
    """Every candidate of an answer, once, in the order of their texts."""
    phrases = key_phrases(answer)
    phrases += [number for phrase in phrases for number in numbers_in(phrase)]
    found = {candidate for phrase in phrases for candidate in candidates(phrase)}
    return sorted(found, key=str)


def _official(prediction: Any, answers: Any) -> tuple[float, Parts]:
    said = parse_open(as_text(prediction))
    golds = [candidate for answer in as_texts(answers) for candidate in candidates(answer)]
    matched = next((one for one in said if _meets(one, golds)), None)
    return float(matched is not None), {"parsed": [str(one) for one in said], "matched": matched}


def _meets(said: float | str, golds: list[float | str]) -> bool:
    if isinstance(said, str):
        return any(isinstance(gold, str) and gold in said for gold in golds)
    return said in golds


def _lmms_eval(prediction: Any, answers: Any) -> tuple[float, Parts]:
    """Right only where the gold is empty: the official comparison is given single characters."""
    said = parse_open(as_text(prediction).strip())
    golds = [candidate for answer in as_texts(answers) for candidate in candidates(answer)]
    return float("" in golds and said != [""]), {"parsed": [str(one) for one in said]}


def _vlmevalkit(since_2025_08: bool) -> Scorer:
    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        golds = as_texts(answers)
        gold = golds[0] if len(golds) == 1 else str(golds)
        choices = {"A": gold, "B": "Other Answers"}
        letter = extract(as_text(prediction), choices, since_2025_08=since_2025_08)
        # The answer column is read as a letter where it is one, even of an open question.
        right = letter == (gold if gold in set(string.ascii_uppercase) else "A")
        return float(right), {"extracted": letter, "unparsed": letter == UNPARSED}

    return scorer


MMMU_OPEN: dict[str, Scorer] = {
    "vlmevalkit-2025.05": _vlmevalkit(since_2025_08=False),
    "vlmevalkit-2026.08": _vlmevalkit(since_2025_08=True),
    "lmms-eval": _lmms_eval,
    "official": _official,
}
