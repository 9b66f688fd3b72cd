"""Samples for the image-text-to-text models of other makers: the paper's base VLMs.

Their processors, templates and tiles are their own, so a sample's length is known once it has been
encoded; one sample makes a row, and limits hold for its text alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import ProcessorMixin

from alignvlm.data.sample import Sample
from alignvlm.errors import ConfigurationError, InputError
from alignvlm.model.chat import defuse
from alignvlm.model.compat import BREAK_MARK
from alignvlm.model.foreign import process
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.configuration import BatchConfig
from alignvlm.training.encoding import Example, Measured, SampleEncoder, TooLongError

__all__ = ["ForeignEncoder"]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A part of the rendered conversation: an answer, or what stands before one."""

    text: str
    is_answer: bool
    num_images: int


class ForeignEncoder(SampleEncoder):
    """Conversations through another model's own processor, with labels on answers alone.

    The template is rendered up to each answer and with it; what the second adds, up to the token
    that ends it, is supervised. Control tokens that users typed stay text.

    Args:
        processor: of the model.
        batches: `max_text_tokens` and `too_long` are kept; rows hold one sample each.

    Raises:
        ConfigurationError: the processor has no chat template.
    """

    def __init__(self, processor: ProcessorMixin, batches: BatchConfig) -> None:
        self._processor: Any = processor
        self._batches = batches
        if not self._processor.chat_template:
            raise ConfigurationError(
                "The model's processor has no chat template: save one with it, e.g. that of the "
                "model's instruction-tuned version"
            )

    def measure(self, sample: Sample) -> Measured:
        """See `SampleEncoder.measure`; visual tokens are not counted, images not opened."""
        pieces = self._pieces(sample)
        parts = [(self._tokenize(piece.text), piece.is_answer) for piece in pieces]
        num_text = sum(len(ids) for ids, _ in parts)
        if num_text > self._batches.max_text_tokens:
            kind = InputError if self._batches.too_long == "error" else TooLongError
            raise kind(
                f"{sample.key} has {num_text} text tokens and batches.max_text_tokens is "
                f"{self._batches.max_text_tokens}: raise it, or set batches.too_long"
            )
        num_supervised = sum(len(self._learned(ids)) for ids, is_answer in parts if is_answer)
        if not num_supervised:
            raise InputError(
                f"{sample.key} has no supervised token: every answer is empty; repair or remove it"
            )
        for image in sample.images:
            image.size()
        return Measured(
            ids=(), labels=(), max_tiles=None, num_tokens=num_text, num_tiles=len(sample.images),
            num_visual_tokens=0, num_supervised=num_supervised,
        )  # fmt: skip

    def encode(self, sample: Sample, measured: Measured) -> Example:
        """See `SampleEncoder.encode`; the tensors are those of the model's own processor."""
        pieces = self._pieces(sample)
        images = [image.load() for image in sample.images]
        made = self._process("".join(piece.text for piece in pieces), images)
        ids = made["input_ids"][0].tolist()
        labels = self._labels(sample, ids, pieces, images)
        if sum(label != IGNORED_LABEL for label in labels[1:]) != measured.num_supervised:
            raise InputError(
                f"{sample.key} begins with its answer: put a question before it, the first token "
                "is predicted by nothing"
            )
        tensors = {
            name: value for name, value in made.items() if isinstance(value, torch.Tensor)
        } | {"input_ids": made["input_ids"][0], "labels": torch.tensor(labels)}
        tensors.pop("attention_mask", None)  # nothing is padded
        num_visual = len(ids) - measured.num_tokens
        lengths = replace(measured, num_tokens=len(ids), num_visual_tokens=max(0, num_visual))
        return Example(tensors=tensors, measured=lengths)

    def _pieces(self, sample: Sample) -> list[_Piece]:
        """The rendered conversation: prompt, answer, prompt, answer, ..."""
        pieces: list[_Piece] = []
        done, start = "", 0
        messages = defuse(
            list(sample.messages), self._processor.tokenizer, self._processor.chat_template
        )
        for end, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._render(messages[:end], add_generation_prompt=True)
            answered = self._render(messages[: end + 1])
            if not (asked.startswith(done) and answered.startswith(asked)):
                raise InputError(
                    f"{sample.key}: the model's chat template rewrites earlier messages; use "
                    "conversations of one question and answer"
                )
            num_images = sum(
                part["type"] == "image" for said in messages[start:end] for part in said["content"]
            )
            pieces += [
                _Piece(text=asked[len(done) :], is_answer=False, num_images=num_images),
                _Piece(text=answered[len(asked) :], is_answer=True, num_images=0),
            ]
            done, start = answered, end + 1
        if not pieces:
            raise InputError(f"{sample.key} has no supervised token: nobody answers in it")
        return pieces

    def _render(self, messages: list[Any], **options: Any) -> str:
        return str(self._processor.apply_chat_template(messages, tokenize=False, **options))

    def _process(self, text: str, images: list[Any]) -> dict[str, Any]:
        return dict(process(self._processor, [text], [images]))

    def _tokenize(self, text: str) -> list[int]:
        marked = {"sanitize_control_tokens": True} if BREAK_MARK in text else {}
        return list(
            self._processor.tokenizer(text, add_special_tokens=False, **marked)["input_ids"]
        )

    def _learned(self, answer: list[int]) -> list[int]:
        """An answer's ids up to the token that ends it; what the template adds is not learned."""
        end = self._processor.tokenizer.eos_token_id
        return answer[: answer.index(end) + 1] if end in answer else answer

    def _labels(
        self, sample: Sample, ids: list[int], pieces: list[_Piece], images: list[Any]
    ) -> list[int]:
        """Answers are found from the end: what stands at the start the processor may add to."""
        labels = [IGNORED_LABEL] * len(ids)
        end, num_images = len(ids), len(images)
        for number in range(len(pieces) - 1, 0, -1):
            piece = pieces[number]
            if not piece.is_answer:
                end -= self._length(piece, images[num_images - piece.num_images : num_images])
                num_images -= piece.num_images
                continue
            tokens = self._tokenize(piece.text)
            start = end - len(tokens)
            if start < 0 or ids[start:end] != tokens:
                raise InputError(
                    f"{sample.key}: the answer {piece.text[:40]!r} is not where the template put "
                    "it after tokenizing; this model's tokenizer joins it with what stands before"
                )
            learned = self._learned(tokens)
            labels[start : start + len(learned)] = learned
            end = start
        return labels

    def _length(self, piece: _Piece, images: list[Any]) -> int:
        """Tokens of what stands between two answers, its images expanded."""
        if not images:
            return len(self._tokenize(piece.text))
        ids = self._process(piece.text, images)["input_ids"][0].tolist()
        own = piece.text.count(self._processor.tokenizer.bos_token or "\0")
        starts = ids.count(self._processor.tokenizer.bos_token_id)
        return len(ids) - (starts - own)  # the processor takes it for a start
