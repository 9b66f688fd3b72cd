"""ALIGN in blocks of words: one pass over the vocabulary with an online softmax.

The statistics of W2 (`statistics.py`) give every token's LayerNorm before a single logit is
known, and the rest of LayerNorm's gradient follows from sums that the same pass collects:

    dh  = rstd (sum_i g_i w_i - (sum_i g_i) w - rstd (sum_i g_i l^_i) C h)
    dW2 = g' (rstd h) - W2 S + 1 (v - u)'

    with  a = rstd^2 (sum_i g_i l^_i) / V,       S = sum_n a_n h_n h_n',
          u = sum_n rstd_n (sum_i g_i)_n / V h_n,  v = sum_n a_n mean_n h_n

Each row of E's gradient is summed over all tokens in float32 and rounded once, one of W2's three
times, at the price of C and of the product with S: 4 V D^2 operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture.problem import Gradients, Kept, Problem, RowKernels
from alignvlm.connectors.mixture.statistics import Statistics

_PIECES = 8  # columns of `_centred`: 3 are used, 8 keep rows aligned for tensor cores
_ROWS = 4096  # of h at a time: copies in float32 stay small


def forward(
    problem: Problem, kernels: RowKernels, block: int, known: Statistics
) -> tuple[Tensor, Kept]:
    """F' [N, D] in float32 or wider, and what the backward pass keeps; `block` words at a time."""
    kept = Kept.empty(problem)
    for tokens in _tokens(problem):
        wide = problem.hidden[tokens].to(problem.wide)
        kept.mean[tokens], kept.rstd[tokens] = known.of_logits(wide, problem.eps)
    mean = kept.mean
    # Sums relative to the largest block so far: unlike sums of logarithms, thousands of blocks add
    # no error to one another. -inf, where a block is excluded as a whole, is below every top.
    top = torch.full_like(mean, torch.finfo(mean.dtype).min)
    total = torch.zeros_like(mean)
    weights = total if problem.table.dtype == problem.wide else torch.zeros_like(mean)
    mixed = problem.hidden.new_zeros(len(mean), problem.table.shape[1], dtype=problem.wide)
    for words in _blocks(problem, block):
        logits = problem.logits(words=words)
        here = kernels.softmax_(logits, problem.norm(kept, words=words))
        probs = logits.to(problem.table.dtype)
        part = probs @ problem.table[words]
        new_top = torch.maximum(top, here)
        before, now = (top - new_top).exp(), (here - new_top).exp()
        total.mul_(before).add_(now)
        if weights is not total:  # of the rounded P: a mean, whatever was rounded away
            weights.mul_(before).addcmul_(now, probs.sum(-1, dtype=weights.dtype))
        for tokens in _tokens(problem):
            share = part[tokens].to(mixed.dtype).mul_(now[tokens, None])
            mixed[tokens].mul_(before[tokens, None]).add_(share)
        top = new_top
    mixed.div_(weights[:, None])
    kept.log_normaliser.copy_(top + total.log())
    return mixed, kept


