"""What one call of ALIGN's mixture consists of, shared by the ways to compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture.rows import Norm, RowSums


class Problem(NamedTuple):
    """softmax(LN_V(W2 h)) E for N tokens.

    Attributes:
        hidden: h [N, D].
        weight: W2 [V, D], of h's dtype.
        bias: [V] of h's dtype, or None.
        gamma, beta: LN_V's scale and shift [V], float32 or float64, or None; beta is -inf at
            excluded words.
        table: E [V, D].
        eps: of LN_V.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    table: Tensor
    eps: float

    @property
    def wide(self) -> torch.dtype:
        """The dtype of sums and statistics: float32, or float64 for a float64 model."""
        return torch.promote_types(self.hidden.dtype, torch.float32)

    def logits(self, tokens: slice = slice(None), words: slice = slice(None)) -> Tensor:
        """W2 h of some tokens and words [n, K]; float32 for float16, which cannot hold P."""
        bias = None if self.bias is None else self.bias[words]
        logits = functional.linear(self.hidden[tokens], self.weight[words], bias)
        return logits.float() if logits.dtype == torch.float16 else logits

    def norm(self, kept: Kept, tokens: slice = slice(None), words: slice = slice(None)) -> Norm:
        """LN_V of some tokens and words."""
        gamma = None if self.gamma is None else self.gamma[words]
        beta = None if self.beta is None else self.beta[words]
        return Norm(gamma, beta, kept.mean[tokens], kept.rstd[tokens])

    def empty_output(self) -> Tensor:
        """Room for F' [N, D]."""
        return self.table.new_empty(self.hidden.shape[0], self.table.shape[1])


class Kept(NamedTuple):
    """What the backward pass keeps of each token [N] in place of its V logits.

    Attributes:
        mean, rstd: of its logits.
        log_normaliser: logarithm of its softmax's denominator.
    """

    mean: Tensor
    rstd: Tensor
    log_normaliser: Tensor

    @classmethod
    def empty(cls, problem: Problem) -> Kept:
        """Room for N tokens."""
        num_tokens = problem.hidden.shape[0]  # len() would make it a constant while compiling
        return cls(*(problem.hidden.new_empty(num_tokens, dtype=problem.wide) for _ in cls._fields))


class Gradients(NamedTuple):
    """Gradients of the six inputs, in the order of `Problem`; None where none is needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    table: Tensor | None

    @classmethod
    def zeros(cls, problem: Problem, needed: Sequence[bool]) -> Gradients:
        """Zeros for the inputs that exist and whose gradient is needed."""
        return cls(
            *(
                torch.zeros_like(tensor) if tensor is not None and wanted else None
                for tensor, wanted in zip(problem[:6], needed, strict=True)
            )
        )

    def add_norm(self, sums: RowSums, words: slice = slice(None)) -> None:
        """Adds a block's sums to the gradients of gamma and beta."""
        if self.gamma is not None:
            self.gamma[words] += sums.gamma
        if self.beta is not None:
            self.beta[words] += sums.beta


class RowKernels(Protocol):
    """The element-wise work on blocks of logits, see `rows.py`; a module is one."""

    def row_statistics(self, logits: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """See `rows.row_statistics`."""

    def softmax_(self, logits: Tensor, norm: Norm) -> Tensor:
        """See `rows.softmax_`."""

    def softmax_gradient_(
        self,
        logits: Tensor,
        grads: Tensor,
        norm: Norm,
        log_normaliser: Tensor,
        centre: Tensor | None,
        finish: int | None,
    ) -> RowSums:
        """See `rows.softmax_gradient_`."""
