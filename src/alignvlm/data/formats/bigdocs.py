"""BigDocs-7.5M, whose columns differ from part to part, and some of whose images are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from alignvlm.data.formats.base import RecordFormat, as_list, first_field
from alignvlm.data.formats.conversation import IMAGE, Conversation, Turn, split_text, text_of
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.imaging.sources import quoted

__all__ = ["DOWNLOADS", "BigDocs"]

DOWNLOADS: Final = {
    "cocotext": "the train2014 images of COCO",
    "textocr": "the training images of TextOCR",
    "pubtables-1m": "PubTables-1M-Detection",
    "tabfact": "Table-Fact-Checking",
    "open4business": "Open4Business",
    "wikitq": "WikiTableQuestions",
}
"""What has to be downloaded for the parts that come without images, by the part's name."""

_IMAGES = ("image", "images")
_QUERIES = ("query", "queries", "question", "questions")
_ANSWERS = ("annotations", "annotation", "answers", "answer")
_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True, kw_only=True)
class BigDocs(RecordFormat):
    """Images, queries and annotations, each one or several.

    As many annotations as queries are turns of one conversation; of several annotations to one
    query the first is the answer. Placeholders in the text are ignored: all images come first.
    A row without an image names one by `img_id`: a file of that name, with or without a suffix, in
    the folder `images`.
    """

    columns: ClassVar[tuple[str, ...] | None] = (
        "sample_id", "identifier", "img_id", *_IMAGES, *_QUERIES, *_ANSWERS,
    )  # fmt: skip

    def conversation(self, row: Row, place: Place) -> Conversation:
        """See `RecordFormat.conversation`."""
        images = as_list(first_field(row, _IMAGES)) or [self._downloaded(row, place)]
        queries = as_list(first_field(row, _QUERIES))
        answers = as_list(first_field(row, _ANSWERS))
        if not queries or not answers:
            missing, names = ("annotation", _ANSWERS) if queries else ("query", _QUERIES)
            raise BadRowError(f"has no {missing}: one of {', '.join(names)} must hold it")
        if len(queries) == 1:
            answers = answers[:1]
        if len(queries) != len(answers):
            raise BadRowError(
                f"has {len(queries)} queries and {len(answers)} annotations: give as many of both"
            )
        turns: list[Turn] = []
        for query, answer in zip(queries, answers, strict=True):
            asked = [part for part in split_text(text_of(query, "query"), IMAGE) if part]
            turns.append(Turn("user", asked if turns else [*([None] * len(images)), *asked]))
            turns.append(Turn("assistant", [text_of(answer, "annotation")]))
        return Conversation(turns, images)

    def _downloaded(self, row: Row, place: Place) -> Any:
        """The path of an image that the data set only names."""
        if row.get("img_id") is None:
            raise BadRowError("has neither an image nor an img_id: get the file again")
        name = text_of(row["img_id"], "img_id")
        parts = (part.lower() for part in place.path.parts)
        download = next((DOWNLOADS[part] for part in parts if part in DOWNLOADS), None)
        remedy = f"download {download or 'what this part of BigDocs names as its images'}"
        if self.images is None:
            raise BadRowError(
                f"comes without its image {quoted(name)}: {remedy}, and set the option images to "
                "that folder"
            )
        stem = self.image_folder(place).file(name)
        for suffix in _SUFFIXES:
            if Path(f"{stem}{suffix}").is_file():
                return f"{name}{suffix}"
        raise BadRowError(
            f"needs the image {quoted(name)}, which is not in {quoted(self.images)}: {remedy} into "
            "that folder"
        )
