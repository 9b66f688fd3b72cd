"""Samples for the image-text-to-text models of other makers: the paper's base VLMs.

Their processors, templates and tiles are their own, so a sample's length is known once it has been
encoded; one sample makes a row, and limits hold for its text alone.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import ProcessorMixin

from alignvlm.data.sample import Sample
from alignvlm.errors import InputError
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.configuration import BatchConfig
from alignvlm.training.encoding import Example, Measured, SampleEncoder, TooLongError

__all__ = ["ForeignEncoder"]


class ForeignEncoder(SampleEncoder):
    """Conversations through another model's own processor, with labels on answers alone.

    The template is rendered up to each answer and with it; what the second adds is supervised.

    Args:
        processor: of the model.
        batches: `max_text_tokens` and `too_long` are kept; rows hold one sample each.
    """

    def __init__(self, processor: ProcessorMixin, batches: BatchConfig) -> None:
        self._processor: Any = processor
        self._batches = batches

    def measure(self, sample: Sample) -> Measured:
        """See `SampleEncoder.measure`; visual tokens are not counted, images not opened."""
        text = sum(
            len(self._processor.tokenizer(piece, add_special_tokens=False)["input_ids"])
            for piece, _ in self._pieces(sample)
        )
        if text > self._batches.max_text_tokens:
            kind = InputError if self._batches.too_long == "error" else TooLongError
            raise kind(
                f"{sample.key} has {text} text tokens and batches.max_text_tokens is "
                f"{self._batches.max_text_tokens}: raise it, or set batches.too_long"
            )
        for image in sample.images:
            image.size()
        return Measured(
            ids=(), labels=(), max_tiles=None, num_tokens=text, num_tiles=len(sample.images),
            num_visual_tokens=0, num_supervised=self._num_supervised(sample),
        )  # fmt: skip

    def encode(self, sample: Sample, measured: Measured) -> Example:
        """See `SampleEncoder.encode`; the tensors are those of the model's own processor."""
        pieces = self._pieces(sample)
        whole = "".join(piece for piece, _ in pieces)
        images = [image.load() for image in sample.images]
        options = {"images": images} if images else {}
        tensors = dict(self._processor(text=[whole], return_tensors="pt", **options))
        ids = tensors["input_ids"][0].tolist()
        labels = self._labels(sample, ids, pieces)
        tensors = {
            name: value[0] if name in ("input_ids", "attention_mask") else value
            for name, value in tensors.items()
            if isinstance(value, torch.Tensor)
        }
        tensors.pop("attention_mask", None)
        return Example(tensors={**tensors, "labels": torch.tensor(labels)}, measured=measured)

    def _pieces(self, sample: Sample) -> list[tuple[str, bool]]:
        """The rendered conversation: prompt, answer, prompt, answer, ..."""
        pieces: list[tuple[str, bool]] = []
        done = ""
        messages = list(sample.messages)
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
            pieces += [(asked[len(done) :], False), (answered[len(asked) :], True)]
            done = answered
        if not any(piece.strip() for piece, is_answer in pieces if is_answer):
            raise InputError(f"{sample.key} has no supervised token: nobody answers in it")
        return pieces

    def _render(self, messages: list[Any], **options: Any) -> str:
        return str(self._processor.apply_chat_template(messages, tokenize=False, **options))

    def _num_supervised(self, sample: Sample) -> int:
        answers = [piece for piece, is_answer in self._pieces(sample) if is_answer]
        return sum(len(self._tokenize(answer)) for answer in answers)

    def _tokenize(self, text: str) -> list[int]:
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _labels(self, sample: Sample, ids: list[int], pieces: list[tuple[str, bool]]) -> list[int]:
        """Answers are found from the end: what stands before them may have been expanded."""
        labels = [IGNORED_LABEL] * len(ids)
        end = len(ids)
        for piece, is_answer in reversed(pieces):
            tokens = self._tokenize(piece)
            if is_answer:
                start = end - len(tokens)
                if start < 0 or ids[start:end] != tokens:
                    raise InputError(
                        f"{sample.key}: the answer {piece[:40]!r} is not where the template put it "
                        "after tokenizing; this model's tokenizer joins it with what stands before"
                    )
                labels[start:end] = tokens
                end = start
            elif piece is not pieces[0][0]:
                end -= len(tokens)
        return labels
