"""Text with placeholders to messages, and what makes a conversation whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from alignvlm.data.rows.base import BadRowError
from alignvlm.data.sample import Message
from alignvlm.imaging.sources import quoted

__all__ = ["IMAGE", "Conversation", "Part", "Role", "Turn", "split_text", "text_of"]

Role = Literal["system", "user", "assistant"]
Part = str | None
"""Text, or None for an image."""

IMAGE: Final = "<image>"


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: Role
    parts: Sequence[Part]


@dataclass(frozen=True)
class Conversation:
    """What a format makes of a row.

    Attributes:
        turns: in order; what is said first may be an answer, whose images then come before it.
        images: values for `alignvlm.data.images.image_source`, in the order of the image parts.
    """

    turns: Sequence[Turn]
    images: Sequence[Any] = ()

    def messages(self) -> list[Message]:
        """The turns in the form of `alignvlm.data.sample.Message`.

        White space around what is said and after an image is left out: the chat template ends the
        line of an image itself. Before a conversation that begins with an answer stands an empty
        question, which holds the answer's images.

        Raises:
            BadRowError: images and image parts differ in number, an answer or a question is
                empty, the roles do not alternate, or the last word is not an answer.
        """
        turns = _opened([_trimmed(turn) for turn in self.turns])
        expected = ["user", "assistant"] * (len(turns) // 2 + 1)
        for number, (turn, role) in enumerate(zip(_without_system(turns), expected, strict=False)):
            _check(turn, role, number)
        if not turns or turns[-1].role != "assistant":
            raise BadRowError("does not end with an answer: add one, or delete the last question")
        num_parts = sum(part is None for turn in turns for part in turn.parts)
        if num_parts != len(self.images):
            raise BadRowError(
                f"has {_count(num_parts, 'image placeholder')} and "
                f"{_count(len(self.images), 'image')}: give one placeholder for each image"
            )
        return [
            {"role": turn.role, "content": [_content(part) for part in turn.parts]}
            for turn in turns
        ]


def split_text(text: str, placeholder: str = IMAGE) -> list[Part]:
    """The text's parts, an image for each placeholder."""
    parts: list[Part] = []
    for piece in text.split(placeholder):
        parts += [piece, None]
    return parts[:-1]


def text_of(value: Any, what: str) -> str:
    """A field that must be text; numbers are spelled.

    Raises:
        BadRowError: it is something else, or holds halves of characters.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        found = "no" if value is None else f"a {type(value).__name__} as"
        raise BadRowError(f"has {found} {what}: give it as text")
    if re.search(r"[\ud800-\udfff]", value):
        raise BadRowError(f"has a {what} with half a character in it: save the file as UTF-8 again")
    return value


def _trimmed(turn: Turn) -> Turn:
    """Without white space at both ends and after images, and without empty parts."""
    parts: list[Part] = []
    for index, part in enumerate(turn.parts):
        text = part
        if text is not None and (index == 0 or turn.parts[index - 1] is None):
            text = text.lstrip()
        if text is not None and index == len(turn.parts) - 1:
            text = text.rstrip()
        if text != "":
            parts.append(text)
    return replace(turn, parts=parts)


def _opened(turns: list[Turn]) -> list[Turn]:
    """A pretraining row, one answer with its images, gets the question that the template needs."""
    if turns and turns[0] == Turn("system", []):
        turns = turns[1:]
    first = 1 if turns and turns[0].role == "system" else 0
    if len(turns) <= first or turns[first].role != "assistant":
        return turns
    images = [part for part in turns[first].parts if part is None]
    rest = [part for part in turns[first].parts if part is not None]
    opening = Turn("user", images)
    return [*turns[:first], opening, replace(turns[first], parts=rest), *turns[first + 1 :]]


def _without_system(turns: list[Turn]) -> list[Turn]:
    if turns and turns[0].role == "system":
        if None in turns[0].parts:
            raise BadRowError("has an image in its system message: move it to a question")
        return turns[1:]
    return turns


def _check(turn: Turn, role: str, number: int) -> None:
    name = {"user": "question", "assistant": "answer"}
    if turn.role != role:
        raise BadRowError(
            f"has {quoted(turn.role)} where the {name[role]} of turn {number // 2 + 1} is due: "
            "questions and answers must take turns"
        )
    if role == "assistant" and None in turn.parts:
        raise BadRowError("has an image in an answer: move it to the question")
    if not turn.parts and (role == "assistant" or number > 0):
        raise BadRowError(
            f"has an empty {name[role]} in turn {number // 2 + 1}: fill it in or delete the row"
        )


def _content(part: Part) -> dict[str, str]:
    return {"type": "image"} if part is None else {"type": "text", "text": part}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
