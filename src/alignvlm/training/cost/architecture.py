"""What a run's model is, without its weights and, for what the package knows, without network."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, LlamaConfig, PreTrainedConfig, ProcessorMixin

from alignvlm.errors import ConfigurationError
from alignvlm.model.compat import quiet
from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.document_encoder import DocumentEncoderConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.model.presets import find_preset
from alignvlm.training.configuration import ModelConfig

__all__ = ["SMOLLM2_135M", "architecture", "processor_of", "skeleton", "skeleton_of"]

# SmolLM2-135M-Instruct's `config.json`.
SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    "tie_word_embeddings": True,
}


def architecture(model: ModelConfig) -> PreTrainedConfig:
    """The configuration of a run's model: an `AlignVLMConfig`, or that of another base VLM.

    Raises:
        ConfigurationError: the model is described by files that are not on this machine, or its
            parts do not fit.
    """
    if model.preset is not None:
        preset = find_preset(model.preset).config()
        return _config(preset.vision_config, preset.text_config, preset.image_token_id, model)
    if model.pretrained is not None:
        return _stored(model.pretrained)
    vision = _vision_config(model)
    llm = str(model.llm)
    text = LlamaConfig(**SMOLLM2_135M) if llm == "smollm2-135m" else _stored(llm)
    return _config(vision, text, 0, model)


def skeleton(config: AlignVLMConfig) -> AlignVLMForConditionalGeneration:
    """The model on the meta device: shapes without values; kept for the next call."""
    return skeleton_of(config.to_json_string(use_diff=False))


@lru_cache(maxsize=4)
def skeleton_of(content: str) -> AlignVLMForConditionalGeneration:
    """`skeleton` of a configuration that was written as JSON."""
    with torch.device("meta"):
        return AlignVLMForConditionalGeneration(AlignVLMConfig.from_dict(json.loads(content)))


def _config(vision: Any, text: Any, image_token_id: int, model: ModelConfig) -> AlignVLMConfig:
    return AlignVLMConfig(
        vision_config=vision,
        text_config=text,
        connector=dict(model.connector),
        tiling=dict(model.tiling),
        image_token_id=image_token_id,
        vision_feature_layer=model.vision_feature_layer,
    )


def _vision_config(model: ModelConfig) -> PreTrainedConfig:
    if model.vision == "document-encoder":
        return DocumentEncoderConfig(**model.vision_options)
    found = _stored(str(model.vision))
    return getattr(found, "vision_config", found)


def processor_of(model: ModelConfig) -> ProcessorMixin:
    """The processor of a saved model.

    Raises:
        ConfigurationError: its files are not on this machine, or need a package that is not.
    """
    try:
        with quiet():
            return AutoProcessor.from_pretrained(model.pretrained, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"The processor of {model.pretrained} cannot be loaded ({reason}): name a folder that "
            "holds its files, or install what it needs"
        ) from error


def _stored(source: str) -> PreTrainedConfig:
    try:
        with quiet():
            return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"The configuration of {source} is not on this machine and cannot be fetched: name a "
            "folder with its config.json, or a preset"
        ) from error
