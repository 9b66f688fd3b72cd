"""AlignVLM models, asked exactly as `alignvlm ask` asks them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from alignvlm.errors import AlignVLMError, InputError
from alignvlm.evaluation.models.generation import Limit, generate, greedy_config, near_tie
from alignvlm.evaluation.models.local import LocalModel
from alignvlm.evaluation.models.prompts import cut, holds_stop
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.imaging.sources import quoted
from alignvlm.inference.decoding import greedy
from alignvlm.inference.loading import load_model, load_processor

__all__ = ["OwnModel", "stop_ids"]


class OwnModel(LocalModel):
    """An AlignVLM model.

    Every page is encoded by itself, in a batch too: how many visual tokens a condensed page has
    hangs on the likeliest word of each of its cells, which the company of other pages must not
    change. Only the language model reads several prompts at once.

    Args:
        name, folder, device, dtype, batch_size: as in `LocalModel`.

    Raises:
        UsageError: this machine has no such device.
        WeightsError: the processor's files are damaged.
    """

    kind: ClassVar[str] = "alignvlm"

    def __init__(self, name: str, folder: Path, **options: Any) -> None:
        super().__init__(name, folder, **options)
        self._processor = load_processor(folder)

    @property
    def processor(self) -> Any:
        """See `LocalModel.processor`."""
        return self._processor

    @cached_property
    def config(self) -> Any:
        """See `LocalModel.config`."""
        from alignvlm.model import AlignVLMConfig

        return AlignVLMConfig.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def model(self) -> Any:
        """The model, loaded when it is first needed."""
        model: Any = load_model(self.folder, self.device, self.dtype)
        self._stop_ids = stop_ids(model)
        model.generation_config = greedy_config(model, self._processor.tokenizer.pad_token_id)
        return model

    @torch.inference_mode()
    def _alone(self, prompt: Prompt) -> Reply:
        embeds = self._embeds(prompt)
        room = self._room(prompt, len(embeds))
        ids: list[int] = []
        complete = False
        for token, _ in greedy(self.model, embeds[None], self._stop_ids, room):
            if token in self._stop_ids:
                complete = True
                break
            ids.append(token)
            if prompt.stop and holds_stop(self._text(ids), prompt.stop):
                complete = True
                break
        return self._reply(prompt, ids, complete, len(embeds))

    @torch.inference_mode()
    def _together(self, prompts: Sequence[Prompt]) -> list[Reply | None]:
        rows = [self._embeds(prompt) for prompt in prompts]
        most = max(prompt.max_new_tokens for prompt in prompts)
        if not all(self._fits(len(row), most) for row in rows):
            return [None] * len(prompts)
        length = max(len(row) for row in rows)
        inputs = {
            "inputs_embeds": torch.stack([pad(row, (0, 0, length - len(row), 0)) for row in rows]),
            "attention_mask": torch.stack(
                [pad(row.new_ones(len(row)).long(), (length - len(row), 0)) for row in rows]
            ),
        }
        limits = [Limit(max_new_tokens=p.max_new_tokens, stop=p.stop) for p in prompts]
        found = generate(self.model, self._processor.tokenizer, inputs, limits, self._stop_ids)
        return [
            self._reply(prompt, made.ids, made.complete, len(row))
            if made.margin > near_tie(self.dtype)
            else None
            for prompt, made, row in zip(prompts, found, rows, strict=True)
        ]

    def _embeds(self, prompt: Prompt) -> Tensor:
        """H [L, D] of the prompt with its pages in it."""
        message = {"role": "user", "content": [dict(part) for part in prompt.parts]}
        text = self._processor.apply_chat_template([message], add_generation_prompt=True)
        images = [image.load() for image in prompt.images]
        model = self.model
        try:
            inputs: Any = self._processor(images=images or None, text=text, return_tensors="pt")
        except AlignVLMError as error:
            raise InputError(
                f"The question {quoted(prompt.question_id)} cannot be prepared: {error}"
            ) from error
        inputs = inputs.to(self.device)
        if not images:
            embedded: Tensor = model.get_input_embeddings()(inputs["input_ids"])
            return embedded[0]
        spliced, _ = model.model.embed_inputs(
            inputs["input_ids"],
            inputs["pixel_values"].to(model.dtype),
            inputs["tile_grids"],
            inputs["attention_mask"],
        )
        found: Tensor = spliced.inputs_embeds[0]
        return found

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._processor.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _reply(self, prompt: Prompt, ids: Sequence[int], complete: bool, length: int) -> Reply:
        return Reply(
            text=cut(self._text(ids), prompt.stop),
            num_tokens=len(ids),
            num_input_tokens=length,
            complete=complete,
        )


def stop_ids(model: Any) -> frozenset[int]:
    """Tokens that end an answer by the model's own settings."""
    ended = model.generation_config.eos_token_id
    return frozenset(ended if isinstance(ended, list) else [] if ended is None else [ended])
