"""The native format: messages with images, as MS-Swift and TRL write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, cast

from alignvlm.data.formats.base import RecordFormat, as_list, field, first_field, mappings
from alignvlm.data.formats.conversation import Conversation, Part, Role, Turn, split_text, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.imaging.sources import quoted

__all__ = ["Messages"]

_ROLES: Final = ("system", "user", "assistant")
# What changes a row's meaning and is not trained on here: leaving it out would teach another row.
_UNREAD: Final = ("videos", "audios", "tools", "objects", "rejected_response", "rejected_messages")


@dataclass(frozen=True, kw_only=True)
class Messages(RecordFormat):
    """`messages` and `images`.

    A message has a `role`, system, user or assistant, and a `content`: a string, in which each
    `<image>` stands for the next of `images`, or a list of parts such as
    `{"type": "text", "text": ...}` and `{"type": "image"}`, which may bring their image along. In
    a list, `<image>` is text like any other. `query` and `response`, with `system` and `history`,
    are read too. A row that is one assistant message, `"<image>a caption"`, is for pretraining.
    """

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        for name in _UNREAD:
            if row.get(name):
                raise BadRowError(f"has {quoted(name)}, which training does not use: remove them")
        waiting = iter(as_list(first_field(row, ("images", "image"))))
        images: list[Any] = []
        turns = list(_pairs(row) if row.get("messages") is None else _messages(row))
        parts = [[_take(part, waiting, images) for part in turn] for _, turn in turns]
        images += waiting  # those that no part stands for
        return Conversation(
            [Turn(role, said) for (role, _), said in zip(turns, parts, strict=True)], images
        )


class _Brought:
    """An image that a part of a message brings along."""

    def __init__(self, value: Any) -> None:
        self.value = value


_Parts = list[Part | _Brought]


def _take(part: Part | _Brought, waiting: Iterator[Any], images: list[Any]) -> Part:
    """The part, its image being moved to `images`; one that is missing shows in their number."""
    if isinstance(part, _Brought):
        images.append(part.value)
        return None
    if part is None:
        images += islice(waiting, 1)
    return part


def _messages(row: Row) -> Iterator[tuple[Role, _Parts]]:
    for message in mappings(row["messages"], "messages"):
        role = message.get("role")
        if role not in _ROLES:
            raise BadRowError(f"has a message of role {quoted(str(role))}: use {', '.join(_ROLES)}")
        loss = message.get("loss")
        if (loss is not None and not loss) or message.get("loss_scale") not in (None, 1):
            raise BadRowError("weighs the loss of a message, which training does not: remove it")
        yield cast(Role, role), _content(message.get("content"))


def _content(content: Any) -> _Parts:
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, (list, tuple)):
        return list(split_text(text_of(content, "content of a message")))
    parts: _Parts = []
    for part in content:
        if isinstance(part, str):
            parts.append(text_of(part, "text"))
        elif isinstance(part, Mapping):
            parts.append(_part(part))
        else:
            raise BadRowError("has a part of a message that is neither text nor object: repair it")
    return parts


def _part(part: Mapping[str, Any]) -> Part | _Brought:
    kind = part.get("type")
    if kind == "text":
        return text_of(part.get("text"), "text of a part")
    if kind == "image":
        value = first_field(part, ("image", "path", "url", "bytes"))
        return None if value is None else _Brought(value)
    if kind == "image_url":
        value = part.get("image_url")
        return _Brought(value.get("url") if isinstance(value, Mapping) else value)
    raise BadRowError(f"has a part of type {quoted(str(kind))}: use text, image or image_url")


def _pairs(row: Row) -> Iterator[tuple[Role, _Parts]]:
    """The turns of a row with query and response."""
    response = field(row, "response")
    if row.get("system") is not None:
        yield "system", [text_of(row["system"], "system")]
    history = as_list(row.get("history"))
    for pair in [*history, [row.get("query"), response]]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise BadRowError("has a history that is no list of pairs: give questions and answers")
        query, answer = pair
        if query is not None:
            yield "user", list(split_text(text_of(query, "query")))
        yield "assistant", list(split_text(text_of(answer, "response")))
