"""W2's statistics, kept from one call to the next while W2 stays as it is."""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from alignvlm.connectors.mixture.operators import w2_statistics


class Remembered:
    """The statistics of the W2 that was asked about last; a copy or a pickle starts empty.

    Every call after the first saves 2VD^2 operations, as many as the mixture of D / 2 tokens takes.
    """

    def __init__(self) -> None:
        self._weight: ref[Tensor] | None = None
        self._stamp: tuple[Any, ...] = ()
        self._found: tuple[Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple[type[Remembered], tuple[()]]:
        return Remembered, ()

    def statistics(self, weight: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean row [D] and covariance [D, D] of `rows`.

        Args:
            weight: W2 [V, D] as the module holds it; a change of its values is noticed.
            rows: the same in the dtype of the products.
        """
        if torch.compiler.is_compiling() or weight.is_inference():  # neither counts changes
            mean, covariance = w2_statistics(rows)
            return mean, covariance
        stamp = (weight.data_ptr(), weight._version, weight.dtype, rows.dtype)
        known = self._weight is not None and self._weight() is weight and self._stamp == stamp
        if self._found is None or not known:
            self._weight, self._stamp, self._found = ref(weight), stamp, w2_statistics(rows)
        return self._found
