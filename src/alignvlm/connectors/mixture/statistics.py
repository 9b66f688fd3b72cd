"""What LayerNorm over the vocabulary needs to know of W2: its mean row and covariance.

A token's logits l = W2 h have mean h . w and variance h' C h, with w the mean of W2's rows and C
their covariance. So the normalisation needs no logits, and a softmax over the vocabulary can be
taken block by block, or over a few rows with the statistics of all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCKS = 4  # of C, each way: more would save little work and slow the products down
_ROWS = 4096  # of W2 at a time: the copy in float32 stays small


class Statistics(NamedTuple):
    """Mean row and covariance of W2 [V, D].

    Attributes:
        mean: w = mean of the rows [D].
        covariance: C = mean of (w_i - w)(w_i - w)' [D, D].
    """

    mean: Tensor
    covariance: Tensor

    def of_logits(self, hidden: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation of each token's logits, [..., N], without logits.

        Products run in the dtype of `hidden`, sums in float32 or wider.

        Args:
            hidden: h [..., N, D].
            eps: added to the variance.
        """
        flat = hidden.reshape(-1, hidden.shape[-1])
        wide = flat.to(torch.promote_types(hidden.dtype, torch.float32))
        with autocast_off(hidden.device.type):
            mean = wide @ self.mean.to(wide.dtype)
            variance = _quadratic_form(flat, self.covariance.to(hidden.dtype), wide)
        # Cancellation may leave a tiny negative number where all rows agree.
        rstd = variance.clamp(min=0).add(eps).rsqrt()
        return mean.reshape(hidden.shape[:-1]), rstd.reshape(hidden.shape[:-1])


def weight_statistics(weight: Tensor) -> Statistics:
    """The statistics of W2 [V, D], in float32 (float64 for float64), 2VD^2 operations.

    The rows are centred before they are multiplied, which loses no digits to a large mean.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    size, width = weight.shape
    mean = weight.sum(0, dtype=wide) / size
    covariance = torch.zeros(width, width, dtype=wide, device=weight.device)
    for start in range(0, size, _ROWS):
        rows = weight[start : start + _ROWS].to(wide) - mean
        covariance.addmm_(rows.t(), rows)
    return Statistics(mean, covariance / size)


def _quadratic_form(hidden: Tensor, matrix: Tensor, wide: Tensor) -> Tensor:
    """The form h' C h of each token [N], with 5/8 of the work of C h, as C is symmetric.

    Off the diagonal only the blocks below it are multiplied, and counted twice. `wide` is `hidden`
    in the dtype of the sums.
    """
    step = -(-matrix.shape[0] // _BLOCKS)
    total = wide.new_zeros(hidden.shape[0])  # len() would fix N in a graph
    for start in range(0, matrix.shape[0], step):
        own, rest = slice(start, start + step), slice(start + step, None)
        product = hidden[:, own] @ matrix[own, own]
        product = torch.addmm(product, hidden[:, rest], matrix[rest, own], alpha=2)
        total = total + torch.linalg.vecdot(product.to(wide.dtype), wide[:, own])
    return total


def autocast_off(device_type: str) -> AbstractContextManager[object]:
    """Keeps autocast from narrowing what is computed in float32 on purpose."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # the meta device knows no autocast
