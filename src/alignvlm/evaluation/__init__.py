"""What a model is worth: scorers, and the measurement of the default model.

`metrics` scores one answer or one page; `encoder` measures how well a vision encoder and its
ALIGN connector read; `measure` puts a whole model beside its baselines.
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

__all__ = [
    "Estimate",
    "anls",
    "character_edits",
    "character_overlap",
    "contains",
    "estimate",
]
