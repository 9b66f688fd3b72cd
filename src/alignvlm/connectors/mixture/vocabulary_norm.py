"""The parameters of LN_V, the LayerNorm over the vocabulary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["VocabularyNorm"]


class VocabularyNorm(nn.Module):
    """Scale and shift of LN_V; the functions of this folder compute with them.

    Not a `torch.nn.LayerNorm`, because libraries reset the scale of those to 1, which would undo
    `gain`, or replace them by ones that work in the model's dtype.
    """

    def __init__(self, num_words: int, *, eps: float, affine: bool, gain: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = gain
        self.weight = nn.Parameter(torch.empty(num_words)) if affine else None
        self.bias = nn.Parameter(torch.empty(num_words)) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale `gain`, shift 0."""
        if self.weight is not None and self.bias is not None:
            nn.init.constant_(self.weight, self.gain)
            nn.init.zeros_(self.bias)

    def masked_bias(self, excluded_rows: Tensor | None, like: Tensor) -> Tensor | None:
        """The shift beta with -inf at excluded rows, or None where there is nothing to add."""
        if excluded_rows is None:
            return self.bias
        bias = like.new_zeros(len(like)) if self.bias is None else self.bias
        return bias.index_fill(0, excluded_rows, -math.inf)
