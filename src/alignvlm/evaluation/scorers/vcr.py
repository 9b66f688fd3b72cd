"""VCR-wiki: how much of the covered text was restored.

Zhang et al., "VCR: Visual Caption Restoration" (2024). For each covered text the prediction's
n-gram most like it is taken, of the covered text's own number of tokens: exact match asks for the
same tokens in order, Jaccard is the overlap of the two sets. Blanks are pooled, not images.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts, column
from alignvlm.evaluation.scorers.tokens import tokenize

_REFUSALS = ("I can't", "I cannot", "无法", "抱歉")

_MAX_REMEMBERED = 10_000
"""Most n-grams of one answer that are known again: models that loop say the same for pages."""


def refuses(text: str) -> bool:
    """Whether an answer is taken for a refusal, which scores 0 whatever else it says."""
    return any(refusal in text for refusal in _REFUSALS) or "sorry" in text.lower()


def nearest(tokens: list[str], covered: str, true: list[str]) -> tuple[tuple[str, ...], str]:
    """The n-gram most like a covered text, and its text; empty where no n-gram shares a token.

    Likeness is difflib's ratio between the n-gram, joined by blanks, and the covered text as it
    stands; the first of equals is taken.

    Args:
        tokens: of the prediction.
        covered: the covered text.
        true: its tokens.
    """
    wanted = set(true)
    shared = [token in wanted for token in tokens]
    matcher = SequenceMatcher(None, "", covered)
    found: tuple[tuple[str, ...], str] = ((), "")
    highest = 0.0
    seen: set[str] = set()
    num_shared = sum(shared[: len(true)])
    for start in range(len(tokens) - len(true) + 1 if true else 0):
        if start:
            num_shared += shared[start + len(true) - 1] - shared[start - 1]
        if not num_shared:
            continue
        ngram = tuple(tokens[start : start + len(true)])
        text = " ".join(ngram)
        if text in seen:
            continue
        if len(seen) < _MAX_REMEMBERED:
            seen.add(text)
        matcher.set_seq1(text)
        if matcher.real_quick_ratio() <= highest or matcher.quick_ratio() <= highest:
            continue
        ratio = matcher.ratio()
        if ratio > highest:
            highest, found = ratio, (ngram, text)
            if ratio == 1.0:
                break
    return found


@lru_cache(maxsize=1024)
def _restored(said: str, covered: tuple[str, ...]) -> tuple[tuple[float, float, str], ...]:
    """(exact match, Jaccard, the n-gram's text) of each covered text."""
    if refuses(said):
        return tuple((0.0, 0.0, "") for _ in covered)
    tokens = tokenize(said)
    rows = []
    for text in covered:
        true = tokenize(text)
        ngram, found = nearest(tokens, text, true)
        said_set, true_set = set(ngram), set(true)
        jaccard = len(said_set & true_set) / len(said_set | true_set) if ngram else 0.0
        rows.append((float(bool(ngram) and list(ngram) == true), jaccard, found))
    return tuple(rows)


def _score(said: str, covered: list[str], *, exact: bool) -> tuple[float, Parts]:
    rows = _restored(said, tuple(covered))
    per_blank = [row[0] if exact else row[1] for row in rows]
    value = sum(per_blank) / len(per_blank) if per_blank else 0.0
    return value, {"per_blank": per_blank, "max_sim_string": [row[2] for row in rows]}


def _vlmevalkit(exact: bool) -> Scorer:
    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        said = as_text(prediction).rpartition("Assistant: ")[2]
        return _score(said, column(answers), exact=exact)

    return scorer


def _lmms_eval(exact: bool) -> Scorer:
    def scorer(prediction: Any, answers: Any) -> tuple[float, Parts]:
        return _score(as_text(prediction).strip(), as_texts(answers), exact=exact)

    return scorer


def _dialects(exact: bool) -> dict[str, Scorer]:
    return {
        "vlmevalkit-2025.05": _vlmevalkit(exact),
        "vlmevalkit-2026.08": _vlmevalkit(exact),
        "lmms-eval": _lmms_eval(exact),
    }


VCR_EXACT_MATCH = _dialects(exact=True)
VCR_JACCARD = _dialects(exact=False)
