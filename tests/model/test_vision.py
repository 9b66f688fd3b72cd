from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, CLIPVisionConfig, SiglipVisionModel

from alignvlm.imaging.tiling import TileGrid
from alignvlm.model import DocumentEncoderConfig
from alignvlm.model.vision import build_vision_model, encode


@pytest.mark.parametrize("layer", [-1, -2, 0, 3])
def test_siglip_features_are_those_of_transformers(tiny: SimpleNamespace, layer: int) -> None:
    model = build_vision_model(tiny.vision()).eval()
    assert isinstance(model, SiglipVisionModel)
    pixels = torch.randn(3, 3, 28, 28)
    expected = model(pixels, output_hidden_states=True).hidden_states
    assert len(expected) == 4
    assert torch.equal(encode(model, pixels, None, layer), expected[layer])


def test_the_last_layer_is_taken_before_the_post_layernorm(tiny: SimpleNamespace) -> None:
    model = build_vision_model(tiny.vision()).eval()
    pixels = torch.randn(1, 3, 28, 28)
    features = encode(model, pixels, None, -1)
    after = model(pixels).last_hidden_state
    assert not torch.equal(features, after)
    torch.testing.assert_close(model.post_layernorm(features), after)


def test_class_tokens_are_dropped() -> None:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    model = AutoModel.from_config(config).eval()
    pixels = torch.randn(2, 3, 28, 28)
    states = model(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(encode(model, pixels, None, -2), states[-2][:, 1:])


def test_the_document_encoder_stitches_tiles_but_not_the_thumbnail() -> None:
    torch.manual_seed(0)
    model = build_vision_model(DocumentEncoderConfig(tile_px=32, num_context_layers=1)).eval()
    for part in model.modules():  # transformers' start of 0.02 lets nothing through 50 layers
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_uniform_(part.weight)
    pixels = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        page = encode(model, pixels, [TileGrid(rows=1, cols=2, thumbnail=True)], -1)
        alone = encode(model, pixels, None, -1)
        pair = model(pixels[1:], grids=[(1, 2)]).last_hidden_state
    assert page.shape == (3, 32, 192)
    torch.testing.assert_close(page[0], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(page[1:], pair, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(page[1:], alone[1:], atol=1e-2)


def test_pixels_take_the_encoders_dtype(tiny: SimpleNamespace) -> None:
    model = build_vision_model(tiny.vision()).to(torch.bfloat16)
    assert encode(model, torch.randn(1, 3, 28, 28), None, -1).dtype == torch.bfloat16
