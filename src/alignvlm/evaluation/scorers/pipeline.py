"""What VLMEvalKit does to predictions before its scorers see them.

Predictions are written to a table (`.xlsx` by default) and read back by pandas, which takes some
texts for missing values: they come back as the text "nan". Until July 2026 what started with "="
came back as 0, like any formula that nobody calculated; control characters come back spelled out.
A column of numbers alone comes back as numbers, which only the whole column shows, and links lose
"mailto:": neither is done here.
"""

from __future__ import annotations

import re
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


_LONGEST = 32_767
"""Characters that a cell of the file holds."""
_FORMULA = re.compile(r"=.*|\{=.*\}", re.DOTALL)
_CONTROL = re.compile("[\0-\b\v-\x1f\ufffe\uffff]")


def read_back(prediction: str, *, formulas: bool = False) -> str:
    """A prediction as it comes back from VLMEvalKit's file.

    Args:
        prediction: of the model.
        formulas: whether what starts with "=" is written as a formula, which comes back as 0.
    """
    if prediction in MISSING:
        return "nan"
    if formulas and _FORMULA.fullmatch(prediction):
        return "0"
    return _CONTROL.sub(lambda sign: f"_x{ord(sign[0]):04X}_", prediction[:_LONGEST])


def through_file(scorer: Scorer, *, answer_prefix: bool, formulas: bool) -> Scorer:
    """A scorer that is given what came back from the file.

    Args:
        scorer: of one prediction.
        answer_prefix: whether "Answer: " at the start is taken off, as for TableVQA-Bench.
        formulas: as in `read_back`.
    """

    def piped(prediction: Any, answers: Any, **options: Any) -> tuple[float, Parts]:
        said = read_back(as_text(prediction), formulas=formulas)
        if answer_prefix:
            said = said.removeprefix("Answer: ")
        value, parts = scorer(said, answers, **options)
        return value, parts | {"prediction_after_roundtrip": said}

    return piped