def backward(
    problem: Problem,
    kernels: RowKernels,
    block: int,
    known: Statistics,
    kept: Kept,
    centre: Tensor,
    grad: Tensor,
    needed: Sequence[bool],
    negligible: float,
) -> Gradients:
    """Gradients of everything `needed`, from the gradient of F' [N, D].

    Args:
        problem: the inputs.
        kernels: the element-wise work.
        block: words at a time.
        known: statistics of W2.
        kept: from `forward`.
        centre: F' . dF' of each token [N].
        grad: dF' [N, D].
        needed: as in `Gradients`.
        negligible: words whose probability is below it for every token are left out of the
            products that their gradients enter; 0 leaves out none.
    """
    found = Gradients.zeros(problem, needed)
    plain, weighted = torch.zeros_like(centre), torch.zeros_like(centre)
    to_hidden = torch.zeros_like(problem.hidden, dtype=problem.wide)
    scaled = torch.empty_like(problem.hidden)
    for tokens in _tokens(problem):
        scaled[tokens] = problem.hidden[tokens] * kept.rstd[tokens, None]
    centred, nothing = _centred(grad, centre), torch.zeros_like(centre)
    for words in _blocks(problem, block):
        probs = problem.logits(words=words)
        table = functional.pad(problem.table[words], (0, _PIECES), value=1.0)
        grads = (centred @ table.t()).to(probs.dtype)
        norm = problem.norm(kept, words=words)
        sums = kernels.softmax_gradient_(probs, grads, norm, kept.log_normaliser, nothing, None)
        plain += sums.plain
        weighted += sums.weighted
        found.add_norm(sums, words)
        chosen = _chosen(probs, negligible)
        probs, grads = probs[:, chosen], grads[:, chosen].to(problem.weight.dtype)
        if found.table is not None:
            found.table[words][chosen] = (probs.t().to(grad.dtype) @ grad).to(found.table.dtype)
        if found.hidden is not None:
            to_hidden += grads @ problem.weight[words][chosen]
        if found.weight is not None:
            found.weight[words][chosen] = grads.t() @ scaled
    _finish_hidden(problem, found, known, kept, to_hidden, plain, weighted)
    _finish_weight(problem, found, block, known, kept, plain, weighted)
    return found


def _finish_hidden(
    problem: Problem,
    found: Gradients,
    known: Statistics,
    kept: Kept,
    to_hidden: Tensor,
    plain: Tensor,
    weighted: Tensor,
) -> None:
    if found.hidden is None:
        return
    weighted = weighted * kept.rstd
    for tokens in _tokens(problem):
        rows = to_hidden[tokens]
        rows -= plain[tokens, None] * known.mean
        through_deviation = problem.hidden[tokens].to(problem.wide) @ known.covariance
        rows -= through_deviation.mul_(weighted[tokens, None])
        found.hidden[tokens] = rows.mul_(kept.rstd[tokens, None])


def _finish_weight(
    problem: Problem,
    found: Gradients,
    block: int,
    known: Statistics,
    kept: Kept,
    plain: Tensor,
    weighted: Tensor,
) -> None:
    if found.weight is None:
        return
    num_words = len(problem.weight)
    share = kept.rstd.square() * weighted / num_words
    along = share * kept.mean - kept.rstd * plain / num_words
    second = torch.zeros_like(known.covariance)
    shift = torch.zeros_like(known.mean)
    for tokens in _tokens(problem):
        wide = problem.hidden[tokens].to(problem.wide)
        shift += along[tokens] @ wide
        second.addmm_((wide * share[tokens, None]).t(), wide)
    second = second.to(problem.weight.dtype)
    for words in _blocks(problem, block):
        rows = found.weight[words]
        rows += shift.to(rows.dtype)
        rows.addmm_(problem.weight[words], second, alpha=-1)


def _centred(grad: Tensor, centre: Tensor) -> Tensor:
    """Extends dF' by columns of -centre, in pieces that lose no digit of float32.

    The product with E, extended by ones, then is dP - centre and is rounded as such. Where one
    word has nearly all of P, rounding dP alone would leave an error larger than the gradient.
    """
    pieces = centre.new_zeros(len(centre), _PIECES, dtype=grad.dtype)
    rest = -centre
    for piece in pieces.unbind(1)[:3]:
        piece.copy_(rest)
        rest = rest - piece
    return torch.cat([grad, pieces], dim=1)


def _chosen(probs: Tensor, negligible: float) -> Tensor | slice:
    """Columns of P [N, K] with a probability that counts, for the indexing of words."""
    if negligible == 0 or len(probs) == 0:
        return slice(None)
    return (probs.amax(dim=0) >= negligible).nonzero().squeeze(-1)


def _tokens(problem: Problem) -> Iterator[slice]:
    """Tokens a few thousand at a time, for work in float32 on N x D."""
    for start in range(0, len(problem.hidden), _ROWS):
        yield slice(start, start + _ROWS)


def _blocks(problem: Problem, block: int) -> Iterator[slice]:
    num_words = len(problem.weight)
    for start in range(0, num_words, block):
        yield slice(start, min(start + block, num_words))
