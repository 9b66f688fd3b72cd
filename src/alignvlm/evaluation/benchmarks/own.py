"""A user's own benchmark: a JSON Lines file of images, questions and answers."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from alignvlm.data.images import FileImage, ImageFolder, image_source
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.data.rows.json_rows import JsonRows, json_lines
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.readers import Asked, group_of, text_of
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.benchmarks.rows import (
    Form,
    RowQuestions,
    check_columns,
    check_different,
    check_some,
    file_of,
)
from alignvlm.evaluation.scorers.registry import MEASURES
from alignvlm.imaging.sources import quoted

__all__ = ["OwnHome", "measures_in"]

_CHOICES = ("seed_choice", "mmmu_choice")


@dataclass(frozen=True, kw_only=True)
class OwnHome(Home):
    """A JSON Lines file.

    Attributes:
        path: the file.
        measure: of rows that name none; "" if all do.
    """

    kind: ClassVar[str] = "jsonl"

    path: Path
    measure: str = ""

    def find(self, place: Path) -> Path | None:
        """See `Home.find`."""
        return place if place.is_file() else None

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """See `Home.open`."""
        rows = json_lines(place)
        check_some(place, rows)
        try:
            fields = rows.row(0).keys()
        except BadRowError as error:
            raise InputError(f"Row 1 of {quoted(str(place))} {error}") from error
        for name, other in (("question", ""), ("answers", "answer"), ("image", "images")):
            if other not in fields:
                check_columns(place, fields, (name,), "give every row image, question and answers")
        names = (_id(row, index) if row else "" for index, row in enumerate(rows.only(("id",))))
        check_different(rows, names, "id")
        form = _OwnForm(self.measure, place.parent)
        return RowQuestions(benchmark, self.kind, place, rows, form)

    @property
    def remedy(self) -> str:
        """See `Home.remedy`."""
        return f"check the path {quoted(str(self.path))}"


@dataclass(frozen=True)
class _OwnForm(Form):
    """Rows of a file in `folder`; `measure` is of those that name none."""

    measure: str
    folder: Path = field(repr=False)

    def id(self, row: Row, index: int) -> str:
        return _id(row, index)

    def asked(self, row: Row, index: int) -> Asked:
        measure = row.get("metric") or self.measure
        if measure not in MEASURES:
            raise BadRowError(
                f"has the metric {quoted(str(measure))}: use one of {', '.join(MEASURES)}"
            )
        text = text_of(row, "question")
        choices = _choices(row)
        options = row.get("options") or {}
        if not isinstance(options, Mapping):
            raise BadRowError("has options that are no object: give them names")
        if measure in _CHOICES:
            if not choices:
                raise BadRowError(f"has no choices, which {quoted(measure)} needs: add them")
            options = {"options": choices, **options}
        if measure == "mmvet":
            options = {"question": text, **options}
        return Asked(
            text=text,
            answers=_answers(row),
            measures=(measure,),
            options=options,
            choices=choices,
            hint=str(row.get("hint") or ""),
            group=group_of(row, "group"),
        )

    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        values = row.get("images") if row.get("images") is not None else row.get("image")
        values = values if isinstance(values, list) else [values]
        if not values or values[0] is None:
            raise BadRowError("has no image: give its path")
        return list(self._sources(values, f"row {place.number} of {place.path.name}"))

    def _sources(self, values: Sequence[Any], where: str) -> Iterator[ImageSource]:
        for number, value in enumerate(values, 1):
            if isinstance(value, str) and not value.startswith("data:"):
                yield FileImage(str(file_of(self.folder, value)))
            else:
                yield image_source(value, ImageFolder(self.folder), f"image {number} of {where}")


def _id(row: Row, index: int) -> str:
    name = row.get("id")
    return str(index + 1) if name is None or name == "" else str(name)


def _answers(row: Row) -> Any:
    answers = row.get("answers") if row.get("answers") is not None else row.get("answer")
    if answers is None or answers == []:
        raise BadRowError("has no answers: give a list of the accepted ones")
    return answers if isinstance(answers, list) else [answers]


def _choices(row: Row) -> dict[str, str]:
    choices = row.get("choices") or {}
    if isinstance(choices, list):
        choices = dict(zip(string.ascii_uppercase, choices, strict=False))
    if not isinstance(choices, Mapping):
        raise BadRowError("has choices that are no list: give their texts in order")
    return {str(letter): str(text) for letter, text in choices.items()}


def measures_in(rows: JsonRows) -> Iterator[str]:
    """The measures that rows name."""
    for row in rows.only(("metric",)):
        if row.get("metric"):
            yield str(row["metric"])
