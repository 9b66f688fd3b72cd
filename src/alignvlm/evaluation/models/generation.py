"""Greedy answers of several prompts at once, and how sure each of their tokens was.

A batch changes the order in which numbers are added, and with it the last bits of every logit: 2e-6
of them in float32, a few hundredths in bfloat16. Where the two likeliest tokens are closer than
that, a batch may choose the other one. So the margin between the two is kept for every token, and
an answer in which it ever fell below `near_tie` is asked for again alone: what is kept of a batch
is then what its prompts alone would have been answered.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from alignvlm.evaluation.models.prompts import holds_stop

__all__ = ["Generated", "Limit", "generate", "greedy_config", "near_tie"]

# What a model's own settings forbid it to say; all others shape how it is sampled.
_KEPT = (
    "bos_token_id",
    "decoder_start_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
)

_NEAR_TIES = {torch.float32: 1e-3, torch.float16: 0.06, torch.bfloat16: 0.5}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Where one prompt's answer ends at the latest: see `Prompt`."""

    max_new_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One answer.

    Attributes:
        ids: its tokens without the one that ended it.
        complete: False where it was cut at the largest number of tokens.
        margin: least difference, in logits, between the likeliest token and the next.
    """

    ids: tuple[int, ...]
    complete: bool
    margin: float


def near_tie(dtype: torch.dtype) -> float:
    """Difference of two logits below which a batch may decide otherwise than a prompt alone."""
    return _NEAR_TIES[dtype]


def greedy_config(model: PreTrainedModel, pad_token_id: int | None) -> GenerationConfig:
    """Settings under which the likeliest token is taken.

    What the model's own settings forbid stays forbidden; penalties, beams and everything about
    sampling are put aside. Answers are ended by `generate`, not by these settings.
    """
    own = model.generation_config
    kept = {name: getattr(own, name, None) for name in _KEPT}
    return GenerationConfig(do_sample=False, pad_token_id=pad_token_id, **kept)


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, Tensor],
    limits: Sequence[Limit],
    stop_ids: Collection[int],
) -> list[Generated]:
    """The greedy answer of each row.

    Args:
        model: with the settings of `greedy_config`.
        tokenizer: of the model.
        inputs: of `generate`, padded on the left.
        limits: of each row.
        stop_ids: tokens that end an answer.
    """
    start = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    margins, ends = _Margins(), _Ends(tokenizer, limits, stop_ids, start)
    config = copy.deepcopy(model.generation_config)
    config.max_new_tokens = max(limit.max_new_tokens for limit in limits)
    model.generate(
        **inputs,
        generation_config=config,
        logits_processor=LogitsProcessorList([margins]),
        stopping_criteria=StoppingCriteriaList([ends]),
    )
    least = torch.stack(margins.steps, dim=1).tolist()
    return [
        Generated(ids=tuple(ids), complete=complete, margin=min(steps[:num_steps]))
        for ids, complete, num_steps, steps in zip(
            ends.ids, ends.complete, ends.num_steps, least, strict=True
        )
    ]


class _Margins(LogitsProcessor):
    """Keeps how far the likeliest token was ahead of the next; changes nothing."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        first, second = scores.float().topk(2, dim=-1).values.unbind(-1)
        self.steps.append(first - second)
        return scores


class _Ends(StoppingCriteria):
    """Ends each row for itself: at a stop token, at a stop text, at its own limit.

    Attributes:
        ids: tokens of each row up to its end.
        complete: of each row, whether it ended before the limit.
        num_steps: steps that each row took, that of the stop token included.
    """

    def __init__(
        self, tokenizer: Any, limits: Sequence[Limit], stop_ids: Collection[int], start: int
    ) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        self._stop_ids, self._start = stop_ids, start
        self.ids: list[list[int]] = [[] for _ in limits]
        self.complete = [False for _ in limits]
        self.num_steps = [0 for _ in limits]
        self._ended = [False for _ in limits]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self._ended[row]:
                self._ended[row] = self._step(row, token)
        return torch.tensor(self._ended, device=input_ids.device)

    def _step(self, row: int, token: int) -> bool:
        limit, ids = self._limits[row], self.ids[row]
        self.num_steps[row] += 1
        if token in self._stop_ids:
            self.complete[row] = True
            return True
        ids.append(token)
        if limit.stop and holds_stop(
            self._tokenizer.decode(ids, skip_special_tokens=True), limit.stop
        ):
            self.complete[row] = True
            return True
        return len(ids) >= limit.max_new_tokens
