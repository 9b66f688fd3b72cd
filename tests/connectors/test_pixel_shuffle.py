"""Pixel shuffle against SmolVLM's connector in transformers, and NumPy at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

from alignvlm.connectors.pixel_shuffle import PixelShuffle
from alignvlm.errors import ConfigurationError


@pytest.mark.parametrize(("factor", "side"), [(1, 3), (2, 4), (3, 6), (4, 8)])
def test_equals_smolvlms_connector_with_the_same_matrix(factor: int, side: int) -> None:
    config = SmolVLMConfig(
        vision_config={"hidden_size": 6, "num_attention_heads": 1},
        text_config={"hidden_size": 10, "num_attention_heads": 1},
        scale_factor=factor,
    )
    theirs = SmolVLMConnector(config).double()
    ours = PixelShuffle(6, 10, factor=factor).double()
    (matrix,) = theirs.parameters()
    with torch.no_grad():
        ours.proj.weight.copy_(matrix)  # no permutation: the order within a block is the same
    features = torch.randn(3, side * side, 6, dtype=torch.float64)
    output = ours(features, grid=(side, side))
    assert output.grid == (side // factor, side // factor)
    torch.testing.assert_close(output.visual_tokens, theirs(features), rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    factor=st.integers(1, 4),
    batch=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    tiles=st.integers(1, 3),
)
def test_odd_grids_are_completed_with_zeros(
    grid: tuple[int, int], factor: int, batch: tuple[int, ...], tiles: int
) -> None:
    connector = PixelShuffle(3, 5, factor=factor).double()
    features = torch.randn(*batch, tiles * grid[0] * grid[1], 3, dtype=torch.float64)
    output = connector(features, grid=grid, return_intermediates=True)
    rows, columns = -(-grid[0] // factor), -(-grid[1] // factor)
    assert output.grid == connector.output_grid(grid) == (rows, columns)
    weight = connector.proj.weight.detach().numpy().reshape(5, factor, factor, 3)
    expected = np.zeros((*batch, tiles, rows, columns, 5))
    maps = features.numpy().reshape(*batch, tiles, *grid, 3)
    for r, c in np.ndindex(*grid):  # what each feature adds to the token of its block
        expected[..., r // factor, c // factor, :] += (
            maps[..., r, c, :] @ weight[:, r % factor, c % factor].T
        )
    expected = expected.reshape(*batch, tiles * rows * columns, 5)
    np.testing.assert_allclose(output.visual_tokens.detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("factor", "parameters", "tokens"),
    [(2, 14_155_776, 196), (3, 31_850_496, 81), (4, 56_623_104, 49)],
)
def test_sizes_at_full_width(factor: int, parameters: int, tokens: int) -> None:
    with torch.device("meta"):
        connector = PixelShuffle(1152, 3072, factor=factor)
        features = torch.empty(2, 729, 1152)
    assert connector.num_parameters() == parameters
    assert connector.num_visual_tokens((27, 27)) == tokens
    with FlopCounterMode(display=False) as counter:
        output = connector(features, grid=(27, 27), return_intermediates=True)
    assert output.visual_tokens.shape == (2, tokens, 3072)
    assert output.intermediates["merged"].shape[-1] == factor**2 * 1152
    assert connector.flops((27, 27), 2) == counter.get_total_flops()


def test_starts_as_nanovlm_does() -> None:
    torch.manual_seed(0)
    weight = PixelShuffle(64, 128).proj.weight
    assert abs(weight.mean()) < 5e-4  # of 32,768 numbers
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.abs().max() > 0.06  # normal, where torch's own would end at 0.0625


@pytest.mark.parametrize("factor", [0, -1, 1.5, True])
def test_the_factor_is_a_positive_integer(factor: object) -> None:
    with pytest.raises(ConfigurationError, match="factor must be a positive integer"):
        PixelShuffle(3, 5, factor=factor)  # type: ignore[arg-type]


def test_needs_a_grid() -> None:
    with pytest.raises(ConfigurationError, match=r"PixelShuffle needs to know .* pass grid="):
        PixelShuffle(3, 5)(torch.randn(1, 4, 3))
