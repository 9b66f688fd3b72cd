from __future__ import annotations

import numpy as np
import pytest
import torch

from alignvlm.training import head as head_module
from alignvlm.training.head import summed_cross_entropy


@pytest.mark.parametrize("most", [0, 2**26], ids=["in chunks", "at once"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_against_numpy(
    monkeypatch: pytest.MonkeyPatch, most: int, dtype: torch.dtype, tolerance: float
) -> None:
    """The sum of -log softmax, and its gradients, in float64."""
    monkeypatch.setattr(head_module, "_MAX_LOGITS", most)
    torch.manual_seed(0)
    states = torch.randn(37, 16).to(dtype).requires_grad_()
    head = torch.randn(300, 16).to(dtype).requires_grad_()
    targets = torch.randint(0, 300, (37,))
    loss = summed_cross_entropy(states, head, targets)
    loss.backward()

    h, w = (t.detach().double().numpy() for t in (states, head))
    logits = h @ w.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = -np.log(weights[np.arange(37), targets]).sum()
    pull = weights - np.eye(300)[targets]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=tolerance)
    for gradient, reference in ((states.grad, pull @ w), (head.grad, pull.T @ h)):
        assert gradient is not None
        error = np.abs(gradient.double().numpy() - reference).max()
        assert error <= tolerance * np.abs(reference).max()


def test_few_logits_are_held_together_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(head_module, "_MAX_LOGITS", 5 * 7)
    monkeypatch.setattr(
        torch.nn.functional,
        "linear_cross_entropy",
        lambda states, *_, **__: calls.append(len(states)) or states.sum(),
    )
    for num_tokens in (5, 6):
        summed_cross_entropy(
            torch.ones(num_tokens, 3), torch.ones(7, 3), torch.zeros(num_tokens, dtype=torch.long)
        )
    assert calls == [6]
