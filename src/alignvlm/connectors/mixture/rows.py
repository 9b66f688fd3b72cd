"""The element-wise half of ALIGN on a block of logits: everything between its matrix products.

Rows are taken a few at a time, so that the float32 scratch stays in the processor's cache however
wide the vocabulary is. The same two functions serve whole rows (all V words) and blocks of words
whose LayerNorm statistics are known already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SCRATCH_ELEMENTS = 1 << 20  # 4 MiB of float32 for each scratch tensor
_CUDA_SCRATCH_ELEMENTS = 1 << 25  # 128 MiB: enough rows to fill the device


class Norm(NamedTuple):
    """LN_V of K words and of n tokens.

    Attributes:
        gamma, beta: scale and shift [K], float32; beta may hold -inf at excluded words.
        mean, rstd: of each token's logits over the whole vocabulary [n].
    """

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    rstd: Tensor


def row_statistics(logits: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation over the last dimension of logits [n, V], [n] each."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    mean = torch.empty(len(logits), dtype=wide, device=logits.device)
    rstd = torch.empty_like(mean)
    for rows in _row_blocks(logits):
        scores = logits[rows].to(wide, copy=True)
        mean[rows] = scores.mean(dim=-1)
        scores.sub_(mean[rows, None])
        rstd[rows] = torch.linalg.vecdot(scores, scores).div_(scores.shape[-1]).add_(eps).rsqrt_()
    return mean, rstd


def softmax_(logits: Tensor, norm: Norm) -> Tensor:
    """Replaces logits [n, K] by softmax(gamma l^ + beta), l^ = (l - mean) rstd.

    Returns:
        The logarithm of each row's normaliser [n], -inf where every word is excluded.
    """
    log_normaliser = torch.empty_like(norm.mean)
    for rows in _row_blocks(logits):
        scores = _scores(_normalised(logits[rows], norm, rows), norm)
        top = scores.amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        total = scores.sub_(top).exp_().sum(-1, keepdim=True)
        log_normaliser[rows] = (top + total.log()).squeeze(-1)
        logits[rows] = scores.div_(total.clamp_(min=torch.finfo(scores.dtype).tiny))
    return log_normaliser


class RowSums(NamedTuple):
    """Sums that the gradient of LayerNorm needs, with g = gamma delta.

    Attributes:
        plain: sum of g over the words [n].
        weighted: sum of g l^ over the words [n].
        gamma, beta: gradients of gamma and beta [K], summed over the tokens.
    """

    plain: Tensor
    weighted: Tensor
    gamma: Tensor
    beta: Tensor


def softmax_gradient_(
    logits: Tensor,
    grads: Tensor,
    norm: Norm,
    log_normaliser: Tensor,
    centre: Tensor | None,
    finish: int | None,
) -> RowSums:
    """From logits and the gradient of P to P and the gradient of the logits, both in place.

    With delta = P (dP - centre), the gradient of the softmax's argument.

    Args:
        logits: l [n, K]; holds P afterwards.
        grads: dP [n, K]; holds g afterwards, or with `finish` the gradient of the logits,
            (g - mean(g) - l^ mean(g l^)) rstd.
        norm: LN_V.
        log_normaliser: as from `softmax_`, over the whole vocabulary [n].
        centre: sum over the whole vocabulary of P dP [n]; None: the K words are all there are.
        finish: V, to put in the normalisation's part; None: leave it to the caller.
    """
    plain, weighted = torch.empty_like(norm.mean), torch.empty_like(norm.mean)
    of_gamma = torch.zeros(logits.shape[1], dtype=norm.mean.dtype, device=logits.device)
    of_beta = torch.zeros_like(of_gamma)
    for rows in _row_blocks(logits):
        normalised = _normalised(logits[rows], norm, rows)
        # Where every word is excluded the normaliser is -inf, and P is 0.
        normaliser = log_normaliser[rows, None].clamp(min=torch.finfo(normalised.dtype).min)
        probs = _scores(normalised.clone(), norm).sub_(normaliser).exp_()
        delta = grads[rows].to(probs.dtype, copy=True)
        middle = _weighted_mean(delta, probs) if centre is None else centre[rows]
        delta.sub_(middle[:, None]).mul_(probs)
        logits[rows] = probs
        of_beta += delta.sum(0)
        product = torch.mul(delta, normalised, out=probs)
        of_gamma += product.sum(0)
        if norm.gamma is not None:
            delta.mul_(norm.gamma)
            product.mul_(norm.gamma)
        plain[rows], weighted[rows] = delta.sum(-1), product.sum(-1)
        if finish is not None:
            delta.sub_(plain[rows, None] / finish)
            delta.sub_(normalised.mul_(weighted[rows, None] / finish)).mul_(norm.rstd[rows, None])
        grads[rows] = delta
    return RowSums(plain, weighted, of_gamma, of_beta)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over the last dimension, by weights that sum to about 1.

    P from a rounded logarithm sums to 1 within 1e-6 only, and where one word has nearly all of it
    that error would exceed the gradient.
    """
    total: Tensor = torch.linalg.vecdot(weights, values)
    return total.div_(weights.sum(-1))


def _normalised(logits: Tensor, norm: Norm, rows: slice) -> Tensor:
    wide = logits.to(norm.mean.dtype, copy=True)
    return wide.sub_(norm.mean[rows, None]).mul_(norm.rstd[rows, None])


def _scores(normalised: Tensor, norm: Norm) -> Tensor:
    """The argument of the softmax, gamma l^ + beta, in place."""
    if norm.gamma is not None:
        normalised.mul_(norm.gamma)
    return normalised if norm.beta is None else normalised.add_(norm.beta)


def _row_blocks(logits: Tensor) -> Iterator[slice]:
    elements = _CUDA_SCRATCH_ELEMENTS if logits.is_cuda else _SCRATCH_ELEMENTS
    step = max(1, elements // max(1, logits.shape[1]))
    for start in range(0, len(logits), step):
        yield slice(start, min(start + step, len(logits)))
