"""Few shapes instead of many, for the sake of a CPU's memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["padded"]


def padded(tensor: Tensor, step: int, *, dim: int, value: int = 0) -> Tensor:
    """The tensor with the end of `dim` filled up to a multiple of `step`, on a CPU.

    There torch keeps code that it wrote for each shape (in bfloat16), and tensors of ever other
    sizes leave holes in the heap. Elsewhere the tensor stays as it is.
    """
    missing = -tensor.shape[dim] % step
    if tensor.device.type != "cpu" or not missing:
        return tensor
    behind = tensor.dim() - 1 - dim
    return functional.pad(tensor, (*(0, 0) * behind, 0, missing), value=value)
