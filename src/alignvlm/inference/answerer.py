"""The answerer with a model behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from alignvlm.errors import LimitError, UsageError
from alignvlm.imaging.decode import Page
from alignvlm.imaging.sources import quoted
from alignvlm.inference.ask import Answer, Answerer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from alignvlm.model import AlignVLMForConditionalGeneration, AlignVLMProcessor

__all__ = ["ModelAnswerer"]


@final
class ModelAnswerer(Answerer):
    """Answers with an AlignVLM model, which is loaded at the first question and kept.

    Args:
        model: a folder or Hub id; None: the default model.
        device: see `alignvlm.inference.hardware.choose_device`.
        announce: told where the model runs, once, before it is loaded.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str = "auto",
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._name, self._device_name, self._announce = model, device, announce

    @cached_property
    def _folder(self) -> Path:
        from alignvlm.inference.loading import find_model

        return find_model(self._name)

    @cached_property
    def _device(self) -> torch.device:
        from alignvlm.inference.hardware import choose_device

        return choose_device(self._device_name)

    def check(self) -> None:
        """Refuse a model or a device that is not there, before anything is loaded.

        Raises:
            WeightsError: there is no such model; torch is not imported to find that out.
            UsageError: there is no such device.
        """
        if self._name is not None:
            _ = self._folder
        _ = self._device  # before the default model is assembled, which takes its time

    @cached_property
    def processor(self) -> AlignVLMProcessor:
        """The model's processor."""
        from alignvlm.inference.loading import load_processor

        return load_processor(self._folder)

    @cached_property
    def model(self) -> AlignVLMForConditionalGeneration:
        """The model."""
        from alignvlm.inference.hardware import choose_dtype, describe
        from alignvlm.inference.loading import load_model

        dtype = choose_dtype(self._device)
        if self._announce is not None:
            self._announce(f"Running on {describe(self._device, dtype)}")
        return load_model(self._folder, self._device, dtype)

    def answer(
        self, page: Page, question: str, max_new_tokens: int
    ) -> Generator[str, None, Answer]:
        """See `Answerer.answer`."""
        self.check()
        from alignvlm.inference.decoding import TextPieces, greedy

        prompt = self._prompt(question, max_new_tokens)
        model, tokenizer = self.model, self.processor.tokenizer
        start = time.perf_counter()
        embeds, num_visual_tokens = self._embed(page, prompt)
        room = self._context - embeds.shape[1]
        if room < 1:
            raise LimitError(
                f"Page {page.number} of {quoted(page.source)} holds {num_visual_tokens} visual "
                f"tokens, which with the question exceed the {self._context} that the model "
                "reads, whatever --max-new-tokens is: crop the page"
            )
        stop_ids, pieces = _stop_ids(model), TextPieces(tokenizer)
        tokens: list[tuple[str, float]] = []
        text, complete = "", False
        for token, probability in greedy(model, embeds, stop_ids, min(room, max_new_tokens)):
            if token in stop_ids:
                complete = True
                break
            tokens.append((tokenizer.decode([token]), probability))
            piece = pieces.add(token)
            if piece := piece if text else piece.lstrip():
                text += piece
                yield piece
        if piece := pieces.finish():
            text += piece
            yield piece
        return Answer(
            text=text.strip(),
            page=page.number,
            source=page.source,
            seconds=time.perf_counter() - start,
            num_visual_tokens=num_visual_tokens,
            tokens=tuple(tokens),
            complete=complete,
        )

    @cached_property
    def _context(self) -> int:
        """Tokens that the language model reads and writes in all."""
        from alignvlm.inference.loading import load_config

        config: Any = load_config(self._folder)
        return int(config.text_config.max_position_embeddings)

    def _prompt(self, question: str, max_new_tokens: int) -> str:
        """The chat template around page and question; the same as in training."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        prompt: str = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        num_tokens = len(self.processor.tokenizer(question)["input_ids"])
        if num_tokens >= self._context:
            raise UsageError(
                f"The question has {num_tokens} tokens and the model reads {self._context} with "
                "page and answer: shorten the question"
            )
        if num_tokens >= self._context - max_new_tokens:
            raise UsageError(
                f"The question has {num_tokens} tokens and the model reads {self._context}, of "
                f"which --max-new-tokens keeps {max_new_tokens} for the answer: lower that, or "
                "shorten the question"
            )
        return prompt

    def _embed(self, page: Page, prompt: str) -> tuple[Tensor, int]:
        """H [1, L, D] of the prompt with the page in it, and the number of visual tokens."""
        import torch

        inputs: Any = self.processor(images=page.image, text=prompt, return_tensors="pt")
        inputs = inputs.to(self._device)
        with torch.inference_mode():
            spliced, images = self.model.model.embed_inputs(
                inputs["input_ids"],
                inputs["pixel_values"].to(self.model.dtype),
                inputs["tile_grids"],
                inputs["attention_mask"],
            )
        return spliced.inputs_embeds, len(images[0])


def _stop_ids(model: AlignVLMForConditionalGeneration) -> frozenset[int]:
    stop = model.generation_config.eos_token_id
    return frozenset(stop if isinstance(stop, list) else [] if stop is None else [stop])
