"""Scorers: pure functions from a prediction and its answers to a score with its parts.

`score` is the one entry; a metric is named `measure@dialect`, where a dialect is whose code the
score agrees with. `aggregate` makes the score of a set. Nothing here needs torch.
"""

from __future__ import annotations

from alignvlm.evaluation.scorers.aggregate import Aggregate, aggregate
from alignvlm.evaluation.scorers.base import Score
from alignvlm.evaluation.scorers.golden import GOLDEN_NAMES, Recorded
from alignvlm.evaluation.scorers.judge import Judge, RecordedJudge
from alignvlm.evaluation.scorers.registry import (
    MEASURES,
    PAPER_DIALECT,
    metric_name,
    metric_names,
    score,
)

__all__ = [
    "GOLDEN_NAMES",
    "MEASURES",
    "PAPER_DIALECT",
    "Aggregate",
    "Judge",
    "Recorded",
    "RecordedJudge",
    "Score",
    "aggregate",
    "metric_name",
    "metric_names",
    "score",
]
