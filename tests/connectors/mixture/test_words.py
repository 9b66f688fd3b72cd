"""Blocks of words: how the gradient of P keeps its digits. The rest is in `test_mix.py`."""

from __future__ import annotations

import pytest
import torch

from alignvlm.connectors.mixture import rows, weight_statistics, words
from alignvlm.connectors.mixture.problem import Problem


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_centre_is_subtracted_before_the_gradient_of_p_is_rounded(dtype: torch.dtype) -> None:
    weight, hidden = torch.randn(40, 8).to(dtype), torch.randn(9, 8).to(dtype)
    table = (100 + torch.randn(40, 8)).to(dtype)  # E . dF' is large and nearly the same for all
    grad = torch.randn(9, 8).to(dtype)
    problem = Problem(
        hidden, weight, None, None, torch.zeros(40).to(problem_dtype(dtype)), table, 1e-5
    )
    known = weight_statistics(weight)
    _, kept = words.forward(problem, rows, 16, known)
    logits = hidden.double() @ weight.double().T
    probs = torch.nn.functional.layer_norm(logits, (40,)).softmax(-1)
    dprobs = grad.double() @ table.double().T
    centre = (probs * dprobs).sum(-1, keepdim=True)
    expected = (probs * (dprobs - centre)).sum(0)
    needed = [False, False, False, False, True, False]
    centre = centre.squeeze(-1).to(problem.wide)
    found = words.backward(problem, rows, 16, known, kept, centre, grad, needed, 0.0).beta
    assert found is not None
    error = torch.linalg.norm(found.double() - expected) / torch.linalg.norm(expected)
    # Rounded alone, E . dF' of bfloat16 would be wrong by as much as the words differ.
    assert error <= {torch.bfloat16: 1e-2, torch.float32: 1e-4, torch.float64: 1e-5}[dtype]


def problem_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
