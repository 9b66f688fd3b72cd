"""The element-wise half of ALIGN on blocks, against autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture import rows
from alignvlm.connectors.mixture.rows import Norm

TOKENS, WORDS = 7, 30


def random_norm(logits: Tensor, *, affine: bool) -> Norm:
    gamma, beta = torch.randn(2, WORDS, dtype=logits.dtype) if affine else (None, None)
    return Norm(gamma, beta, *rows.row_statistics(logits, 1e-5))


def scores(logits: Tensor, norm: Norm) -> Tensor:
    return functional.layer_norm(logits, logits.shape[-1:], norm.gamma, norm.beta, 1e-5)


@pytest.fixture(params=[1, 100, 1 << 20])
def _scratch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch for a part of a row, for a few rows, and for all of them."""
    monkeypatch.setattr(rows, "_SCRATCH_ELEMENTS", request.param)


@pytest.mark.usefixtures("_scratch")
@pytest.mark.parametrize("affine", [True, False])
def test_softmax_of_whole_rows(affine: bool) -> None:
    logits = 5 * torch.randn(TOKENS, WORDS, dtype=torch.float64)
    norm = random_norm(logits, affine=affine)
    expected = scores(logits, norm)
    block = logits.clone()
    log_normaliser = rows.softmax_(block, norm)
    torch.testing.assert_close(block, expected.softmax(-1))
    torch.testing.assert_close(log_normaliser, expected.logsumexp(-1))


@pytest.mark.usefixtures("_scratch")
@pytest.mark.parametrize("affine", [True, False])
def test_gradient_of_whole_rows(affine: bool) -> None:
    logits = torch.randn(TOKENS, WORDS, dtype=torch.float64, requires_grad=True)
    norm = random_norm(logits.detach(), affine=affine)
    grads = torch.randn(TOKENS, WORDS, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in norm[:2] if t is not None]
    probs = scores(logits, norm).softmax(-1)
    expected = torch.autograd.grad(probs, [logits, *leaves], grads)
    norm = Norm(*(None if t is None else t.detach() for t in norm))
    log_normaliser = rows.softmax_(logits.detach().clone(), norm)
    block = logits.detach().clone()
    sums = rows.softmax_gradient_(block, grads, norm, log_normaliser, None, WORDS)
    torch.testing.assert_close(block, probs.detach())
    torch.testing.assert_close(grads, expected[0])
    if affine:
        torch.testing.assert_close(sums.gamma, expected[1])
        torch.testing.assert_close(sums.beta, expected[2])


@pytest.mark.usefixtures("_scratch")
def test_a_block_is_a_part_of_its_rows() -> None:
    logits = torch.randn(TOKENS, WORDS, dtype=torch.float64)
    norm = random_norm(logits, affine=True)
    grads = torch.randn_like(logits)
    probs, dlogits = logits.clone(), grads.clone()
    log_normaliser = rows.softmax_(logits.clone(), norm)
    whole = rows.softmax_gradient_(probs, dlogits, norm, log_normaliser, None, None)
    centre = (probs * grads).sum(-1)
    plain, weighted = torch.zeros(2, TOKENS, dtype=torch.float64)
    for words in (slice(0, 11), slice(11, 30)):
        assert norm.gamma is not None
        assert norm.beta is not None
        block, dblock = logits[:, words].clone(), grads[:, words].clone()
        part = Norm(norm.gamma[words], norm.beta[words], norm.mean, norm.rstd)
        sums = rows.softmax_gradient_(block, dblock, part, log_normaliser, centre, None)
        torch.testing.assert_close(block, probs[:, words])
        torch.testing.assert_close(dblock, dlogits[:, words])
        torch.testing.assert_close(sums.gamma, whole.gamma[words])
        torch.testing.assert_close(sums.beta, whole.beta[words])
        plain, weighted = plain + sums.plain, weighted + sums.weighted
    torch.testing.assert_close(plain, whole.plain)
    torch.testing.assert_close(weighted, whole.weighted)


def test_a_block_of_excluded_words_is_nothing() -> None:
    logits = torch.randn(TOKENS, WORDS)
    norm = Norm(None, torch.full((WORDS,), -torch.inf), *rows.row_statistics(logits, 1e-5))
    block = logits.clone()
    assert torch.isneginf(rows.softmax_(block, norm)).all()
    assert (block == 0).all()


def test_a_normaliser_that_is_rounded_leaves_no_gradient_behind() -> None:
    logits = torch.zeros(1, WORDS)
    logits[0, 3] = 1.0
    norm = Norm(torch.full((WORDS,), 8.0), None, *rows.row_statistics(logits, 1e-5))
    log_normaliser = rows.softmax_(logits.clone(), norm) + 2e-6
    grads = torch.full((1, WORDS), 1e3)
    sums = rows.softmax_gradient_(logits, grads, norm, log_normaliser, None, WORDS)
    assert sums.beta.abs().max() <= 3e-4  # nothing, as the words' gradients are all the same
