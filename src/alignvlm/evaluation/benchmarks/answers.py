"""Answers as one metric's scorer compares them, where its dialects differ in their type."""

from __future__ import annotations

from typing import Any

__all__ = ["fit_answers"]


def fit_answers(metric: str, answers: Any) -> Any:
    """The answers of a question for `score(metric, prediction, answers)`.

    Only VTabFact of TableVQA-Bench needs it: VLMEvalKit compares its gold with the texts "1" and
    "0", the official code with the numbers, and the other type silently scores 0.

    Args:
        metric: `measure@dialect`.
        answers: as a `Question` or a `Prediction` has them.
    """
    if metric != "tablevqa_tabfact@official" or not isinstance(answers, list | tuple):
        return answers
    return [int(answer) if answer in ("0", "1") else answer for answer in answers]
