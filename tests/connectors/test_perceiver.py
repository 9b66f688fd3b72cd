"""The Perceiver against NumPy float64 and against transformers' Idefics resampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from alignvlm.connectors.perceiver import Perceiver
from alignvlm.errors import ConfigurationError

SMALL = {"num_latents": 5, "depth": 2, "num_heads": 3, "head_dim": 4, "ff_mult": 2}


def random_perceiver(vision_dim: int, text_dim: int, *, seed: int = 0, **options: int) -> Perceiver:
    """A float64 Perceiver none of whose parameters has a special value."""
    torch.manual_seed(seed)
    perceiver = Perceiver(vision_dim, text_dim, **(SMALL | options)).double()
    with torch.no_grad():
        for parameter in perceiver.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return perceiver


def layer_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def attend(
    media: np.ndarray, latents: np.ndarray, state: dict[str, np.ndarray], name: str, num_heads: int
) -> np.ndarray:
    """One query and one head at a time, for media [N, d] and latents [L, d]."""
    media = layer_norm(media, state, f"{name}.norm_media")
    latents = layer_norm(latents, state, f"{name}.norm_latents")
    queries = latents @ state[f"{name}.to_q.weight"].T
    both = np.concatenate([media, latents])
    inner = queries.shape[-1]
    keys = both @ state[f"{name}.to_kv.weight"][:inner].T
    values = both @ state[f"{name}.to_kv.weight"][inner:].T
    read = np.zeros_like(queries)
    width = inner // num_heads
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        for row in range(len(queries)):
            weights = softmax(keys[:, part] @ queries[row, part] / math.sqrt(width))
            read[row, part] = weights @ values[:, part]
    return read @ state[f"{name}.to_out.weight"].T


def twin(perceiver: Perceiver, tile: np.ndarray, num_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents and visual tokens of one tile [N, d]."""
    state = {key: value.numpy() for key, value in perceiver.state_dict().items()}
    latents = state["latents"]
    for index in range(perceiver.depth):
        name = f"layers.{index}"
        latents = latents + attend(tile, latents, state, name, num_heads)
        hidden = layer_norm(latents, state, f"{name}.feed_forward.0")
        hidden = hidden @ state[f"{name}.feed_forward.1.weight"].T
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        latents = latents + hidden @ state[f"{name}.feed_forward.3.weight"].T
    latents = layer_norm(latents, state, "norm")
    return latents, latents @ state["proj.weight"].T + state["proj.bias"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    d=st.integers(2, 9),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    tiles=st.integers(1, 3),
    num_latents=st.integers(1, 5),
    depth=st.integers(1, 3),
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_is_the_attention_and_feed_forward_written_out(
    d: int, grid: tuple[int, int], tiles: int, seed: int, num_heads: int, **options: int
) -> None:
    perceiver = random_perceiver(d, 6, seed=seed, num_heads=num_heads, **options)
    size = grid[0] * grid[1]
    features = torch.randn(2, tiles * size, d, dtype=torch.float64)
    output = perceiver(features, grid=grid, return_intermediates=True)
    alone = [
        twin(perceiver, row[k * size : (k + 1) * size], num_heads)
        for row in features.numpy()
        for k in range(tiles)
    ]
    latents, tokens = (np.concatenate(part) for part in zip(*alone, strict=True))
    assert output.visual_tokens.shape == (2, tiles * options["num_latents"], 6)
    assert output.intermediates["latents"].shape == (2, tiles * options["num_latents"], d)
    np.testing.assert_allclose(
        output.intermediates["latents"].detach().reshape(-1, d).numpy(), latents, atol=1e-10
    )
    np.testing.assert_allclose(
        output.visual_tokens.detach().reshape(-1, 6).numpy(), tokens, atol=1e-10
    )


def idefics_twin(perceiver: Perceiver) -> nn.Module:
    """transformers' resampler with this one's weights; its ReLU is exchanged for a GELU."""
    from transformers import IdeficsConfig
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    d = perceiver.vision_dim
    config = IdeficsConfig(
        vision_config={"embed_dim": d}, perceiver_config={"qk_layer_norms_perceiver": False}
    )
    resampler = IdeficsPerceiverResampler(config, d, perceiver.depth, 3, 4, perceiver.num_latents)
    state = perceiver.state_dict()
    names = {
        "latents": "latents",
        "layer_norm.weight": "norm.weight",
        "layer_norm.bias": "norm.bias",
    }
    for index, (_, feed_forward) in enumerate(resampler.blocks):
        feed_forward.act = nn.GELU()
        ours, attention = f"layers.{index}", f"blocks.{index}.0"
        state[f"{ours}.k"], state[f"{ours}.v"] = state[f"{ours}.to_kv.weight"].chunk(2)
        names |= {f"{attention}.{key}_proj.weight": f"{ours}.{key}" for key in "kv"}
        names[f"{attention}.q_proj.weight"] = f"{ours}.to_q.weight"
        names[f"{attention}.output_proj.weight"] = f"{ours}.to_out.weight"
        for kind in ("weight", "bias"):
            names[f"{attention}.context_layer_norm.{kind}"] = f"{ours}.norm_media.{kind}"
            names[f"{attention}.latents_layer_norm.{kind}"] = f"{ours}.norm_latents.{kind}"
            names[f"blocks.{index}.1.ln.{kind}"] = f"{ours}.feed_forward.0.{kind}"
        names[f"blocks.{index}.1.fc.weight"] = f"{ours}.feed_forward.1.weight"
        names[f"blocks.{index}.1.c_proj.weight"] = f"{ours}.feed_forward.3.weight"
    resampler.double().load_state_dict({theirs: state[ours] for theirs, ours in names.items()})
    return resampler


def test_is_idefics_resampler_with_copied_weights() -> None:
    perceiver = random_perceiver(7, 6, ff_mult=4)
    theirs = idefics_twin(perceiver)
    features = torch.randn(3, 20, 7, dtype=torch.float64)
    output = perceiver(features, grid=(4, 5), return_intermediates=True)
    expected = theirs(features)
    torch.testing.assert_close(output.intermediates["latents"], expected)
    weight = torch.randn_like(expected)
    (output.intermediates["latents"] * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(perceiver.latents.grad, theirs.latents.grad)
    keys_and_values = perceiver.layers[0].to_kv.weight.grad
    for gradient, name in zip(keys_and_values.chunk(2), ("k_proj", "v_proj"), strict=True):
        torch.testing.assert_close(gradient, getattr(theirs.blocks[0][0], name).weight.grad)


def test_gradients_are_exact() -> None:
    perceiver = random_perceiver(3, 4, num_latents=2, num_heads=2, head_dim=2, ff_mult=1)
    names = list(dict(perceiver.named_parameters()))
    values = [p.detach().clone().requires_grad_() for p in perceiver.parameters()]
    features = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(features: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, parameters, strict=True))
        output = torch.func.functional_call(perceiver, state, (features,), {"grid": (1, 2)})
        return output.visual_tokens

    assert torch.autograd.gradcheck(run, (features, *values))


def test_latents_have_no_place() -> None:
    perceiver = random_perceiver(6, 8)
    features = torch.randn(9, 6, dtype=torch.float64)
    output = perceiver(features, grid=(3, 3))
    assert output.grid is None
    assert perceiver.output_grid((3, 3)) is None
    assert perceiver.num_visual_tokens((3, 3)) == perceiver.num_visual_tokens((27, 27)) == 5
    shuffled = perceiver(features[torch.randperm(9)], grid=(3, 3))
    torch.testing.assert_close(shuffled.visual_tokens, output.visual_tokens)


@pytest.mark.parametrize("shape", [(18,), (0, 9), (3, 0, 18), (2, 1, 18)])
def test_any_number_of_tiles_in_any_batch(shape: tuple[int, ...]) -> None:
    perceiver = random_perceiver(6, 8)
    features = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    output = perceiver(features, grid=(3, 3), return_intermediates=True)
    tokens = shape[-1] // 9 * 5
    assert output.visual_tokens.shape == (*shape[:-1], tokens, 8)
    assert output.intermediates["latents"].shape == (*shape[:-1], tokens, 6)
    output.visual_tokens.sum().backward()
    assert features.grad.shape == features.shape


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 2e-6), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)],
)
def test_precision_of_the_models_dtype(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    perceiver = Perceiver(64, 96).to(dtype)
    features = torch.randn(2, 81, 64, dtype=dtype)
    actual = perceiver(features, grid=(9, 9)).visual_tokens
    assert actual.dtype == dtype
    expected = perceiver.double()(features.double(), grid=(9, 9)).visual_tokens
    assert (actual.double() - expected).norm() <= bound * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_autocast_takes_features_of_any_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    perceiver = Perceiver(32, 48, depth=2)
    features = torch.randn(2, 9, 32, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = perceiver(features, grid=(3, 3)).visual_tokens
    assert actual.dtype == torch.bfloat16
    expected = perceiver.double()(features.double(), grid=(3, 3)).visual_tokens
    assert (actual.double() - expected).norm() <= 2e-2 * expected.norm()


def test_a_grid_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"^Perceiver needs .*grid=\(rows, columns\)"):
        Perceiver(6, 8, **SMALL)(torch.randn(9, 6))


@pytest.mark.parametrize("option", sorted(SMALL))
@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} must be a positive integer"):
        Perceiver(6, 8, **(SMALL | {option: value}))


def test_latents_start_standard_normal() -> None:
    torch.manual_seed(0)
    latents = Perceiver(256, 4, depth=1).latents
    assert latents.mean().abs() < 0.03
    assert abs(latents.std() - 1) < 0.03


def test_costs_are_counted() -> None:
    with torch.device("meta"):
        full = Perceiver(1152, 3072)
        assert sum(p.numel() for p in full.proj.parameters()) == 3_542_016
        assert full.num_parameters() == 77_974_272 + 3_542_016
        llava = Perceiver(1152, 3072, num_latents=32, depth=3)
        assert llava.num_parameters() == 38_988_288 + 3_542_016
    perceiver = random_perceiver(7, 6).float()
    # The counter knows the products of the plain attention, not those of the CPU's fused one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        perceiver(torch.randn(2, 24, 7), grid=(3, 4))
    assert perceiver.flops((3, 4), 4) == counter.get_total_flops() > 0
