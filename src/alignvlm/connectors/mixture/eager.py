"""ALIGN's mixture by its definition, Eq. 1-2; the other ways are tested against this one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.connectors.mixture.statistics import autocast_off


def vocabulary_scores(
    logits: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """LN_V of logits [..., N, V], in float32 or wider whatever the model's dtype.

    Args:
        logits: W2 h.
        gamma: scale [V], or None for 1.
        beta: shift [V], or None for 0.
        eps: added to the variance.
        known: mean and inverse standard deviation [..., N] to use; None: those of the logits.
    """
    with autocast_off(logits.device.type):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        gamma = None if gamma is None else gamma.to(wide.dtype)
        beta = None if beta is None else beta.to(wide.dtype)
        if known is None:
            return functional.layer_norm(wide, wide.shape[-1:], gamma, beta, eps)
        normalised = (wide - known[0][..., None]) * known[1][..., None]
        if gamma is not None:
            normalised = normalised * gamma
        return normalised if beta is None else normalised + beta


def mix_table(probs: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
    """Eq. 2: P E in the given dtype; through float32 for float16, which underflows below 6e-8."""
    safe = torch.float32 if dtype == torch.float16 else dtype
    with autocast_off(probs.device.type):
        return (probs.to(safe) @ table.to(safe)).to(dtype)


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast chooses the dtype of products with a tensor."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def products_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which products with a tensor run: its own, or autocast's."""
    return torch.get_autocast_dtype(tensor.device.type) if autocasts(tensor) else tensor.dtype
