"""What lmms-eval reads at every start, whether it is to use this package or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

__all__ = ["manifest"]


def manifest() -> ModelManifest:
    """How lmms-eval finds the model `alignvlm`: the entry point of group "lmms_eval.models"."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="alignvlm", chat_class_path="alignvlm.evaluation.harness.lmms_eval.AlignVLM"
    )
