"""Small models with every kind of part, and what torch says of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from torch import Tensor
from transformers import LlamaConfig, SiglipVisionConfig

from alignvlm.model.configuration import AlignVLMConfig
from alignvlm.model.document_encoder import DocumentEncoderConfig
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.training.configuration import LoraConfig, Rates

TEXT = {
    "vocab_size": 1024,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
VISION = {
    "hidden_size": 80,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "image_size": 84,
    "patch_size": 14,
    "vision_use_head": False,
}


class Small:
    """A model of random weights, its configuration, and a batch of one row for it."""

    def __init__(self, config: AlignVLMConfig, attention: str, num_tiles: int, num_text: int):
        self.config = config
        config._attn_implementation = attention
        self.model = self.build(config).train()
        self.num_tiles, self.num_text = num_tiles, num_text
        self.visual_tokens = num_tiles * config.tokens_per_tile
        self.length = self.visual_tokens + num_text
        side = config.tiling["tile_px"]
        ids = torch.randint(1, 1000, (1, self.length))
        ids[:, : self.visual_tokens] = 0
        self.batch: dict[str, Tensor] = {
            "input_ids": ids,
            "pixel_values": torch.randn(num_tiles, 3, side, side),
        }

    @staticmethod
    def build(config: AlignVLMConfig) -> AlignVLMForConditionalGeneration:
        """With fresh weights."""
        return AlignVLMForConditionalGeneration(config)

    def freeze(self, rates: Rates) -> None:
        """Only the parts with a rate train."""
        inner = self.model.model
        parts = {
            "vision": [inner.vision_model],
            "connector": [inner.connector],
            "llm": [inner.language_model, self.model.lm_head],
        }
        for name, modules in parts.items():
            for module in modules:
                module.requires_grad_(getattr(rates, name) is not None)

    def adapt(self, lora: LoraConfig) -> None:
        """Adapters of peft in the language model, whose own weights are frozen."""
        config = PeftConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), bias="none"
        )
        self.model.lm_head.requires_grad_(False)
        inject_adapter_in_model(config, self.model.model.language_model)

    def loss(self, **options: Any) -> Tensor:
        """Mean logit: a loss that costs no matrix product of its own."""
        return self.model(**self.batch, use_cache=False, **options).logits.float().mean()


@pytest.fixture
def small() -> Any:
    """Makes a `Small` for a connector, an encoder and an attention implementation."""

    def make(
        connector: dict[str, Any],
        *,
        encoder: str = "siglip",
        attention: str = "eager",
        num_tiles: int = 3,
        num_text: int = 40,
        **options: Any,
    ) -> Small:
        vision = (
            SiglipVisionConfig(**VISION)
            if encoder == "siglip"
            else DocumentEncoderConfig(tile_px=48)
        )
        config = AlignVLMConfig(
            vision_config=vision,
            text_config=LlamaConfig(**TEXT),
            connector=connector,
            image_token_id=0,
            **options,
        )
        return Small(config, attention, num_tiles, num_text)

    return make


class Blank(Small):
    """A `Small` whose weights are all zero, which takes no time to fill."""

    @staticmethod
    def build(config: AlignVLMConfig) -> AlignVLMForConditionalGeneration:
        with torch.device("meta"):
            model = AlignVLMForConditionalGeneration(config)
        model.to_empty(device="cpu")
        model.tie_weights()
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.zero_()
        return model


@pytest.fixture
def blank() -> Any:
    """Makes a model of zeros for a configuration that a test has."""
    return Blank
