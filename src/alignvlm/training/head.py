"""The language model's head and its loss, without more logits at a time than a machine holds.

Letters: M supervised tokens, D LLM width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.shapes import padded

__all__ = ["summed_cross_entropy"]

# Up to so many logits (0.25 GB in float32) are held together: torch's chunks would be of few rows
# then, and take a CPU twenty times as long.
_MAX_LOGITS = 2**26

# Logits of ever other sizes leave holes in a CPU's heap, 14 MB for each new number of tokens.
_ROW_STEP = 64


def summed_cross_entropy(states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over tokens, in float32 whatever the dtype of the states.

    Args:
        states: last hidden states, [M, D].
        head: weights of the head, [V, D], of the same dtype.
        targets: the tokens that come next, int64 [M]; `IGNORED_LABEL` counts nothing.
    """
    states = padded(states, _ROW_STEP, dim=0)
    targets = padded(targets, _ROW_STEP, dim=0, value=IGNORED_LABEL)
    if len(states) * len(head) <= _MAX_LOGITS:
        logits = functional.linear(states, head)
        return functional.cross_entropy(
            logits.float(), targets, reduction="sum", ignore_index=IGNORED_LABEL
        )
    # One by one: a sum of thousands would be rounded to bfloat16's 8 bits.
    losses = functional.linear_cross_entropy(
        states,
        head,
        targets,
        reduction="none",
        ignore_index=IGNORED_LABEL,
        options=torch.nn.LinearCrossEntropyOptions(),
    )
    return losses.float().sum()
