"""DocDownstream and VCR: what the paper's third stage trains on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from alignvlm.data.formats.base import RecordFormat, as_list, field, mappings
from alignvlm.data.formats.conversation import Conversation, Role, Turn, split_text, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.imaging.sources import quoted

__all__ = ["VCR_PROMPT", "DocDownstream", "Vcr"]

VCR_PROMPT: Final = (
    "What is the covered texts in the image? Please restore the covered texts without outputting "
    "the explanations."
)
"""The benchmark's own question for English; it asks no other."""

_PLACEHOLDER = "<|image|>"
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class DocDownstream(RecordFormat):
    """DocOwl's `messages` with `<|image|>`, and `image`, a list of paths."""

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        return Conversation(list(_turns(row)), as_list(field(row, "image")))


def _turns(row: Row) -> Iterator[Turn]:
    for message in mappings(row.get("messages"), "messages"):
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise BadRowError(f"has a message of role {quoted(str(role))}: use {', '.join(_ROLES)}")
        content = text_of(message.get("content"), "content of a message")
        yield Turn(_ROLES[role], split_text(content, _PLACEHOLDER))


@dataclass(frozen=True, kw_only=True)
class Vcr(RecordFormat):
    """VCR-wiki: an image whose caption is partly covered, and the covered texts.

    The data set has no questions and answers: these are the benchmark's question on
    `stacked_image`, and `crossed_text` in order, one to a line. How the paper writes the answer
    is not stated; the metric looks for each text anywhere in it.

    Attributes:
        prompt: the question.
    """

    columns: ClassVar[tuple[str, ...] | None] = ("stacked_image", "crossed_text")

    prompt: str = VCR_PROMPT

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        image = field(row, "stacked_image")
        covered = (
            [text_of(text, "crossed_text").strip() for text in as_list(row["crossed_text"])]
            if row.get("crossed_text") is not None
            else []
        )
        if not covered or not all(covered):
            raise BadRowError("has no crossed_text, or an empty one: get the file again")
        turns = [Turn("user", [None, self.prompt]), Turn("assistant", ["\n".join(covered)])]
        return Conversation(turns, [image])
