"""C-Abstractor against Honeybee's formula in NumPy float64, and against numbers from timm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.connectors.c_abstractor import CAbstractor
from alignvlm.errors import ConfigurationError

State = dict[str, np.ndarray]

# Outputs of timm 1.0.31 in float64: RegStage(2, 6, 8), AdaptiveAvgPool2d(2), RegStage(2, 8, 8),
# with stride 1, dilation 1, SiLU and LayerNorm2d, then Linear(8, 3), SiLU, Linear(3, 3);
# parameters and features as in the test that compares with them.
TIMM = [
    [
        [0.739116421, -0.32010894, -0.551981532],
        [0.713606085, -0.324877748, -0.530076204],
        [0.738768121, -0.31948981, -0.551165199],
        [0.73853616, -0.317972787, -0.549786435],
    ],
    [
        [0.746772211, -0.317931863, -0.557991549],
        [0.713655918, -0.325245632, -0.53040414],
        [0.739474502, -0.31716904, -0.55011718],
        [0.730952701, -0.319775063, -0.543565417],
    ],
]


def test_equals_timms_stages() -> None:
    connector = CAbstractor(6, 3, num_queries=4, hidden_dim=8, depth=2, positions=(3, 5)).double()
    with torch.no_grad():
        for k, parameter in enumerate(connector.parameters()):
            i = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.5 * torch.sin(1.7 * i + k)).reshape(parameter.shape))
    features = torch.cos(0.3 * torch.arange(2 * 15 * 6, dtype=torch.float64)).reshape(2, 15, 6)
    tokens = connector(features, grid=(3, 5)).visual_tokens
    np.testing.assert_allclose(tokens.detach().numpy(), TIMM, rtol=0, atol=1e-9)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def norm(x: np.ndarray, state: State, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def depthwise(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    rows, columns, _ = x.shape
    framed = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    shifts = np.ndindex(3, 3)
    return sum(framed[i : i + rows, j : j + columns] * weight[:, 0, i, j] for i, j in shifts)


def block(x: np.ndarray, state: State, name: str) -> np.ndarray:
    y = silu(norm(x @ state[f"{name}.conv1.weight"].T, state, f"{name}.norm1"))
    y = silu(norm(depthwise(y, state[f"{name}.conv2.weight"]), state, f"{name}.norm2"))
    mean = y.mean((0, 1))
    squeezed = silu(state[f"{name}.squeeze.weight"] @ mean + state[f"{name}.squeeze.bias"])
    gate = state[f"{name}.excite.weight"] @ squeezed + state[f"{name}.excite.bias"]
    y = y / (1 + np.exp(-gate))
    y = norm(y @ state[f"{name}.conv3.weight"].T, state, f"{name}.norm3")
    if f"{name}.shortcut.0.weight" in state:
        x = norm(x @ state[f"{name}.shortcut.0.weight"].T, state, f"{name}.shortcut.1")
    return silu(x + y)


def pool(x: np.ndarray, side: int) -> np.ndarray:
    """Window i of n covers floor(i n / side) to ceil((i + 1) n / side), of rows and of columns."""
    rows, columns, width = x.shape
    pooled = np.empty((side, side, width))
    for i, j in np.ndindex(side, side):
        top, bottom = i * rows // side, math.ceil((i + 1) * rows / side)
        left, right = j * columns // side, math.ceil((j + 1) * columns / side)
        pooled[i, j] = x[top:bottom, left:right].mean((0, 1))
    return pooled


def spread(size: int, new: int) -> np.ndarray:
    """[new, size], bilinear weights along one side; pixel centres lie at (i + 1/2) size / new."""
    weights = np.zeros((new, size))
    for i in range(new):
        centre = min(max((i + 0.5) * size / new - 0.5, 0), size - 1)
        low = int(centre)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, size - 1)] += centre - low
    return weights


def twin(connector: CAbstractor, tile: np.ndarray, *, depth: int, mlp_depth: int) -> np.ndarray:
    """Visual tokens of a tile [rows, columns, d]."""
    state = {key: value.numpy() for key, value in connector.state_dict().items()}
    if "positions.weight" in state:
        table = state["positions.weight"]
        down, across = (spread(table.shape[k], tile.shape[k]) for k in (0, 1))
        tile = tile + np.einsum("rR,cC,RCd->rcd", down, across, table)
    for index in range(depth):
        tile = block(tile, state, f"stage1.{index}")
    tile = pool(tile, connector.side)
    for index in range(depth):
        tile = block(tile, state, f"stage2.{index}")
    for index in range(0, 2 * mlp_depth, 2):
        tile = silu(tile) if index else tile
        tile = tile @ state[f"readout.{index}.weight"].T + state[f"readout.{index}.bias"]
    return tile.reshape(connector.side**2, -1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    d=st.integers(1, 9),
    h=st.integers(2, 9),
    side=st.integers(1, 4),
    depth=st.integers(1, 3),
    mlp_depth=st.integers(1, 3),
    positions=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    tiles=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_equals_the_formula(
    d: int,
    h: int,
    side: int,
    depth: int,
    mlp_depth: int,
    positions: tuple[int, int] | None,
    grid: tuple[int, int],
    tiles: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    connector = CAbstractor(
        d,
        5,
        num_queries=side**2,
        hidden_dim=h,
        depth=depth,
        mlp_depth=mlp_depth,
        positions=positions,
    ).double()
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    features = torch.randn(2, tiles * grid[0] * grid[1], d, dtype=torch.float64)
    expected = [
        twin(connector, tile, depth=depth, mlp_depth=mlp_depth)
        for tile in features.numpy().reshape(-1, *grid, d)
    ]
    output = connector(features, grid=grid)
    assert output.grid == connector.output_grid(grid) == (side, side)
    np.testing.assert_allclose(
        output.visual_tokens.detach().numpy(),
        np.stack(expected).reshape(2, tiles * side * side, 5),
        atol=1e-9,
    )


def test_sizes_at_full_width() -> None:
    with torch.device("meta"):
        connector = CAbstractor(1152, 3072)
        features = torch.empty(2, 729, 1152)
    parts = [sum(p.numel() for p in part.parameters()) for part in connector.children()]
    assert sorted(parts) == [839_808, 7_914_240, 9_292_576, 12_589_056]
    assert connector.num_parameters() == 30_635_680
    assert connector.num_visual_tokens((27, 27)) == 144
    with FlopCounterMode(display=False) as counter:
        output = connector(features, grid=(27, 27), return_intermediates=True)
    assert connector.flops((27, 27), 2) == counter.get_total_flops()
    shapes = {name: tuple(value.shape) for name, value in output.intermediates.items()}
    assert shapes == {
        "stage1": (2, 27, 27, 1024),
        "pooled": (2, 12, 12, 1024),
        "stage2": (2, 12, 12, 1024),
        "visual_tokens": (2, 144, 3072),
    }


def test_flops_count_a_shortcut_only_where_the_width_changes() -> None:
    connector = CAbstractor(8, 6, num_queries=9, hidden_dim=8, depth=2, mlp_depth=3)
    with FlopCounterMode(display=False) as counter:
        connector(torch.randn(3, 10, 8), grid=(2, 5))
    assert connector.flops((2, 5), 3) == counter.get_total_flops()


def test_positions_start_small_and_can_be_left_out() -> None:
    torch.manual_seed(0)
    positions = CAbstractor(64, 4, hidden_dim=4).positions.weight
    assert positions.shape == (27, 27, 64)
    assert positions.std().item() == pytest.approx(0.02, rel=0.02)
    without = CAbstractor(64, 4, hidden_dim=4, positions=None)
    assert without.positions is None
    assert not any("positions" in key for key in without.state_dict())


def test_without_positions_a_constant_tile_differs_at_its_edges_alone() -> None:
    """Only the 3x3 convolutions see edges, so switching them off makes all tokens equal."""
    torch.manual_seed(0)
    connector = CAbstractor(4, 3, num_queries=4, hidden_dim=6, positions=None).double()
    constant = torch.ones(1, 16, 4, dtype=torch.float64)
    tokens = connector(constant, grid=(2, 8)).visual_tokens
    assert not torch.isclose(tokens, tokens[:, :1]).all()
    with torch.no_grad():
        for module in connector.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
    tokens = connector(constant, grid=(2, 8)).visual_tokens
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))


@pytest.mark.parametrize("option", ["num_queries", "hidden_dim", "depth", "mlp_depth"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_sizes_are_positive_integers(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a positive integer"):
        CAbstractor(4, 3, **{option: value})  # type: ignore[arg-type]


def test_other_options_are_checked() -> None:
    with pytest.raises(
        ConfigurationError, match="which 145 cannot fill: use num_queries=144 or 169"
    ):
        CAbstractor(4, 3, num_queries=145)
    with pytest.raises(ConfigurationError, match="positions must be two positive integers"):
        CAbstractor(4, 3, positions=(27, 0))
    assert CAbstractor(4, 3, hidden_dim=4, positions=[2, 3]).positions.weight.shape == (2, 3, 4)


def test_needs_a_grid() -> None:
    with pytest.raises(ConfigurationError, match=r"CAbstractor needs to know .* pass grid="):
        CAbstractor(4, 3, hidden_dim=4)(torch.randn(1, 9, 4))
