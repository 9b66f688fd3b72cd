"""ALIGN with random weights."""

from __future__ import annotations

import torch

from alignvlm.connectors import Align


def random_align(
    vision_dim: int, text_dim: int, vocab_size: int, *, seed: int = 0, **options: object
) -> Align:
    """An Align none of whose parameters has a special value."""
    torch.manual_seed(seed)
    align = Align(vision_dim, text_dim, vocab_size, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in align.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return align
