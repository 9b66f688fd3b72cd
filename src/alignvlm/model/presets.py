"""The paper's three models as data: Hub ids to build from, and full configurations.

"In particular, we utilize Llama 3.2-1B, Llama 3.2-3B, and Llama 3.1-8B" (section 3.1). The paper
does not say whether the instruction-tuned variants were the start; they are taken here, because
they bring the chat template that questions are asked in. Configurations are those of the Hub's
`config.json`, so that a model can be instantiated (on the meta device, say) without network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from transformers import LlamaConfig, SiglipVisionConfig

from alignvlm.errors import ConfigurationError
from alignvlm.model.configuration import SIGLIP_SO400M, AlignVLMConfig

SIGLIP_ID = "google/siglip-so400m-patch14-384"

# "<|reserved_special_token_0|>" of Llama 3.1 and 3.2, a row of the vocabulary that text never uses.
_LLAMA_3_IMAGE_TOKEN_ID = 128_002

_LLAMA_3: dict[str, Any] = {
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_008, 128_009],
}


def _rope(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One model of the paper.

    Attributes:
        llm: Hub id of the language model.
        text_options: fields of its configuration.
        vision: Hub id of the vision encoder.
    """

    llm: str
    text_options: Mapping[str, Any]
    vision: str = SIGLIP_ID

    def config(self) -> AlignVLMConfig:
        """The whole configuration, made without network."""
        return AlignVLMConfig(
            vision_config=SiglipVisionConfig(**SIGLIP_SO400M),
            text_config=LlamaConfig(**_LLAMA_3, **self.text_options),
            image_token_id=_LLAMA_3_IMAGE_TOKEN_ID,
        )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "alignvlm-llama-3.2-1b": Preset(
            llm="meta-llama/Llama-3.2-1B-Instruct",
            text_options={
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "head_dim": 64,
                "tie_word_embeddings": True,
                "rope_parameters": _rope(32.0),
            },
        ),
        "alignvlm-llama-3.2-3b": Preset(
            llm="meta-llama/Llama-3.2-3B-Instruct",
            text_options={
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "num_hidden_layers": 28,
                "num_attention_heads": 24,
                "head_dim": 128,
                "tie_word_embeddings": True,
                "rope_parameters": _rope(32.0),
            },
        ),
        "alignvlm-llama-3.1-8b": Preset(
            llm="meta-llama/Llama-3.1-8B-Instruct",
            text_options={
                "hidden_size": 4096,
                "intermediate_size": 14_336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "head_dim": 128,
                "tie_word_embeddings": False,
                "rope_parameters": _rope(8.0),
            },
        ),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of this name; a ConfigurationError lists the names if there is none."""
    if name not in PRESETS:
        raise ConfigurationError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
