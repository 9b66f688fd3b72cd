"""A user's own benchmark: a JSON Lines file of images, questions and answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from alignvlm.data.images import image_source
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.data.rows.json_rows import JsonRows, json_lines
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.own_row import ROW_MEASURES, asked_in, id_of
from alignvlm.evaluation.benchmarks.readers import Asked
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.benchmarks.rows import (
    Form,
    RowQuestions,
    check_columns,
    check_different,
    check_some,
    file_image,
    image_folder,
)
from alignvlm.imaging.sources import quoted
from alignvlm.weights.cache import sha256_of

__all__ = ["OwnHome", "measures_in"]


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
        names = (_name(row, index) for index, row in enumerate(rows.only(("id",))))
        check_different(rows, names, "id")
        form = _OwnForm(self.measure, place.parent)
        return RowQuestions(benchmark, self.kind, place, rows, form, partial(sha256_of, place))

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
        return id_of(row, index)

    def asked(self, row: Row, index: int) -> Asked:
        return asked_in(row, self.measure)

    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        values = row.get("images") if row.get("images") is not None else row.get("image")
        values = values if isinstance(values, list) else [values]
        if not values or values[0] is None:
            raise BadRowError("has no image: give its path")
        return list(self._sources(values, place))

    def _sources(self, values: Sequence[Any], place: Place) -> Iterator[ImageSource]:
        for number, value in enumerate(values, 1):
            if isinstance(value, str) and not value.startswith("data:"):
                yield file_image(self.folder, value, place)
            else:
                called = f"image {number} of row {place.number} of {place.path.name}"
                yield image_source(value, image_folder(self.folder), called)


def _name(row: Row, index: int) -> str:
    """The id of a row, "" of one that is broken."""
    try:
        return id_of(row, index) if row else ""
    except BadRowError:
        return ""


def measures_in(rows: JsonRows) -> Iterator[str]:
    """The measures that rows name; what is no measure of rows is left to them."""
    for row in rows.only(("metric",)):
        if row.get("metric") in ROW_MEASURES:
            yield str(row["metric"])
