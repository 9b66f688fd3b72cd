from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from alignvlm.errors import ConfigurationError, UsageError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model import AlignVLMForConditionalGeneration

Make = Callable[..., AlignVLMForConditionalGeneration]
GRIDS = torch.tensor([[1, 2, 1], [1, 1, 0]])  # 3 tiles and 1 tile


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def test_features_are_grouped_by_image(make: Make, pixels: Tensor) -> None:
    model = make().model
    output = model.get_image_features(pixels, GRIDS, return_intermediates=True)
    assert output.last_hidden_state.shape == (4, 4, 16)
    assert [tuple(tokens.shape) for tokens in output.pooler_output] == [(12, 32), (4, 32)]
    probs = output.intermediates["vocab_probs"]
    assert probs.shape == (4, 4, 264)
    torch.testing.assert_close(probs.sum(-1), torch.ones(4, 4))
    # Eq. 2: the visual tokens are the probabilities' mixture of the live table.
    table = model.get_input_embeddings().weight
    mixed = (probs.reshape(-1, 264).double() @ table.double()).float()
    torch.testing.assert_close(torch.cat(output.pooler_output), mixed, atol=1e-5, rtol=1e-5)


def test_without_grids_every_tile_is_an_image(make: Make, pixels: Tensor) -> None:
    output = make().get_image_features(pixels)
    assert len(output.pooler_output) == 4
    assert output.intermediates is None


def test_a_tuple_comes_back_when_asked_for(make: Make, pixels: Tensor) -> None:
    features, tokens = make().get_image_features(pixels, GRIDS, return_dict=False)
    assert features.shape == (4, 4, 16)
    assert len(tokens) == 2


def test_tile_by_tile_equals_all_at_once(make: Make, pixels: Tensor) -> None:
    model = make()
    whole = model.get_image_features(pixels, GRIDS, return_intermediates=True)
    with torch.no_grad():
        parts = model.get_image_features(pixels, GRIDS, return_intermediates=True)
    for name, value in whole.intermediates.items():
        torch.testing.assert_close(parts.intermediates[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("connector", ["linear", "mlp"])
def test_other_connectors_fit_in(make: Make, pixels: Tensor, connector: str) -> None:
    model = make(connector={"name": connector})
    assert model.get_image_features(pixels, GRIDS).pooler_output[0].shape == (12, 32)


def test_scaled_tables_are_mixed_scaled(make: Make, pixels: Tensor) -> None:
    model = make()
    plain = model.get_image_features(pixels).pooler_output[0]
    model.get_input_embeddings().embed_scale = 3.0
    torch.testing.assert_close(model.get_image_features(pixels).pooler_output[0], 3 * plain)


def test_grids_must_add_up(make: Make, pixels: Tensor) -> None:
    with pytest.raises(UsageError, match="4 tiles in 2 images and pixel_values hold 3"):
        make().get_image_features(pixels[:3], GRIDS)


def test_one_text_input_and_ids_for_images(make: Make, pixels: Tensor) -> None:
    model = make()
    ids, embeds = torch.tensor([[1]]), torch.zeros(1, 1, 32)
    for given in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(UsageError, match="exactly one"):
            model(**given)
    with pytest.raises(UsageError, match="need input_ids"):
        model(inputs_embeds=embeds, pixel_values=pixels)


def first_two(tokens: Tensor, probs: Tensor, grid: TileGrid, embeddings: Tensor) -> Tensor:
    """A condenser that checks what it is given."""
    assert len(tokens) == len(probs) == grid.num_tiles * 4
    torch.testing.assert_close(probs @ embeddings, tokens, atol=1e-5, rtol=1e-5)
    return tokens[: 2 * grid.rows * grid.cols]


def test_a_condenser_shortens_each_image(make: Make, tiny: SimpleNamespace, pixels: Tensor) -> None:
    model = make()
    full = model.get_image_features(pixels, GRIDS).pooler_output
    model.model.condenser = first_two
    short = model.get_image_features(pixels, GRIDS).pooler_output
    assert [len(tokens) for tokens in short] == [4, 2]
    assert torch.equal(short[0], full[0][:4]) and torch.equal(short[1], full[1][:2])


def test_condensing_needs_probabilities(make: Make, pixels: Tensor) -> None:
    model = make(connector={"name": "mlp"})
    model.model.condenser = first_two
    with pytest.raises(ConfigurationError, match="'mlp' gives no probabilities"):
        model.get_image_features(pixels)
