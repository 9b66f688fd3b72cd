"""Prompts of base models, which know no turns: the images' tokens, then the text as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignvlm.errors import ConfigurationError
from alignvlm.imaging.sources import quoted

__all__ = ["RawFormat"]


class RawFormat:
    """How the text of a model without a chat template is written.

    An image is the token that the model's processor replaces by its visual tokens, between the
    marks that the configuration names for its start and end (Qwen2-VL); nothing else is added. The
    start of the text is left to the processor, but that Llama 3.2 Vision has it behind the images
    that come first, as its model card writes it: its processor would put it there too, but not
    into a text whose control tokens are marked.

    Args:
        name: of the model, for messages.
        processor: of the model.
        config: of the model.

    Raises:
        ConfigurationError: nothing says what stands for an image.
    """

    def __init__(self, name: str, processor: Any, config: Any) -> None:
        tokenizer = processor.tokenizer
        token = getattr(processor, "image_token", None) or getattr(tokenizer, "image_token", None)
        if not token:
            raise ConfigurationError(
                f"The processor of {quoted(name)} has neither a chat template nor a token for "
                "images: save one with it, e.g. that of the model's instruction-tuned version"
            )
        ends = (getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end"))
        start, end = ("" if one is None else tokenizer.convert_ids_to_tokens(one) for one in ends)
        self.image = f"{start}{token}{end}"
        self._start = tokenizer.bos_token if config.model_type == "mllama" else ""

    def render(self, parts: Sequence[Mapping[str, str]]) -> str:
        """The prompt's parts as one text."""
        written = [self.image if part["type"] == "image" else part["text"] for part in parts]
        first = next(
            (place for place, part in enumerate(parts) if part["type"] != "image"), len(parts)
        )
        return "".join([*written[:first], self._start, *written[first:]])
