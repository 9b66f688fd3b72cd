"""Attention inside of the samples that share a row, without a mask.

Under a block-diagonal mask torch computes all L x L products of a row and throws most of them
away. Sample by sample it computes what is needed, with the causal kernels: for four samples a
quarter of the products, and no variable-length kernel has to be installed. On a CPU each sample is
padded at its end, where no position before looks in causal attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from alignvlm.model.compat import sdpa_attention_forward, sdpa_mask
from alignvlm.model.modeling import AlignVLMForConditionalGeneration
from alignvlm.training.shapes import padded

__all__ = ["BY_SAMPLE", "attend_by_sample", "sample_lengths"]

BY_SAMPLE = "alignvlm_by_sample"
"""torch's attention; over the samples of a row where the model is called with `sample_lengths`."""

# torch writes a CPU's code anew for each length, 5 MB in bfloat16: no more than 32 lengths in a row
# of 1,024 tokens, for 16 positions more a sample on average.
_LENGTH_STEP = 32


def attend_by_sample(model: PreTrainedModel) -> bool:
    """Make a model's language model take `sample_lengths`; False where it cannot or should not.

    That is another maker's model, one that was told to use another implementation than SDPA, or a
    language model with attention code of its own.
    """
    if not isinstance(model, AlignVLMForConditionalGeneration):
        return False
    language_model: Any = model.model.language_model
    chosen = language_model.config._attn_implementation
    if chosen == "sdpa" and language_model._supports_attention_backend:
        language_model.set_attn_implementation(BY_SAMPLE)
    return bool(language_model.config._attn_implementation == BY_SAMPLE)


def sample_lengths(position_ids: Tensor) -> list[int]:
    """Lengths of the samples in a row, each with positions from 0 on: int64 [1, L]."""
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], position_ids.shape[1]]
    return [end - start for start, end in zip(starts, ends, strict=True)]


def _by_sample(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sample_lengths: list[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers' own function for SDPA: [1, heads, L, width] to [1, L, heads, width].

    The mask is taken where the samples' lengths are not given, and by layers that look back no
    further than a window.
    """
    if sample_lengths is None or options.get("sliding_window"):
        output: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )[0]
        return output, None
    step = _LENGTH_STEP if _is_causal(module, options) else 1
    pieces = zip(*(each.split(sample_lengths, dim=2) for each in (query, key, value)), strict=True)
    outputs = []
    for length, piece in zip(sample_lengths, pieces, strict=True):
        longer = (padded(each, step, dim=2) for each in piece)
        output = sdpa_attention_forward(module, *longer, None, **options)[0]
        outputs.append(output[:, :length])
    return torch.cat(outputs, dim=1), None


def _is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    """As `sdpa_attention_forward` decides where it has no mask."""
    told = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if told is None else told)


AttentionInterface.register(BY_SAMPLE, _by_sample)
AttentionMaskInterface.register(BY_SAMPLE, sdpa_mask)
