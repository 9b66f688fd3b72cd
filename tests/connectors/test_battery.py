"""What holds for every connector of the registry, the package's own and strangers'."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from alignvlm.connectors import Connector, ConnectorOutput, available, build
from alignvlm.errors import ConfigurationError

VISION_DIM, TEXT_DIM, VOCAB_SIZE = 12, 16, 40
GRIDS = [(27, 27), (1, 9), (24, 32), (1, 1)]

# Where the published sizes would make each test take seconds.
SMALL = {
    "c_abstractor": {"num_queries": 16, "hidden_dim": 24, "depth": 2, "positions": (9, 9)},
    "ovis": {"visual_vocab_size": 300},
    "perceiver": {"depth": 2, "num_latents": 8, "num_heads": 2, "head_dim": 8},
}

# Compiling takes as long as there are layers, and a second one has no operation of its own.
ONE_LAYER = {
    "c_abstractor": {**SMALL["c_abstractor"], "depth": 1},
    "perceiver": {**SMALL["perceiver"], "depth": 1},
}

pytestmark = pytest.mark.parametrize("name", available())


def make(name: str, seed: int = 0, sizes: dict[str, Any] = SMALL) -> Connector:
    torch.manual_seed(seed)
    options = sizes.get(name, {})
    return build(name, vision_dim=VISION_DIM, text_dim=TEXT_DIM, vocab_size=VOCAB_SIZE, **options)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(*shape, VISION_DIM, generator=generator)
    embeddings = torch.randn(VOCAB_SIZE, TEXT_DIM, generator=generator)
    return features.to(dtype), embeddings.to(dtype)


def test_widths_alone_are_enough(name: str) -> None:
    with torch.device("meta"):
        connector = build(name, vision_dim=1152, text_dim=3072, vocab_size=128_256)
        features, embeddings = torch.empty(2, 729, 1152), torch.empty(128_256, 3072)
        output = connector(features, embeddings=embeddings, grid=(27, 27))
    assert output.visual_tokens.shape == (2, connector.num_visual_tokens((27, 27)), 3072)


@pytest.mark.parametrize("grid", GRIDS)
def test_shapes_follow_the_grid(name: str, grid: tuple[int, int]) -> None:
    connector = make(name)
    features, embeddings = inputs(2, grid[0] * grid[1])
    output = connector(features, embeddings=embeddings, grid=grid)
    assert isinstance(output, ConnectorOutput)
    assert output.visual_tokens.shape == (2, connector.num_visual_tokens(grid), TEXT_DIM)
    assert output.grid == connector.output_grid(grid)
    assert output.intermediates is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dtype_is_the_models(name: str, dtype: torch.dtype) -> None:
    features, embeddings = inputs(2, 9, dtype=dtype)
    output = make(name).to(dtype)(features, embeddings=embeddings, grid=(3, 3))
    assert output.visual_tokens.dtype == dtype
    assert output.visual_tokens.isfinite().all()


def test_intermediates_hold_the_visual_tokens(name: str) -> None:
    features, embeddings = inputs(2, 9)
    connector = make(name)
    output = connector(features, embeddings=embeddings, grid=(3, 3), return_intermediates=True)
    assert output.intermediates is not None
    assert output.intermediates["visual_tokens"] is output.visual_tokens


def test_every_parameter_and_the_features_get_a_gradient(name: str) -> None:
    connector = make(name)
    features, embeddings = inputs(2, 9)
    features.requires_grad_()
    output = connector(features, embeddings=embeddings, grid=(3, 3))
    output.visual_tokens.square().sum().backward()
    for label, parameter in connector.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label
    assert features.grad is not None
    assert features.grad.abs().sum() > 0


def test_a_tile_gives_the_same_alone_and_in_a_batch(name: str) -> None:
    connector = make(name).double()
    features, embeddings = inputs(3, 9, dtype=torch.float64)
    batch = connector(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    for index in range(3):
        single = connector(features[index : index + 1], embeddings=embeddings, grid=(3, 3))
        torch.testing.assert_close(batch[index : index + 1], single.visual_tokens)


def test_an_empty_batch_passes(name: str) -> None:
    features, embeddings = inputs(0, 9)
    connector = make(name)
    output = connector(features, embeddings=embeddings, grid=(3, 3))
    assert output.visual_tokens.shape == (0, connector.num_visual_tokens((3, 3)), TEXT_DIM)


def test_wrong_inputs_are_named(name: str) -> None:
    connector = make(name)
    features, embeddings = inputs(2, 9)
    with pytest.raises(ConfigurationError, match=rf"\[\.\.\., N, {VISION_DIM}\], not \[2, 9, 11\]"):
        connector(features[..., 1:], embeddings=embeddings)
    with pytest.raises(ConfigurationError, match=r"torch\.int64"):
        connector(features.long(), embeddings=embeddings)
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(ConfigurationError, match=rf"torch\.float32 and .* {dtype} features"):
            connector(features.to(dtype), embeddings=embeddings)
    with pytest.raises(ConfigurationError, match="2 x 4"):
        connector(features, embeddings=embeddings, grid=(2, 4))
    with pytest.raises(ConfigurationError, match="0 x 3"):
        connector(features, embeddings=embeddings, grid=(0, 3))


@pytest.mark.parametrize("argument", ["vision_dim", "text_dim"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_widths_are_positive_integers(name: str, argument: str, value: object) -> None:
    sizes = {"vision_dim": 4, "text_dim": 4, "vocab_size": 4, argument: value}
    with pytest.raises(ConfigurationError, match=argument):
        build(name, **sizes)  # type: ignore[arg-type]


def test_the_seed_decides_the_parameters(name: str) -> None:
    first, second, other = make(name).state_dict(), make(name).state_dict(), make(name, 1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], value) for key, value in other.state_dict().items())


def test_state_moves_to_another_instance(name: str) -> None:
    trained, fresh = make(name), make(name, seed=1)
    fresh.load_state_dict(trained.state_dict())
    features, embeddings = inputs(2, 9)
    expected = trained(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    actual = fresh(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    assert torch.equal(actual, expected)
    assert torch.equal(
        copy.deepcopy(trained)(features, embeddings=embeddings, grid=(3, 3)).visual_tokens, expected
    )


def test_meta_device_then_materialised(name: str) -> None:
    with torch.device("meta"):
        connector = make(name)
    assert all(tensor.is_meta for tensor in connector.state_dict().values())
    features, embeddings = inputs(2, 9)
    output = connector(features.to("meta"), embeddings=embeddings.to("meta"), grid=(3, 3))
    assert output.visual_tokens.shape[-1] == TEXT_DIM
    connector.to_empty(device="cpu")
    torch.manual_seed(0)
    connector.reset_parameters()
    expected = make(name).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in connector.state_dict().items())


def test_autocast_gives_its_dtype(name: str) -> None:
    connector = make(name)
    features, embeddings = inputs(2, 9)
    expected = connector(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = connector(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).norm() <= 2e-2 * expected.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_without_graph_breaks(name: str, autocast: bool) -> None:
    torch._dynamo.reset()
    connector = make(name, sizes={**SMALL, **ONE_LAYER})
    features, embeddings = inputs(2, 9)
    compiled = torch.compile(connector, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = connector(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
        actual = compiled(features, embeddings=embeddings, grid=(3, 3)).visual_tokens
    torch.testing.assert_close(actual, expected)
    actual.float().sum().backward()
    assert all(parameter.grad is not None for parameter in connector.parameters())


def test_costs_grow_with_the_tokens(name: str) -> None:
    connector = make(name)
    assert connector.flops((3, 3), 2) == 2 * connector.flops((3, 3)) > 0
    assert connector.num_parameters() == sum(p.numel() for p in connector.parameters()) > 0
