"""LLaVA's conversations: its JSON files, its pretraining set, and LLaVA-NeXT's parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from alignvlm.data.formats.base import RecordFormat, as_list, first_field, mappings
from alignvlm.data.formats.conversation import Conversation, Role, Turn, split_text, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.imaging.sources import quoted

__all__ = ["Llava", "LlavaNext", "LlavaPretrain"]

_ROLES: dict[str, Role] = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant",
    "assistant": "assistant",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Llava(RecordFormat):
    """`conversations` of `{"from": "human" | "gpt", "value": ...}`, and `image`.

    `<image>` may stand anywhere in what a human says; `image` is a path, several, or absent.
    """

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        if row.get("video"):
            raise BadRowError("has a video, which training does not use: remove the row")
        return Conversation(list(_turns(row)), as_list(first_field(row, ("image", "images"))))


@dataclass(frozen=True, kw_only=True)
class LlavaPretrain(Llava):
    """LLaVA-558K: captions, each after one of a few instructions to describe the image.

    Attributes:
        keep_prompt: show the instruction. The default leaves it out, as LLaVA's own pretraining
            does with its template "plain": the image is followed by its caption.
    """

    keep_prompt: bool = False

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        said = super().conversation(row, place)
        if self.keep_prompt:
            return said
        turns = [
            replace(turn, parts=[None for part in turn.parts if part is None])
            if turn.role == "user"
            else turn
            for turn in said.turns
        ]
        return Conversation(turns, said.images)


@dataclass(frozen=True, kw_only=True)
class LlavaNext(Llava):
    """LLaVA-NeXT-779K as parquet: as LLaVA, the images in the file; rows without one are text."""

    columns: ClassVar[tuple[str, ...] | None] = ("id", "conversations", "image")


def _turns(row: Row) -> Iterator[Turn]:
    for turn in mappings(row.get("conversations"), "conversations"):
        speaker = turn.get("from")
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise BadRowError(f"has a turn from {quoted(str(speaker))}: use {', '.join(_ROLES)}")
        yield Turn(_ROLES[speaker], split_text(text_of(turn.get("value"), "value of a turn")))
