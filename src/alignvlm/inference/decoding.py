"""One answer, token by token: greedy decoding that tells the probability of every token.

`generate` of transformers would hand tokens over from a second thread and probabilities only at
the end; this loop gives both as they come, and takes the most probable token just as it does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignvlm.model import AlignVLMForConditionalGeneration

__all__ = ["TextPieces", "greedy"]

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@torch.inference_mode()
def greedy(
    model: AlignVLMForConditionalGeneration,
    inputs_embeds: Tensor,
    stop_ids: Collection[int],
    max_new_tokens: int,
) -> Iterator[tuple[int, float]]:
    """Yield (token id, its probability) until a stop token, which is yielded too, or the maximum.

    Args:
        model: any with a cache, in evaluation mode.
        inputs_embeds: H [1, L, D], the prompt with its visual tokens.
        stop_ids: tokens that end an answer.
        max_new_tokens: most tokens to yield.
    """
    step: dict[str, Any] = {"inputs_embeds": inputs_embeds}
    cache = None
    for _ in range(max_new_tokens):
        output = model(**step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        probabilities = output.logits[0, -1].float().softmax(-1)
        token = int(probabilities.argmax())
        yield token, float(probabilities[token])
        if token in stop_ids:
            return
        step = {"input_ids": torch.tensor([[token]], device=inputs_embeds.device)}


class TextPieces:
    """Turns tokens into text as they come; a character of several tokens waits for its last."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._done = ""

    def add(self, token_id: int) -> str:
        """The text that this token completes, often empty."""
        self._ids.append(token_id)
        text = self._decode()
        return "" if text.endswith(_UNFINISHED) else self._advance(text)

    def finish(self) -> str:
        """What is left at the end: a character that never became whole, or nothing."""
        return self._advance(self._decode())

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _advance(self, text: str) -> str:
        piece, self._done = text[len(self._done) :], text
        return piece
