"""What every kind of model does with a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from alignvlm.errors import InputError
from alignvlm.evaluation.question import Prompt

__all__ = ["cut", "holds_stop", "rough_length"]

_CHARS_PER_TOKEN: Final = 4
_PX_PER_TOKEN: Final = 28 * 28


def rough_length(prompt: Prompt) -> int:
    """Tokens of text, pixels and answer, by rules of thumb; an unusable image counts nothing."""
    num_px = 0
    for image in prompt.images:
        with suppress(InputError):  # said when the prompt is answered
            width, height = image.size()
            num_px += width * height
    num_chars = len(prompt.text)
    return num_px // _PX_PER_TOKEN + num_chars // _CHARS_PER_TOKEN + prompt.max_new_tokens


def holds_stop(text: str, stop: Sequence[str]) -> bool:
    """Whether an answer has come to its end."""
    return any(mark in text for mark in stop)


def cut(text: str, stop: Sequence[str]) -> str:
    """An answer up to the first of the texts that end it, stripped."""
    places = [place for mark in stop if (place := text.find(mark)) >= 0]
    return text[: min(places, default=len(text))].strip()
