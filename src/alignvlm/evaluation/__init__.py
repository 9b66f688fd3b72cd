"""What a model is worth: scorers, and the measurement of the default model.

`score` scores a prediction as a named toolkit does, `aggregate` a set of them (`scorers`);
`metrics` has what the measurement needs besides; `encoder` measures how well a vision encoder and
its ALIGN connector read; `measure` puts a whole model beside its baselines.
"""

from __future__ import annotations

from alignvlm.evaluation.metrics import (
    Estimate,
    anls,
    character_edits,
    character_overlap,
    contains,
    estimate,
)
from alignvlm.evaluation.scorers import (
    GOLDEN_NAMES,
    Aggregate,
    Judge,
    RecordedJudge,
    Score,
    aggregate,
    metric_name,
    metric_names,
    score,
)

__all__ = [
    "GOLDEN_NAMES",
    "Aggregate",
    "Estimate",
    "Judge",
    "RecordedJudge",
    "Score",
    "aggregate",
    "anls",
    "character_edits",
    "character_overlap",
    "contains",
    "estimate",
    "metric_name",
    "metric_names",
    "score",
]
