"""From a sample to what a model reads: lengths first, from headers, then ids and tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignvlm.data.sample import Sample
from alignvlm.errors import AlignVLMError, InputError
from alignvlm.model.processing import AlignVLMProcessor
from alignvlm.model.splice import IGNORED_LABEL
from alignvlm.training.configuration import BatchConfig

__all__ = ["Encoder", "Example", "Measured", "SampleEncoder", "TooLongError"]


class TooLongError(InputError):
    """A sample does not fit; what becomes of it is the recipe's `too_long`."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A sample's text, and how much room all of it takes.

    Attributes:
        ids: with one placeholder for each image.
        labels: of the ids.
        max_tiles: what each image's grid is limited to; None: as the model's tiling says.
        num_tokens: of the row that it takes, text and visual tokens.
        num_tiles: of all images.
        num_visual_tokens: of all images.
        num_supervised: tokens with a label.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    max_tiles: int | None
    num_tokens: int
    num_tiles: int
    num_visual_tokens: int
    num_supervised: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample as tensors, not yet in a row.

    Attributes:
        tensors: `input_ids` and `labels` int64 [L], and with images `pixel_values`
            [T, 3, S, S] and `tile_grids` int64 [I, 3], or what another model's processor gives.
        measured: the lengths.
    """

    tensors: dict[str, Tensor]
    measured: Measured


class SampleEncoder(ABC):
    """Measures and encodes samples for one kind of model; travels to worker processes."""

    @abstractmethod
    def measure(self, sample: Sample) -> Measured:
        """The lengths of a sample, without decoding an image.

        Raises:
            TooLongError: it does not fit and `too_long` is "skip" or "fewer_tiles".
            InputError: nothing in it is supervised, an image is unreadable, or it does not fit
                and `too_long` is "error".
        """

    @abstractmethod
    def encode(self, sample: Sample, measured: Measured) -> Example:
        """The tensors of a sample that was measured.

        Raises:
            InputError: an image is damaged.
        """


class Encoder(SampleEncoder):
    """For AlignVLM models: the one chat template, labels on answers alone, tiles by header.

    Text is limited apart from visual tokens, and a limit never cuts inside an image: a sample
    that does not fit is an error, skipped, or given fewer tiles, as `batches.too_long` says.

    Args:
        processor: of the model.
        batches: the limits.
    """

    def __init__(self, processor: AlignVLMProcessor, batches: BatchConfig) -> None:
        self._processor = processor
        self._batches = batches

    def measure(self, sample: Sample) -> Measured:
        """See `SampleEncoder.measure`."""
        try:
            ids, labels = self._processor.training_text(list(sample.messages))
        except AlignVLMError as error:
            raise InputError(f"{sample.key}: {error}") from error
        # The first token of a row in a pack is predicted by nothing.
        labels[0] = IGNORED_LABEL
        num_supervised = sum(label != IGNORED_LABEL for label in labels)
        if not num_supervised:
            raise InputError(
                f"{sample.key} has no supervised token: every answer is empty; repair or remove it"
            )
        placeholders = ids.count(self._processor.image_token_id)
        if placeholders != len(sample.images):
            raise InputError(
                f"{sample.key} has {placeholders} image placeholders and {len(sample.images)} "
                "images: give each image its place in a message"
            )
        num_text = len(ids) - placeholders
        if num_text > self._batches.max_text_tokens:
            raise self._too_long(
                sample, f"{num_text} text tokens", self._batches.max_text_tokens, "max_text_tokens"
            )
        sizes = [image.size() for image in sample.images]
        limit, tiles, visual = self._limit_tiles(sample, sizes, num_text)
        return Measured(
            ids=tuple(ids), labels=tuple(labels), max_tiles=limit,
            num_tokens=num_text + sum(visual), num_tiles=sum(tiles),
            num_visual_tokens=sum(visual), num_supervised=num_supervised,
        )  # fmt: skip

    def encode(self, sample: Sample, measured: Measured) -> Example:
        """See `SampleEncoder.encode`."""
        tiles: Any = {}
        if sample.images:
            images = [image.load() for image in sample.images]
            tiles = self._processor.image_processor(
                images, return_tensors="pt", max_tiles=measured.max_tiles
            )
        ids, labels = self._processor.expand_placeholders(
            list(measured.ids), list(measured.labels), tiles.get("tile_grids", ())
        )
        if len(ids) != measured.num_tokens:
            raise InputError(
                f"{sample.key} takes {len(ids)} tokens and its headers promised "
                f"{measured.num_tokens}: an image's header lies about its size"
            )
        tensors = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), **tiles}
        return Example(tensors=tensors, measured=measured)

    def _limit_tiles(
        self, sample: Sample, sizes: Sequence[tuple[int, int]], num_text: int
    ) -> tuple[int | None, list[int], list[int]]:
        """The largest limit on tiles with which the sample fits, its tiles and visual tokens."""
        batches = self._batches
        limits: list[int | None] = [None]
        if batches.too_long == "fewer_tiles":
            limits += range(self._processor.image_processor.max_tiles - 1, 0, -1)
        for limit in limits:
            tiles = [
                self._processor.image_processor.num_tiles(height, width, limit)
                for width, height in sizes
            ]
            visual = [
                self._processor.num_visual_tokens(height, width, limit) for width, height in sizes
            ]
            total = num_text + sum(visual)
            if total <= batches.max_tokens and sum(tiles) <= batches.max_tiles:
                return limit, tiles, visual
        if sum(tiles) > batches.max_tiles:
            raise self._too_long(sample, f"{sum(tiles)} tiles", batches.max_tiles, "max_tiles")
        raise self._too_long(sample, f"{total} tokens", batches.max_tokens, "max_tokens")

    def _too_long(self, sample: Sample, what: str, limit: int, name: str) -> InputError:
        kind = InputError if self._batches.too_long == "error" else TooLongError
        return kind(
            f"{sample.key} has {what} and batches.{name} is {limit}: raise it, or set "
            "batches.too_long"
        )
