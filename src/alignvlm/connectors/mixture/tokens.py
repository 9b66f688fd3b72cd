"""ALIGN in chunks of tokens: whole rows of logits, a few hundred tokens at a time.

Four matrix products become seven in training, as the backward pass takes the logits again instead
of keeping them. The gradients of W2 and E are summed over the chunks in their own dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from alignvlm.connectors.mixture.problem import Gradients, Kept, Problem, RowKernels


def forward(problem: Problem, kernels: RowKernels, chunk: int) -> tuple[Tensor, Kept]:
    """F' [N, D] and what the backward pass keeps of each token; `chunk` tokens at a time."""
    out = problem.empty_output()
    kept = Kept.empty(problem)
    for rows in _chunks(problem, chunk):
        logits = problem.logits(rows)
        kept.mean[rows], kept.rstd[rows] = kernels.row_statistics(logits, problem.eps)
        kept.log_normaliser[rows] = kernels.softmax_(logits, problem.norm(kept, rows))
        out[rows] = logits.to(problem.table.dtype) @ problem.table
    return out, kept


def backward(
    problem: Problem,
    kernels: RowKernels,
    chunk: int,
    kept: Kept,
    grad: Tensor,
    needed: Sequence[bool],
) -> Gradients:
    """Gradients of everything `needed`, from the gradient of F' [N, D]."""
    found = Gradients.zeros(problem, needed)
    of_bias = None if found.bias is None else torch.zeros_like(found.bias, dtype=problem.wide)
    for rows in _chunks(problem, chunk):
        probs = problem.logits(rows)
        grads = (grad[rows] @ problem.table.t()).to(probs.dtype)
        sums = kernels.softmax_gradient_(
            probs,
            grads,
            problem.norm(kept, rows),
            kept.log_normaliser[rows],
            None,
            len(problem.weight),
        )
        if found.table is not None:
            found.table.addmm_(probs.t().to(grad.dtype), grad[rows])
        if found.hidden is not None:
            found.hidden[rows] = grads.to(problem.weight.dtype) @ problem.weight
        if found.weight is not None:
            found.weight.addmm_(grads.to(problem.weight.dtype).t(), problem.hidden[rows])
        if of_bias is not None:
            of_bias += grads.sum(0, dtype=of_bias.dtype)
        found.add_norm(sums)
    if found.bias is not None and of_bias is not None:
        found.bias.copy_(of_bias)
    return found


def _chunks(problem: Problem, chunk: int) -> Iterator[slice]:
    num_tokens = len(problem.hidden)
    for start in range(0, num_tokens, chunk):
        yield slice(start, min(start + chunk, num_tokens))
