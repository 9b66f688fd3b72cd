"""Any table of images, questions and answers, by the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass

from alignvlm.data.formats.base import RecordFormat, as_list, field
from alignvlm.data.formats.conversation import Conversation, Turn, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row, Rows
from alignvlm.data.rows.find import open_rows

__all__ = ["Columns"]


@dataclass(frozen=True, kw_only=True)
class Columns(RecordFormat):
    """A data set from the Hugging Face Hub on disk: saved by `datasets`, or parquet files.

    Attributes:
        image: column of the image or images; "" for text alone.
        question: column of the question; "" for none.
        answer: column of the answer; of several answers the first is trained on.
        prompt: what comes after the question, or stands in its place.
    """

    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    prompt: str = ""

    def rows(self, path: str) -> Rows:
        """See `RecordFormat.rows`."""
        named = [name for name in (self.image, self.question, self.answer) if name]
        return open_rows(path, self.split, named)

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        images = as_list(field(row, self.image)) if self.image else []
        asked = [text_of(field(row, self.question), self.question)] if self.question else []
        answers = as_list(field(row, self.answer))
        if not answers:
            raise BadRowError("has no answer in its list of answers: fill it in or delete the row")
        said = "\n".join(text for text in (*asked, self.prompt) if text)
        turns = [Turn("user", [*[None] * len(images), said])]
        return Conversation([*turns, Turn("assistant", [text_of(answers[0], "answer")])], images)
