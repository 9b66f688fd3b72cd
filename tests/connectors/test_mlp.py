from __future__ import annotations

import math

import numpy as np
import torch

from alignvlm.connectors import MLP


def test_is_two_affine_maps_with_the_exact_gelu() -> None:
    torch.manual_seed(0)
    mlp, features = MLP(5, 8).double(), torch.randn(2, 3, 5, dtype=torch.float64)
    state = {key: value.numpy() for key, value in mlp.state_dict().items()}
    hidden = features.numpy() @ state["fc1.weight"].T + state["fc1.bias"]
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    expected = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    output = mlp(features, return_intermediates=True)
    np.testing.assert_allclose(output.visual_tokens.detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(output.intermediates["hidden"].detach().numpy(), hidden, atol=1e-12)
    assert mlp.flops((1, 7)) == 2 * 7 * (5 * 8 + 8 * 8)
