"""Other makers' models: any that transformers loads for images and text to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from transformers import AutoConfig, AutoProcessor

from alignvlm.errors import ConfigurationError, InputError
from alignvlm.evaluation.models.generation import (
    Generated,
    Limit,
    generate,
    greedy_config,
    near_tie,
)
from alignvlm.evaluation.models.local import LocalModel
from alignvlm.evaluation.models.prompts import cut
from alignvlm.evaluation.models.raw import RawFormat
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.imaging.sources import quoted
from alignvlm.model.chat import defuse
from alignvlm.model.compat import BREAK_MARK, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from alignvlm.model.foreign import (
    begins_with_bos,
    load_foreign_model,
    load_foreign_part,
    process,
    reason,
)

__all__ = ["ForeignModel"]


@final
class ForeignModel(LocalModel):
    """A model of `AutoModelForImageTextToText`, asked through its own processor and template.

    A base model has no template: it is given images and text as they are, see `RawFormat`.
    Code that comes with a model's files is never run; a model that needs it is refused.

    Args:
        name, folder, device, dtype, batch_size: as in `LocalModel`.

    Raises:
        UsageError: this machine has no such device.
        WeightsError: the configuration or the processor cannot be loaded.
        ConfigurationError: the model reads no images, or it is not clear how it is asked.
        MissingDependencyError: its processor needs a package that is not installed.
    """

    kind: ClassVar[str] = "transformers"

    def __init__(self, name: str, folder: Path, **options: Any) -> None:
        super().__init__(name, folder, **options)
        local: dict[str, Any] = {"name": name, "local_files_only": True}
        self._config = load_foreign_part(AutoConfig, folder, "config.json", **local)
        if self._config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise ConfigurationError(
                f"{quoted(name)} is a model of type {self._config.model_type!r}, which takes no "
                "images and text to text: name a vision-language model"
            )
        self._processor = load_foreign_part(AutoProcessor, folder, "processor files", **local)
        self._set_up(self._processor)

    def describe(self) -> dict[str, str]:
        """See `EvaluatedModel.describe`; and whether prompts are put as "chat" or "raw"."""
        return super().describe() | {"prompt_format": "raw" if self._raw else "chat"}

    @property
    def config(self) -> Any:
        """See `LocalModel.config`."""
        return self._config

    @property
    def processor(self) -> Any:
        """See `LocalModel.processor`."""
        return self._processor

    @cached_property
    def model(self) -> Any:
        """The model, loaded when it is first needed.

        Raises:
            WeightsError: weights are missing or damaged.
        """
        model: Any = load_foreign_model(
            self.folder, name=self.name, dtype=self.dtype, local_files_only=True
        )
        model = model.to(self.device).eval()
        tokenizer = self._processor.tokenizer
        ended = model.generation_config.eos_token_id
        listed = ended if isinstance(ended, list) else [ended]
        self._stop_ids = frozenset({*listed, tokenizer.eos_token_id} - {None})
        model.generation_config = greedy_config(model, tokenizer.pad_token_id)
        return model

    def _groups(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Some processors want as many images in each; all are called with the same options."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            text = self._render(prompt)
            alike = len(prompt.images), BREAK_MARK in text, begins_with_bos(self._processor, text)
            groups.setdefault(alike, []).append(place)
        return list(groups.values())

    def _alone(self, prompt: Prompt) -> Reply:
        inputs, (length,) = self._prepared([prompt])
        room = self._room(prompt, length)
        (found,) = self._generate(inputs, [Limit(max_new_tokens=room, stop=prompt.stop)])
        return self._reply(prompt, found, length)

    def _together(self, prompts: Sequence[Prompt]) -> list[Reply | None]:
        inputs, lengths = self._prepared(prompts)
        most = max(prompt.max_new_tokens for prompt in prompts)
        if not all(self._fits(length, most) for length in lengths):
            return [None] * len(prompts)
        limits = [Limit(max_new_tokens=p.max_new_tokens, stop=p.stop) for p in prompts]
        return [
            self._reply(prompt, made, length) if made.margin > near_tie(self.dtype) else None
            for prompt, made, length in zip(
                prompts, self._generate(inputs, limits), lengths, strict=True
            )
        ]

    def _generate(self, inputs: Any, limits: Sequence[Limit]) -> list[Generated]:
        model = self.model
        inputs = inputs.to(device=self.device, dtype=model.dtype)  # whole numbers stay whole
        return generate(model, self._processor.tokenizer, inputs, limits, self._stop_ids)

    def _prepared(self, prompts: Sequence[Prompt]) -> tuple[Any, list[int]]:
        """The model's inputs, padded on the left, and the length of each row.

        Raises:
            InputError: an image cannot be used, or the processor fails.
        """
        images = [[image.load() for image in prompt.images] for prompt in prompts]
        texts = [self._render(prompt) for prompt in prompts]
        with self._blamed(prompts):
            made = process(self._processor, texts, images, padding=True)
            return made, made["attention_mask"].sum(dim=1).tolist()

    @contextmanager
    def _blamed(self, prompts: Sequence[Prompt]) -> Iterator[None]:
        """Whatever a processor raises is said to be about the prompts."""
        try:
            yield
        except Exception as error:
            names = ", ".join(quoted(prompt.question_id) for prompt in prompts)
            raise InputError(
                f"The processor of {quoted(self.name)} cannot prepare {names} "
                f"({type(error).__name__}{reason(error)}): look at the question and its images"
            ) from error

    def _render(self, prompt: Prompt) -> str:
        """The prompt as the model takes it; control tokens in its text stay text."""
        tokenizer, parts = self._processor.tokenizer, [dict(part) for part in prompt.parts]
        if self._raw is not None:
            return self._raw.render(defuse(parts, tokenizer, self._raw.image))
        message = {"role": "user", "content": parts}
        safe = defuse([message], tokenizer, str(self._processor.chat_template))
        with self._blamed([prompt]):
            rendered = self._processor.apply_chat_template(
                safe, tokenize=False, add_generation_prompt=True
            )
        return str(rendered)

    def _reply(self, prompt: Prompt, made: Generated, length: int) -> Reply:
        text = self._processor.tokenizer.decode(list(made.ids), skip_special_tokens=True)
        return Reply(
            text=cut(str(text), prompt.stop),
            num_tokens=len(made.ids),
            num_input_tokens=length,
            complete=made.complete,
        )

    def _set_up(self, processor: Any) -> None:
        """Left padding, with a token to pad with; how prompts are put.

        Raises:
            ConfigurationError: it is no processor of images and text, or has only a chat template
                for text.
        """
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise ConfigurationError(
                f"{quoted(self.name)} has no processor of images and text: save the model's "
                "processor into its folder"
            )
        if not processor.chat_template and tokenizer.chat_template:
            raise ConfigurationError(
                f"The chat template of {quoted(self.name)} is its tokenizer's, which knows no "
                "images: save one with the processor, or remove it if this is a base model"
            )
        is_chat = bool(processor.chat_template)
        self._raw = None if is_chat else RawFormat(self.name, processor, self._config)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
