"""The model as a native transformers model; importing this package registers it.

After `import alignvlm.model` (or the first use of `alignvlm.AlignVLM`), `AutoConfig`, `AutoModel`,
`AutoModelForImageTextToText`, `AutoImageProcessor` and `AutoProcessor` load AlignVLM folders and
Hub ids without `trust_remote_code`.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from alignvlm.model.backbone import AlignVLMModel, AlignVLMPreTrainedModel
from alignvlm.model.build import AlignVLM
from alignvlm.model.configuration import AlignVLMConfig, num_visual_tokens
from alignvlm.model.document_encoder import DocumentEncoder, DocumentEncoderConfig
from alignvlm.model.image_processing import AlignVLMImageProcessor
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.presets import PRESETS, Preset
from alignvlm.model.processing import AlignVLMProcessor

__all__ = [
    "PRESETS",
    "AlignVLM",
    "AlignVLMConfig",
    "AlignVLMForConditionalGeneration",
    "AlignVLMImageProcessor",
    "AlignVLMModel",
    "AlignVLMPreTrainedModel",
    "AlignVLMProcessor",
    "DocumentEncoder",
    "DocumentEncoderConfig",
    "Preset",
    "num_visual_tokens",
]

AutoConfig.register(AlignVLMConfig.model_type, AlignVLMConfig, exist_ok=True)
AutoModel.register(AlignVLMConfig, AlignVLMModel, exist_ok=True)
AutoModelForImageTextToText.register(
    AlignVLMConfig, AlignVLMForConditionalGeneration, exist_ok=True
)
AutoImageProcessor.register(
    AlignVLMConfig, image_processor_classes={"pil": AlignVLMImageProcessor}, exist_ok=True
)
AutoProcessor.register(AlignVLMConfig, AlignVLMProcessor, exist_ok=True)
