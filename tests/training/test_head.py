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
    monkeypatch.setattr(head_module, "_MAX_LOGITS", 64 * 7)
    monkeypatch.setattr(
        torch.nn.functional,
        "linear_cross_entropy",
        lambda states, *_, **__: calls.append(len(states)) or states.sum(),
    )
    for num_tokens in (5, 64, 65):
        summed_cross_entropy(
            torch.ones(num_tokens, 3), torch.ones(7, 3), torch.zeros(num_tokens, dtype=torch.long)
        )
    assert calls == [128]


@pytest.mark.parametrize("most", [0, 2**26], ids=["in chunks", "at once"])
def test_states_that_count_nothing_pull_at_nothing(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Not even where their own values are absurd; and the sum is that of the others."""
    monkeypatch.setattr(head_module, "_MAX_LOGITS", most)
    torch.manual_seed(0)
    states, head = torch.randn(70, 16), torch.randn(300, 16)
    states[40:] = 1e6
    targets = torch.randint(0, 300, (70,))
    targets[40:] = -100
    found = []
    for count in (70, 40):
        s, w = states[:count].clone().requires_grad_(), head.clone().requires_grad_()
        loss = summed_cross_entropy(s, w, targets[:count])
        loss.backward()
        assert s.grad is not None
        assert w.grad is not None
        found.append((loss.detach(), s.grad[:40], w.grad))
        assert not s.grad[40:].any()
    for padded, alone in zip(*found, strict=True):
        torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


def test_numbers_of_tokens_vary_and_few_shapes_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a CPU; other devices see the tokens alone."""
    seen = []
    product = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w: seen.append(len(x)) or product(x, w)
    )
    for device, expected in (("cpu", [64, 64, 128]), ("meta", [1, 64, 65])):
        seen.clear()
        for num_tokens in (1, 64, 65):
            summed_cross_entropy(
                torch.ones(num_tokens, 3, device=device),
                torch.ones(7, 3, device=device),
                torch.zeros(num_tokens, dtype=torch.long, device=device),
            )
        assert seen == expected
