"""H-Reducer against the two convolutions it was published as, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.connectors.h_reducer import HReducer
from alignvlm.errors import ConfigurationError


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def published(
    tile: Tensor,
    before: tuple[Tensor, Tensor],
    reducer: tuple[Tensor, Tensor],
    block: tuple[int, int],
) -> Tensor:
    """DocOwl's convolutions of a tile [d, rows, columns], up to the last linear map.

    Between them, sub-channel group x = i b + j of a position goes to row i and column j of the
    block that the position came from; for a = 1 that is DocOwl's own layout, along the row.
    """
    a, b = block
    d = tile.shape[0]
    hidden = functional.gelu(functional.conv2d(tile, *before, stride=block)).numpy()
    rows, columns = hidden.shape[1:]
    laid_out = np.empty((d, rows * a, columns * b))
    for group in range(a * b):
        laid_out[:, group // b :: a, group % b :: b] = hidden[group * d : (group + 1) * d]
    return functional.conv2d(torch.from_numpy(laid_out), *reducer, stride=block)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    d=st.integers(1, 4),
    block=st.sampled_from([(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 3)]),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    tiles=st.integers(1, 3),
    pad=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_published_convolutions(
    d: int, block: tuple[int, int], grid: tuple[int, int], tiles: int, pad: bool, seed: int
) -> None:
    a, b = block
    if not pad:
        grid = (max(grid[0], a), max(grid[1], b))
    torch.manual_seed(seed)
    before = doubles(a * b * d, d, a, b), doubles(a * b * d)
    reducer = doubles(d, d, a, b), doubles(d)
    ours = HReducer(d, 5, reduce=block, pad=pad).double()
    with torch.no_grad():
        for mine, (weight, bias) in ((ours.before, before), (ours.reducer, reducer)):
            mine.weight.copy_(weight.permute(0, 2, 3, 1).flatten(1))  # as the docstring says
            mine.bias.copy_(bias)
    features = doubles(2, tiles * grid[0] * grid[1], d)
    expected = []
    for tile in features.reshape(-1, *grid, d).permute(0, 3, 1, 2):
        missing = (-grid[1] % b, -grid[0] % a) if pad else (0, 0)
        whole = functional.pad(tile, (0, missing[0], 0, missing[1]))
        reduced = published(whole, before, reducer, block)
        expected.append(ours.fc(reduced.flatten(1).T))
    rows, columns = reduced.shape[1:]
    output = ours(features, grid=grid)
    assert output.grid == ours.output_grid(grid) == (rows, columns)
    torch.testing.assert_close(
        output.visual_tokens, torch.stack(expected).reshape(2, tiles * rows * columns, 5)
    )


def test_padding_keeps_the_last_columns_and_cutting_drops_them() -> None:
    torch.manual_seed(0)
    features = doubles(1, 27 * 27, 3)
    changed = features.clone().reshape(27, 27, 3)
    changed[:, 24:] += 1
    changed = changed.reshape(1, -1, 3)
    cut, padded = HReducer(3, 5, pad=False).double(), HReducer(3, 5).double()
    assert cut(features, grid=(27, 27)).visual_tokens.shape[1] == 162
    assert padded(features, grid=(27, 27)).visual_tokens.shape[1] == 189
    same = [
        torch.isclose(
            c(features, grid=(27, 27)).visual_tokens, c(changed, grid=(27, 27)).visual_tokens
        )
        for c in (cut, padded)
    ]
    assert same[0].all()
    by_column = same[1].reshape(27, 7, 5)
    assert by_column[:, :6].all()
    assert not by_column[:, 6].all(-1).any()


def test_the_end_token_follows_every_tile() -> None:
    torch.manual_seed(0)
    connector = HReducer(3, 5, end_token=True).double()
    features = doubles(2, 3 * 12, 3)
    output = connector(features, grid=(2, 6))
    assert output.grid is None
    assert connector.num_visual_tokens((2, 6)) == 5
    tokens = output.visual_tokens.reshape(6, 5, 5)
    assert torch.equal(tokens[:, -1], connector.end_token.expand(6, 5))
    plain = HReducer(3, 5).double()
    state = connector.state_dict()
    del state["end_token"]
    plain.load_state_dict(state)
    expected = plain(features, grid=(2, 6)).visual_tokens.reshape(6, 4, 5)
    torch.testing.assert_close(tokens[:, :-1], expected)
    assert connector.flops((2, 6)) == plain.flops((2, 6))


def test_the_end_token_keeps_dtype_gradient_and_seed() -> None:
    torch.manual_seed(0)
    connector = HReducer(3, 5, end_token=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = connector(torch.randn(2, 8, 3), grid=(2, 4)).visual_tokens
    assert tokens.dtype == torch.bfloat16
    tokens.float().sum().backward()
    assert torch.equal(connector.end_token.grad, torch.full((5,), 2.0))  # one for each tile
    assert connector(torch.randn(0, 8, 3), grid=(2, 4)).visual_tokens.shape == (0, 3, 5)
    with torch.device("meta"):
        empty = HReducer(3, 5, end_token=True)
    empty.to_empty(device="cpu")
    torch.manual_seed(0)
    empty.reset_parameters()
    expected = connector.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in empty.state_dict().items())


@pytest.mark.parametrize(
    ("options", "parameters", "tokens"),
    [
        ({}, 30_089_856, 189),
        ({"pad": False}, 30_089_856, 162),
        ({"end_token": True}, 30_095_232 - 2 * 1152, 190),  # DocOwl's, less its unused LayerNorm
    ],
)
def test_sizes_at_full_width(options: dict[str, bool], parameters: int, tokens: int) -> None:
    with torch.device("meta"):
        connector = HReducer(1152, 3072, **options)  # type: ignore[arg-type]
        features = torch.empty(2, 729, 1152)
    assert connector.num_parameters() == parameters
    assert connector.num_visual_tokens((27, 27)) == tokens
    with FlopCounterMode(display=False) as counter:
        output = connector(features, grid=(27, 27), return_intermediates=True)
    assert output.visual_tokens.shape == (2, tokens, 3072)
    assert output.intermediates["merged"].shape == output.intermediates["hidden"].shape
    assert output.intermediates["reduced"].shape == (2, 27, 6 if "pad" in options else 7, 1152)
    assert connector.flops((27, 27), 2) == counter.get_total_flops()


def test_a_tile_that_fills_no_block_is_refused_or_padded() -> None:
    cut = HReducer(3, 5, pad=False)
    for act in (cut.output_grid, cut.num_visual_tokens, cut.flops):
        with pytest.raises(ConfigurationError, match=r"9 x 3 tile, .* block of 1 x 4: .* pad=True"):
            act((9, 3))
    with pytest.raises(ConfigurationError, match="9 x 3 tile"):
        cut(torch.randn(1, 27, 3), grid=(9, 3))
    assert HReducer(3, 5)(torch.randn(1, 27, 3), grid=(9, 3)).grid == (9, 1)


@pytest.mark.parametrize("reduce", [4, (4,), (0, 4), (1, 2.0), "14"])
def test_the_block_is_two_positive_integers(reduce: object) -> None:
    with pytest.raises(ConfigurationError, match="reduce must be two positive integers"):
        HReducer(3, 5, reduce=reduce)  # type: ignore[arg-type]


def test_needs_a_grid() -> None:
    with pytest.raises(ConfigurationError, match=r"HReducer needs to know .* pass grid="):
        HReducer(3, 5)(torch.randn(1, 4, 3))
