"""What every scorer shares: the score with its parts, and answers read as each toolkit does."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Parts: TypeAlias = dict[str, Any]
"""What a score is made of, ready for JSON."""

Scorer: TypeAlias = Callable[..., tuple[float, Parts]]
"""`scorer(prediction, answers, **options)` gives the value and its parts."""


@dataclass(frozen=True, slots=True)
class Score:
    """One score.

    Attributes:
        metric: `measure@dialect`, e.g. `anls@vlmevalkit-2025.05`.
        value: in [0, 1].
        parts: what it was made of: the matched answer, distances, normalised strings, counts.
    """

    metric: str
    value: float
    parts: Mapping[str, Any] = field(default_factory=dict)


def as_text(value: Any) -> str:
    """A prediction as text; one that is missing is empty."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_texts(answers: Any) -> list[str]:
    """Accepted answers as a list of texts; None is none."""
    if answers is None:
        return []
    if isinstance(answers, list | tuple):
        return [as_text(answer) for answer in answers]
    return [as_text(answers)]


def literal_list(text: str) -> list[Any] | None:
    """The list that a text is when read as a Python literal, else None.

    VLMEvalKit runs `eval` on the answer column; only literals are read here, so a column that
    holds code stays text.
    """
    if "[" not in text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def column(answers: Any, *, plain: bool = False) -> list[str]:
    """Answers as VLMEvalKit finds them in its `answer` column.

    Args:
        answers: the column's text, or a list that stands for it.
        plain: the benchmark's column holds one answer as plain text, so that a list of one is
            that text, and is itself read as a list when it looks like one.
    """
    if plain and isinstance(answers, list | tuple) and len(answers) == 1:
        answers = answers[0]
    if isinstance(answers, str):
        found = literal_list(answers)
        return [answers] if found is None else [str(answer) for answer in found]
    return as_texts(answers)


def best(values: list[float]) -> int:
    """Index of the first highest value."""
    return max(range(len(values)), key=values.__getitem__)
