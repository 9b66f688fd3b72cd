"""What is in a source: broken rows with their reasons, lengths, and a few examples.

How long a row is depends on a model's tokenizer and tiling, so the model's processor is asked.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from alignvlm.data.sample import DataSource, ImageSource, Sample
from alignvlm.errors import InputError, UsageError

__all__ = ["BrokenRow", "Example", "Histogram", "Piece", "Processor", "Report", "check"]

_MAX_LISTED: Final = 100
"""Broken rows that are listed; all are counted."""

_IGNORED: Final = -100
_MAX_REASONS: Final = 50
_NUM_BINS: Final = 16
_PICTURE_PX: Final = 640


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation.

    Attributes:
        text: as the model reads it.
        kind: "prompt", "answer" if the model learns it, or "image".
    """

    text: str
    kind: str


class Processor(Protocol):
    """What is asked of `alignvlm.model.AlignVLMProcessor`."""

    image_token_id: int
    image_processor: Any
    """Its `num_tiles(height, width)` counts the tiles of an image."""
    tokenizer: Any

    def training_text(self, conversation: Any) -> tuple[list[int], list[int]]:
        """Ids with one placeholder for each image, and labels, -100 where nothing is learned."""
        ...


@dataclass(frozen=True)
class BrokenRow:
    """A row that cannot be used; `row` counts from 1 over all files of the source."""

    row: int
    reason: str


@dataclass(frozen=True)
class Histogram:
    """How often values fall between edges; the last of the edges belongs to the last bin.

    Attributes:
        counts: of each bin.
        edges: one more than bins.
        median, p95, largest, total: of the values.
    """

    counts: Sequence[int]
    edges: Sequence[float]
    median: float
    p95: float
    largest: int
    total: int


@dataclass(frozen=True)
class Example:
    """A row to show.

    Attributes:
        key: of the sample.
        pieces: its text.
        images: its images, made small.
    """

    key: str
    pieces: Sequence[Piece]
    images: Sequence[Image.Image]


@dataclass(kw_only=True)
class Report:
    """What was found.

    Attributes:
        source: name of the format.
        path: of the files.
        num_rows: of the source.
        num_checked: how many of them were looked at, from the first.
        num_broken: how many of these cannot be used.
        broken: the first of them.
        reasons: how many rows are broken for which reason, most frequent first.
        num_images: in the rows that are not broken, as all that follows.
        num_supervised: tokens that are learned.
        tokens: text tokens of a row, images not counted; None if no row could be measured.
        tiles: of a row, over all its images.
        examples: rows to show.
    """

    source: str
    path: str
    num_rows: int
    num_checked: int = 0
    num_broken: int = 0
    broken: list[BrokenRow] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    num_images: int = 0
    num_supervised: int = 0
    tokens: Histogram | None = None
    tiles: Histogram | None = None
    examples: list[Example] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Everything but the examples, as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del values["examples"]
        values["broken"] = [asdict(row) for row in self.broken]
        for name in ("tokens", "tiles"):
            values[name] = None if values[name] is None else asdict(values[name])
        return values


def check(
    source: DataSource,
    path: str,
    processor: Processor,
    *,
    limit: int | None = None,
    num_examples: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Read rows, the headers of their images, and count what they hold.

    Args:
        source: where the rows come from.
        path: of its files, for the report.
        processor: of the model.
        limit: look at this many rows, from the first; None for all.
        num_examples: rows to show, spread over those looked at; their images are decoded.
        progress: told how many rows are done and how many there are.
    """
    report = Report(source=source.name, path=path, num_rows=len(source))
    total = report.num_rows if limit is None else min(limit, report.num_rows)
    shown = {total * number // num_examples for number in range(num_examples)}
    tokens, tiles = array("q"), array("q")
    reasons: Counter[str] = Counter()
    for index in range(total):
        progress(index, total)
        try:
            sample = source.read(index)
            counted = _measured(sample, processor)
            if index in shown:
                report.examples.append(_example(sample, processor))
        except (InputError, UsageError) as error:
            _note(report, reasons, index, str(error))
            if index in shown:
                shown.add(index + 1)  # the next row stands in
            continue
        report.num_images += len(sample.images)
        report.num_supervised += counted.num_supervised
        tokens.append(counted.num_tokens)
        tiles.append(counted.num_tiles)
    report.num_checked = total
    report.reasons = dict(reasons.most_common(_MAX_REASONS))
    report.tokens, report.tiles = _histogram(tokens), _histogram(tiles)
    return report


@dataclass(frozen=True)
class _Counted:
    num_tokens: int
    num_supervised: int
    num_tiles: int


def _measured(sample: Sample, processor: Processor) -> _Counted:
    ids, labels = processor.training_text(sample.messages)
    num_supervised = sum(label != _IGNORED for label in labels)
    if not num_supervised:
        raise InputError(f"{sample.key} has no token to learn: give it an answer")
    return _Counted(
        num_tokens=len(ids) - ids.count(processor.image_token_id),
        num_supervised=num_supervised,
        num_tiles=sum(_num_tiles(image, processor) for image in sample.images),
    )


def _num_tiles(image: ImageSource, processor: Processor) -> int:
    width, height = image.size()
    return int(processor.image_processor.num_tiles(height, width))


def _example(sample: Sample, processor: Processor) -> Example:
    small = []
    for image in sample.images:
        picture = image.load().copy()
        picture.thumbnail((_PICTURE_PX, _PICTURE_PX))
        small.append(picture)
    return Example(sample.key, _pieces(sample, processor), small)


def _pieces(sample: Sample, processor: Processor) -> list[Piece]:
    """The rendered conversation, cut where images stand and where learning begins and ends."""
    ids, labels = processor.training_text(sample.messages)
    images = iter(sample.images)
    pieces = []

    def kind(pair: tuple[int, int]) -> str:
        token, label = pair
        if token == processor.image_token_id:
            return "image"
        return "prompt" if label == _IGNORED else "answer"

    for what, pairs in groupby(zip(ids, labels, strict=True), key=kind):
        tokens = [token for token, _ in pairs]
        if what == "image":
            shown = [next(images) for _ in tokens]
            text = "".join(f"[{image.name}: {_tiles(image, processor)}]" for image in shown)
        else:
            text = processor.tokenizer.decode(tokens)
        pieces.append(Piece(text, what))
    return pieces


def _tiles(image: ImageSource, processor: Processor) -> str:
    number = _num_tiles(image, processor)
    return f"{number} tile" if number == 1 else f"{number} tiles"


def _note(report: Report, reasons: Counter[str], index: int, reason: str) -> None:
    report.num_broken += 1
    if len(report.broken) < _MAX_LISTED:
        report.broken.append(BrokenRow(index + 1, reason))
    kind = re.sub(r"^Row \d+ of '[^']*' ", "", reason)
    kind = re.sub(r"\d+", "N", re.sub(r"'[^']*'", "'...'", kind))
    if kind in reasons or len(reasons) < 10 * _MAX_REASONS:
        reasons[kind] += 1


def _histogram(values: Sequence[int]) -> Histogram | None:
    if not values:
        return None
    data = np.asarray(values, dtype=np.int64)
    low, high = int(data.min()), int(data.max())
    # Whole numbers: bins of equal, whole width.
    width = max(1, -(-(high - low + 1) // _NUM_BINS))
    edges = np.arange(low, high + width + 1, width)
    counts, _ = np.histogram(data, bins=edges)
    return Histogram(
        counts=counts.tolist(),
        edges=edges.tolist(),
        median=float(np.median(data)),
        p95=float(np.quantile(data, 0.95)),
        largest=high,
        total=int(data.sum()),
    )
