"""What VLMEvalKit does to predictions before its scorers see them.

Predictions are written to a table (`.xlsx` by default) and read back by pandas, which takes some
texts for missing values: they come back as the text "nan". A column of numbers alone comes back
as numbers, which only the whole column shows, so it is not done here.
"""

from __future__ import annotations

from typing import Any

from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text

MISSING = frozenset(
    {
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    }
)
"""What pandas reads as a missing value."""


def read_back(prediction: str) -> str:
    """A prediction as it comes back from VLMEvalKit's file."""
    return "nan" if prediction in MISSING else prediction


def through_file(scorer: Scorer, *, answer_prefix: bool) -> Scorer:
    """A scorer that is given what came back from the file.

    Args:
        scorer: of one prediction.
        answer_prefix: whether "Answer: " at the start is taken off, as for TableVQA-Bench.
    """

    def piped(prediction: Any, answers: Any, **options: Any) -> tuple[float, Parts]:
        said = read_back(as_text(prediction))
        if answer_prefix:
            said = said.removeprefix("Answer: ")
        value, parts = scorer(said, answers, **options)
        return value, parts | {"prediction_after_roundtrip": said}

    return piped
