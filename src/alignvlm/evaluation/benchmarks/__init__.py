"""Benchmarks as data: records, prompts, and questions out of every form they are published in.

`find_benchmark` gives a record, `open_questions` its questions by number, `put` a question's prompt
in a dialect. `own_benchmark` makes a record of a user's own file. Nothing here needs torch.
"""

from __future__ import annotations

from alignvlm.evaluation.benchmarks.answers import fit_answers
from alignvlm.evaluation.benchmarks.find import data_folder, open_questions
from alignvlm.evaluation.benchmarks.prompts import PROMPT_DIALECTS, put, rule_of
from alignvlm.evaluation.benchmarks.record import Benchmark, PromptRule, QuestionSet
from alignvlm.evaluation.benchmarks.registry import (
    BENCHMARKS,
    find_benchmark,
    own_benchmark,
    synthdoc,
)

__all__ = [
    "BENCHMARKS",
    "PROMPT_DIALECTS",
    "Benchmark",
    "PromptRule",
    "QuestionSet",
    "data_folder",
    "find_benchmark",
    "fit_answers",
    "open_questions",
    "own_benchmark",
    "put",
    "rule_of",
    "synthdoc",
]
