"""The MLP with an output norm against LLaVA's projector in transformers and a NumPy norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from alignvlm.connectors.mlp_norm import MLPNorm
from alignvlm.errors import ConfigurationError


def test_is_llavas_projector_then_a_norm() -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=6, num_attention_heads=1),
        text_config=LlamaConfig(hidden_size=10, num_attention_heads=1),
    )
    theirs, ours = LlavaMultiModalProjector(config).double(), MLPNorm(6, 10).double()
    ours.fc1.load_state_dict(theirs.linear_1.state_dict())
    ours.fc2.load_state_dict(theirs.linear_2.state_dict())
    with torch.no_grad():
        ours.gain.fill_(0.3)
    features = torch.randn(2, 7, 6, dtype=torch.float64)
    output = ours(features, grid=(1, 7), return_intermediates=True)
    steps = {key: value.detach().numpy() for key, value in output.intermediates.items()}
    projected = theirs(features).detach().numpy()
    np.testing.assert_allclose(steps["projected"], projected, atol=1e-13)
    centred = projected - projected.mean(-1, keepdims=True)
    expected = 0.3 * centred / np.sqrt(projected.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(steps["visual_tokens"], expected, atol=1e-12)
    assert output.grid == (1, 7)
    assert steps["hidden"].shape == (2, 7, 10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(V=st.integers(1, 50), scale=st.floats(1e-3, 1e2), seed=st.integers(0, 99))
def test_tokens_get_the_norm_of_the_text_embeddings(V: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    connector = MLPNorm(16, 32, eps=1e-9).double()
    embeddings = scale * torch.randn(V, 32, dtype=torch.float64)
    connector.init_from_embeddings(embeddings)
    rms = np.sqrt((embeddings.numpy() ** 2).mean(1)).mean()
    assert connector.gain.item() == pytest.approx(rms, rel=1e-12)
    tokens = connector(torch.randn(3, 4, 16, dtype=torch.float64)).visual_tokens.detach().numpy()
    np.testing.assert_allclose(np.sqrt((tokens**2).mean(-1)), rms, rtol=1e-5)
    np.testing.assert_allclose(tokens.mean(-1), 0, atol=1e-12 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gain_is_measured_in_float32(dtype: torch.dtype) -> None:
    embeddings = (300 * torch.randn(50, 64)).to(dtype)  # float16 cannot hold its sums of squares
    connector = MLPNorm(4, 64).to(dtype)
    connector.init_from_embeddings(embeddings)
    rms = np.sqrt((embeddings.double().numpy() ** 2).mean(1)).mean()
    assert connector.gain.dtype == dtype
    assert connector.gain.item() == pytest.approx(rms, rel=2**-8)
    tokens = connector(torch.randn(5, 4, dtype=dtype)).visual_tokens.detach()
    assert tokens.double().square().mean(-1).sqrt().numpy() == pytest.approx(rms, rel=1e-2)


def test_the_gain_is_one_until_set_and_again_after_a_reset() -> None:
    connector = MLPNorm(4, 8)
    assert connector.gain.item() == 1
    connector.init_from_embeddings(3 * torch.ones(2, 8))
    assert connector.gain.item() == pytest.approx(3)
    connector.reset_parameters()
    assert connector.gain.item() == 1
    connector.init_from_language_model(torch.ones(2, 8), 5 * torch.ones(2, 8))
    assert connector.gain.item() == pytest.approx(5)


def test_text_embeddings_without_a_norm_are_refused() -> None:
    connector = MLPNorm(4, 8)
    with pytest.raises(ConfigurationError, match=r"\[V, 8\], not \[5, 9\]"):
        connector.init_from_embeddings(torch.ones(5, 9))
    for wrong in (torch.zeros(5, 8), torch.empty(0, 8), torch.full((5, 8), torch.inf)):
        with pytest.raises(ConfigurationError, match="mean RMS is"):
            connector.init_from_embeddings(wrong)
    with pytest.raises(ConfigurationError, match="meta device"):
        connector.init_from_embeddings(torch.ones(5, 8, device="meta"))
    with pytest.raises(ConfigurationError, match="meta device"):
        MLPNorm(4, 8).to("meta").init_from_embeddings(torch.ones(5, 8))
    assert connector.gain.item() == 1


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("nan"), float("inf")])
def test_eps_is_positive(eps: float) -> None:
    with pytest.raises(ConfigurationError, match="eps must be a positive number"):
        MLPNorm(4, 8, eps=eps)


def test_sizes_at_full_width() -> None:
    with torch.device("meta"):
        connector = MLPNorm(1152, 3072)
        features = torch.empty(2, 729, 1152)
    assert connector.num_parameters() == 12_982_273
    assert connector.num_visual_tokens((27, 27)) == 729
    with FlopCounterMode(display=False) as counter:
        connector(features)
    assert connector.flops((27, 27), 2) == counter.get_total_flops()
