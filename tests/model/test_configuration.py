from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, GPT2Config

from alignvlm.errors import ConfigurationError
from alignvlm.model import (
    AlignVLMConfig,
    AlignVLMForConditionalGeneration,
    DocumentEncoderConfig,
    num_visual_tokens,
)
from alignvlm.model.configuration import feature_grid, tile_side


def test_defaults_are_the_papers() -> None:
    config = AlignVLMConfig()
    assert config.vision_config.model_type == "siglip_vision_model"
    assert config.feature_grid == (27, 27)
    assert config.tokens_per_tile == config.placeholders_per_tile == 729
    assert config.connector == {"name": "align"}
    assert (config.tiling["tile_px"], config.tiling["max_tiles"]) == (384, 9)
    assert config.condense == {"prune": False, "merge": "none"} and not config.condenses


@pytest.mark.parametrize("tied", [True, False])
def test_json_round_trip_keeps_everything(tiny: SimpleNamespace, tied: bool) -> None:
    config = tiny.config(tied=tied, condense={"prune": True}, vision_feature_layer=-2)
    again = AlignVLMConfig(**json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert type(again.text_config) is type(config.text_config)
    assert again.tie_word_embeddings is tied


def test_tying_follows_the_text_configuration(tiny: SimpleNamespace) -> None:
    text = tiny.text(tie_word_embeddings=True)
    assert tiny.config(text_config=text, tie_word_embeddings=False).tie_word_embeddings is True


def test_nested_types_are_free(tiny: SimpleNamespace) -> None:
    config = AlignVLMConfig(
        vision_config={"model_type": "alignvlm_document_encoder", "tile_px": 32},
        text_config=GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50).to_dict(),
    )
    assert isinstance(config.vision_config, DocumentEncoderConfig)
    assert config.text_config.model_type == "gpt2"
    assert config.feature_grid == (4, 8)
    assert config.tiling["tile_px"] == 32


def test_geometry_of_encoders() -> None:
    assert feature_grid(DocumentEncoderConfig()) == (48, 96)
    assert tile_side(DocumentEncoderConfig()) == 384
    clip = CLIPVisionConfig(image_size=336, patch_size=14)
    assert (feature_grid(clip), tile_side(clip)) == ((24, 24), 336)
    with pytest.raises(ConfigurationError, match="cannot be counted"):
        feature_grid(GPT2Config())
    with pytest.raises(ConfigurationError, match="square input size"):
        tile_side(GPT2Config())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiling": {"tile_px": 99}}, "takes tiles of 28 px"),
        ({"tiling": {"max_tile": 3}}, "does not exist"),
        ({"tiling": {"max_tiles": 0}}, "max_tiles"),
        ({"condense": {"merge": "all"}}, "none, average, spell"),
        ({"image_token_id": 264}, "outside the vocabulary of 264"),
        ({"image_token_id": -1}, "outside the vocabulary"),
    ],
)
def test_contradictions_are_named(
    tiny: SimpleNamespace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tiny.config(**options)


def test_condensed_images_take_one_placeholder(tiny: SimpleNamespace) -> None:
    config = tiny.config(condense={"prune": True})
    assert config.condenses
    assert config.placeholders_per_tile is None
    assert num_visual_tokens(10, config.placeholders_per_tile) == 1
    assert num_visual_tokens(10, 729) == 7290


def test_a_model_remembers_the_vocabulary_of_its_connector(
    tiny: SimpleNamespace, tmp_path: Path
) -> None:
    model = AlignVLMForConditionalGeneration(tiny.config())
    assert model.config.connector["vocab_size"] == 264
    model.resize_token_embeddings(270)
    model.save_pretrained(tmp_path)
    again = AlignVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.text_config.vocab_size == 270
    assert again.model.connector.w2.weight.shape == (264, 32)
    assert torch.equal(again.model.connector.w2.weight, model.model.connector.w2.weight)
    fresh = AlignVLMForConditionalGeneration(again.config)
    assert torch.equal(fresh.model.connector.w2.weight, fresh.lm_head.weight[:264])


def test_other_connectors_have_no_vocabulary(tiny: SimpleNamespace) -> None:
    model = AlignVLMForConditionalGeneration(tiny.config(connector={"name": "mlp"}))
    assert model.config.connector == {"name": "mlp"}
