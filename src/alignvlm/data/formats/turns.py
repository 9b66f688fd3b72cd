"""The Cauldron and FineVision: images, and questions with answers about all of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from alignvlm.data.formats.base import RecordFormat, as_list, first_field, mappings
from alignvlm.data.formats.conversation import Conversation, Turn, text_of
from alignvlm.data.rows.base import BadRowError, ChosenRows, Place, Row, Rows
from alignvlm.errors import InputError

__all__ = ["Cauldron", "FineVision"]


@dataclass(frozen=True, kw_only=True)
class Cauldron(RecordFormat):
    """`images` and `texts`, a list of `{"user": ..., "assistant": ...}`.

    All images stand before the first question.
    """

    columns: ClassVar[tuple[str, ...] | None] = ("images", "image", "texts")

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        images = as_list(first_field(row, ("images", "image")))
        return Conversation(list(self._turns(row, len(images))), images)

    def _turns(self, row: Row, num_images: int) -> Iterator[Turn]:
        first = True
        for number, text in enumerate(mappings(row.get("texts"), "texts")):
            if not self.is_wanted(row, number):
                continue
            asked = text_of(text.get("user"), "user's text")
            yield Turn("user", [*[None] * (num_images if first else 0), asked])
            yield Turn("assistant", [text_of(text.get("assistant"), "assistant's text")])
            first = False

    def is_wanted(self, row: Row, number: int) -> bool:
        """Whether to train on a turn."""
        return True


@dataclass(frozen=True, kw_only=True)
class FineVision(Cauldron):
    """As the Cauldron, with ratings of every turn from 1 to 5.

    A turn without a rating passes. Rows of which no turn passes are left out when the files are
    opened, for which their ratings, not their images, are read once.

    Attributes:
        min_relevance, min_image_correspondence, min_visual_dependency, min_formatting: lowest
            rating of a turn to train on; 1 takes all.
    """

    columns: ClassVar[tuple[str, ...] | None] = (
        "images", "texts", "relevance_ratings", "image_correspondence_ratings",
        "visual_dependency_ratings", "formatting_ratings",
    )  # fmt: skip

    min_relevance: int = 1
    min_image_correspondence: int = 1
    min_visual_dependency: int = 1
    min_formatting: int = 1

    def is_wanted(self, row: Row, number: int) -> bool:
        """Whether a turn's ratings are high enough."""
        return all(
            rating is None or rating >= least
            for ratings, least in self._ratings(row)
            for rating in ratings[number : number + 1]
        )

    def choose(self, rows: Rows) -> Rows:
        """See `RecordFormat.choose`."""
        lowest = self._lowest()
        if not lowest:
            return rows
        kept = array(
            "q",
            (index for index, row in enumerate(rows.only(tuple(lowest))) if self._has_wanted(row)),
        )
        if not kept:
            raise InputError("No row has ratings as high as asked for: lower the least ratings")
        return ChosenRows(rows, kept)

    def _has_wanted(self, row: Row) -> bool:
        """Whether any turn passes; a row whose ratings cannot be read is kept, to be reported."""
        try:
            num_turns = max((len(ratings) for ratings, _ in self._ratings(row)), default=0)
        except BadRowError:
            return True
        return not num_turns or any(self.is_wanted(row, number) for number in range(num_turns))

    def _lowest(self) -> dict[str, int]:
        """The least ratings that leave anything out, by column."""
        names = [option.name for option in fields(self) if option.name.startswith("min_")]
        asked = {f"{name.removeprefix('min_')}_ratings": getattr(self, name) for name in names}
        return {name: least for name, least in asked.items() if least > 1}

    def _ratings(self, row: Row) -> Iterator[tuple[Sequence[float | None], int]]:
        for name, least in self._lowest().items():
            ratings = row.get(name)
            if ratings is None:
                continue
            if not isinstance(ratings, (list, tuple)) or not all(
                rating is None or isinstance(rating, (int, float)) for rating in ratings
            ):
                raise BadRowError(f"has {name} that are no list of numbers: repair them")
            yield ratings, least
