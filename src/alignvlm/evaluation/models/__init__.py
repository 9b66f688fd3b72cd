"""Models as evaluation asks them: ours, any of transformers', and endpoints."""

from __future__ import annotations

from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.models.opening import open_model

__all__ = ["EvaluatedModel", "open_model"]
