"""What models that run here have in common: device, record, and batches that change nothing."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from alignvlm.errors import LimitError
from alignvlm.evaluation.models.base import EvaluatedModel
from alignvlm.evaluation.models.prompts import rough_length
from alignvlm.evaluation.question import Prompt, Reply
from alignvlm.imaging.sources import quoted
from alignvlm.inference.hardware import choose_device, choose_dtype

__all__ = ["LocalModel"]

_GPU_BATCH: Final = 8

# What an answer depends on, beside the weights.
_FILES: Final = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


class LocalModel(EvaluatedModel):
    """A model in a folder.

    Args:
        name: what the user called it.
        folder: where it is.
        device, dtype, batch_size: as in `open_model`.
    """

    kind: ClassVar[str]
    """As `describe` says it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.name, self.folder = name, folder
        self.device = choose_device(device or "auto")
        self.dtype: torch.dtype = getattr(torch, dtype) if dtype else choose_dtype(self.device)
        self._batch_size = batch_size or (_GPU_BATCH if self.device.type == "cuda" else 1)

    @property
    def batch_size(self) -> int:
        """See `EvaluatedModel.batch_size`."""
        return self._batch_size

    @property
    @abstractmethod
    def config(self) -> Any:
        """The model's configuration."""

    @property
    @abstractmethod
    def processor(self) -> Any:
        """The model's processor."""

    @abstractmethod
    def _alone(self, prompt: Prompt) -> Reply:
        """The reply to a prompt by itself, which is what counts."""

    @abstractmethod
    def _together(self, prompts: Sequence[Prompt]) -> list[Reply | None]:
        """Replies to several prompts; None where one has to be asked alone."""

    def _groups(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Places of the prompts that may be answered together."""
        return [list(range(len(prompts)))]

    def describe(self) -> dict[str, str]:
        """See `EvaluatedModel.describe`."""
        return {"kind": self.kind, "model_type": str(self.config.model_type), **self._version} | {
            "image_processor": type(self.processor.image_processor).__name__,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    def length(self, prompt: Prompt) -> int:
        """See `EvaluatedModel.length`."""
        return rough_length(prompt)

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """See `EvaluatedModel.answer`.

        Raises:
            LimitError: a prompt exceeds the model's context, or one alone exceeds the memory.
            InputError: an image cannot be used, or the processor cannot prepare a prompt.
        """
        found: dict[int, Reply | None] = {}
        for group in self._groups(prompts) if len(prompts) > 1 else []:
            if len(group) > 1:
                found |= zip(group, self._tried([prompts[n] for n in group]), strict=True)
        return [found.get(n) or self._checked(prompt) for n, prompt in enumerate(prompts)]

    def _tried(self, prompts: Sequence[Prompt]) -> list[Reply | None]:
        """Replies; where the memory does not hold all at once, each prompt is asked alone."""
        try:
            return self._together(prompts)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return [None] * len(prompts)

    def _checked(self, prompt: Prompt) -> Reply:
        try:
            return self._alone(prompt)
        except torch.OutOfMemoryError as error:
            raise LimitError(
                f"The question {quoted(prompt.question_id)} does not fit into the memory of "
                f"{self.device}: take a smaller dtype, or a device with more"
            ) from error

    def _fits(self, length: int, num_new: int) -> bool:
        """Whether a prompt of `length` tokens leaves so many for an answer."""
        return self._context is None or length + num_new <= self._context

    def _room(self, prompt: Prompt, length: int) -> int:
        """Tokens that an answer may have at most, for a prompt of `length` tokens.

        Raises:
            LimitError: there is none left.
        """
        if not self._fits(length, 1):
            raise LimitError(
                f"The question {quoted(prompt.question_id)} has {length} tokens with its images "
                f"and {quoted(self.name)} reads {self._context}: shorten it, or scale its images "
                "down"
            )
        most = prompt.max_new_tokens
        return most if self._context is None else min(most, self._context - length)

    @cached_property
    def _context(self) -> int | None:
        """Tokens that the language model reads and writes in all, if there is a limit."""
        found = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return None if found is None else int(found)

    @cached_property
    def _version(self) -> dict[str, str]:
        """The commit of a Hub snapshot, else a hash over the files."""
        if self.folder.parent.name == "snapshots":
            return {"revision": self.folder.name}
        digest = hashlib.sha256()
        for path in [*(self.folder / name for name in _FILES), *_weights(self.folder)]:
            if path.is_file():
                digest.update(f"{path.name}\n".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"sha256": digest.hexdigest()}


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
