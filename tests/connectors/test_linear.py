from __future__ import annotations

import numpy as np
import torch

from alignvlm.connectors import Linear


def test_is_one_affine_map() -> None:
    torch.manual_seed(0)
    linear, features = Linear(5, 8).double(), torch.randn(2, 3, 5, dtype=torch.float64)
    W, b = linear.proj.weight.detach().numpy(), linear.proj.bias.detach().numpy()
    expected = features.numpy() @ W.T + b
    np.testing.assert_allclose(linear(features).visual_tokens.detach().numpy(), expected)
    assert linear.flops((1, 7)) == 2 * 7 * 5 * 8
