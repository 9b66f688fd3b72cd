"""Metrics by name: what is measured, and in whose dialect."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.anls import RULES, anls_scorer
from alignvlm.evaluation.scorers.base import Score, Scorer
from alignvlm.evaluation.scorers.choices import MMMU_CHOICE, SEED_CHOICE
from alignvlm.evaluation.scorers.denotation import WTQ_DENOTATION
from alignvlm.evaluation.scorers.due import DUE_F1, DUE_MEAN_F1
from alignvlm.evaluation.scorers.exact import EXACT_ACCURACY, EXACT_MATCH
from alignvlm.evaluation.scorers.judge import MMVET, MMVET_JUDGE_PARSE
from alignvlm.evaluation.scorers.mmmu_open import MMMU_OPEN
from alignvlm.evaluation.scorers.pipeline import through_file
from alignvlm.evaluation.scorers.relaxed import RELAXED
from alignvlm.evaluation.scorers.tables import (
    FINTABNET_EXACT,
    FINTABNET_RELIEVED,
    TABLEVQA_TABFACT,
    TABLEVQA_WTQ,
)
from alignvlm.evaluation.scorers.vcr import VCR_EXACT_MATCH, VCR_JACCARD
from alignvlm.evaluation.scorers.vqa import VQA_SOFT_ACCURACY
from alignvlm.evaluation.scorers.yes_no import POPE, POPE_CORPUS

PAPER_DIALECT = "vlmevalkit-2025.05"
"""VLMEvalKit as it was when the paper's numbers were made."""

PIPELINE = "+pipeline"
"""Ends a dialect of VLMEvalKit in which predictions first go through its file."""

MEASURES: dict[str, dict[str, Scorer]] = {
    "anls": {dialect: anls_scorer(dialect) for dialect in RULES},
    "relaxed_accuracy": RELAXED,
    "vqa_soft_accuracy": VQA_SOFT_ACCURACY,
    "exact_match": EXACT_MATCH,
    "exact_accuracy": EXACT_ACCURACY,
    "wtq_denotation": WTQ_DENOTATION,
    "due_f1": DUE_F1,
    "due_mean_f1": DUE_MEAN_F1,
    "tablevqa_wtq": TABLEVQA_WTQ,
    "tablevqa_tabfact": TABLEVQA_TABFACT,
    "fintabnet_relieved": FINTABNET_RELIEVED,
    "fintabnet_exact": FINTABNET_EXACT,
    "seed_choice": SEED_CHOICE,
    "mmmu_choice": MMMU_CHOICE,
    "mmmu_open": MMMU_OPEN,
    "mmvet": MMVET,
    "mmvet_judge_parse": MMVET_JUDGE_PARSE,
    "pope": POPE,
    "pope_corpus": POPE_CORPUS,
    "vcr_exact_match": VCR_EXACT_MATCH,
    "vcr_jaccard": VCR_JACCARD,
}
"""Every measure, and a scorer for each dialect that has it."""

_DEFAULTS = {
    "exact_accuracy": "docowl",
    "wtq_denotation": "due",
    "due_f1": "due",
    "due_mean_f1": "due",
}
"""Dialects of measures that VLMEvalKit lacks. The paper says only that it employs VLMEvalKit."""

WHOLE_SETS = {"pope_corpus": "pope", "mmvet_judge_parse": "mmvet"}
"""Measures of which one call scores many answers, and the measure of each answer."""

_WITH_ANSWER_PREFIX = ("tablevqa_wtq", "tablevqa_tabfact", "fintabnet_relieved", "fintabnet_exact")


def metric_names() -> list[str]:
    """Every metric there is, as `measure@dialect`."""
    names = []
    for measure, dialects in MEASURES.items():
        names += [f"{measure}@{dialect}" for dialect in dialects]
        if measure not in WHOLE_SETS:
            piped = (dialect for dialect in dialects if dialect.startswith("vlmevalkit"))
            names += [f"{measure}@{dialect}{PIPELINE}" for dialect in piped]
    return names


def metric_name(measure: str, dialect: str = PAPER_DIALECT) -> str:
    """The full name of a measure in a dialect, or in its own default where that lacks it.

    Raises:
        UsageError: there is no such measure.
    """
    if measure not in MEASURES:
        raise UsageError(f"There is no measure {measure!r}: use one of {', '.join(MEASURES)}")
    if f"{measure}@{dialect}" in _scorers():
        return f"{measure}@{dialect}"
    return f"{measure}@{_DEFAULTS.get(measure, PAPER_DIALECT)}"


def score(metric: str, prediction: Any, answers: Any, **options: Any) -> Score:
    """Score one prediction.

    Args:
        metric: `measure@dialect`; a measure alone is taken in its default dialect.
        prediction: what the model answered: a text, or for some measures a list of values.
        answers: the accepted answers, as a list or as the text of the benchmark's answer column.
        options: what the measure needs besides, e.g. `options` for the choices of a question.

    Returns:
        The score, with its metric's full name and its parts.

    Raises:
        UsageError: there is no such metric, or it has no such option.
        MissingDependencyError: ANLS is asked for and rapidfuzz is not installed.
    """
    name = metric if "@" in metric else metric_name(metric)
    scorer = _scorers().get(name)
    if scorer is None:
        raise UsageError(_unknown(name))
    if options:
        _check_options(name, options)
    value, parts = scorer(prediction, answers, **options)
    return Score(name, value, parts)


def _unknown(name: str) -> str:
    measure, _, dialect = name.partition("@")
    if measure not in MEASURES:
        return f"There is no metric {name!r}: measures are {', '.join(MEASURES)}"
    known = ", ".join(other for other in metric_names() if other.startswith(f"{measure}@"))
    return f"The measure {measure!r} has no dialect {dialect!r}: use one of {known}"


def _check_options(name: str, options: dict[str, Any]) -> None:
    known = _option_names(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UsageError(
            f"The metric {name!r} has no option {unknown[0]!r}: it takes "
            f"{', '.join(known) or 'none'}"
        )


@cache
def _option_names(name: str) -> tuple[str, ...]:
    scorer = _scorers()[name.removesuffix(PIPELINE)]
    return tuple(inspect.signature(scorer).parameters)[2:]


@cache
def _scorers() -> dict[str, Scorer]:
    found = {}
    for name in metric_names():
        measure, _, dialect = name.partition("@")
        plain = MEASURES[measure][dialect.removesuffix(PIPELINE)]
        if dialect.endswith(PIPELINE):
            plain = through_file(
                plain,
                answer_prefix=measure in _WITH_ANSWER_PREFIX,
                formulas=dialect.startswith(PAPER_DIALECT),
            )
        found[name] = plain
    return found
