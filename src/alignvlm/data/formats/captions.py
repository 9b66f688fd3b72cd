"""Conceptual 12M: images with the text that stood beside them on the web."""

from __future__ import annotations

import json
from dataclasses import dataclass

from alignvlm.data.formats.base import RecordFormat
from alignvlm.data.formats.conversation import Conversation, Turn, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row

__all__ = ["Cc12m"]

_IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True)
class Cc12m(RecordFormat):
    """WebDataset shards as img2dataset writes them: `jpg`, `txt` and `json` of each image.

    Attributes:
        prompt: what asks for the caption. The paper states none; by default there is none, and
            the image is followed by its caption.
    """

    prompt: str = ""

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        image = next((row[name] for name in _IMAGES if row.get(name)), None)
        if image is None:
            raise BadRowError(f"has no image ({', '.join(_IMAGES)}): get the shard again")
        turns = [Turn("user", [None, self.prompt]), Turn("assistant", [_caption(row)])]
        return Conversation(turns, [image])


def _caption(row: Row) -> str:
    """The text file, or the caption that the JSON file repeats."""
    try:
        if row.get("txt"):
            return _decoded(row["txt"])
        described = json.loads(_decoded(row.get("json") or b"{}"))
    except (ValueError, RecursionError):
        raise BadRowError("has a description that is not valid JSON in UTF-8: drop it") from None
    caption = described.get("caption") if isinstance(described, dict) else None
    return text_of(caption, "caption")


def _decoded(content: object) -> str:
    if isinstance(content, bytes):
        return content.decode("utf-8")
    return text_of(content, "caption")
