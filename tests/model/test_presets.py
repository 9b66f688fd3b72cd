from __future__ import annotations

import pytest
import torch

from alignvlm.errors import ConfigurationError
from alignvlm.model import PRESETS, AlignVLMForConditionalGeneration
from alignvlm.model.presets import find_preset

# ALIGN, LLM with its head, SigLIP without its pooling head, all together.
COUNTS = {
    "alignvlm-llama-3.2-1b": (265_288_192, 1_235_814_400, 412_987_248, 1_914_089_840),
    "alignvlm-llama-3.2-3b": (397_804_032, 3_212_749_824, 412_987_248, 4_023_541_104),
    "alignvlm-llama-3.1-8b": (530_319_872, 8_030_261_248, 412_987_248, 8_973_568_368),
}
V, VISION = 128_256, 1152


def count_llama(width: int, inner: int, layers: int, heads: int, head: int, tied: bool) -> int:
    """Parameters of a Llama with 8 key-value heads, by hand."""
    attention = 2 * width * heads * head + 2 * width * 8 * head
    layer = attention + 3 * width * inner + 2 * width
    return V * width * (1 if tied else 2) + layers * layer + width


def count_siglip(width: int, inner: int, layers: int) -> int:
    """Parameters of a SigLIP vision encoder without its pooling head, by hand."""
    attention = 4 * (width * width + width)
    mlp = 2 * width * inner + inner + width
    layer = attention + mlp + 4 * width
    patches = 3 * 14 * 14 * width + width + 27 * 27 * width
    return patches + layers * layer + 2 * width


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_preset_is_in_the_table() -> None:
    assert set(PRESETS) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_full_size_on_the_meta_device(name: str) -> None:
    config = PRESETS[name].config()
    with torch.device("meta"):
        model = AlignVLMForConditionalGeneration(config)
    align, llm, vision, total = COUNTS[name]
    text = config.text_config
    width = text.hidden_size
    assert size(model.model.connector) == align == VISION * width + 2 * width + V * (width + 2)
    assert size(model.model.vision_model) == vision == count_siglip(VISION, 4304, 27)
    assert size(model) == total
    assert total - align - vision == llm
    assert llm == count_llama(
        width,
        text.intermediate_size,
        text.num_hidden_layers,
        text.num_attention_heads,
        text.head_dim,
        text.tie_word_embeddings,
    )
    assert config.tokens_per_tile == 729
    assert text.vocab_size == V and config.image_token_id == 128_002
    assert text.rope_parameters["rope_type"] == "llama3"


def test_tying_is_metas() -> None:
    assert [p.config().tie_word_embeddings for p in PRESETS.values()] == [True, True, False]


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigurationError, match=r"alignvlm-llama-3\.2-1b"):
        find_preset("alignvlm-llama")
