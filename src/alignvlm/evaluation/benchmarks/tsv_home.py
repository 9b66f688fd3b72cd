"""Benchmarks as VLMEvalKit publishes them: one TSV file each, images inside as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from alignvlm.data.images import BytesImage
from alignvlm.data.rows.base import BadRowError, ChosenRows, Place, Row, Rows
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.published import PUBLISHED_MD5
from alignvlm.evaluation.benchmarks.readers import Asked, Reader, literal_texts, text_of
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.benchmarks.rows import (
    Form,
    RowQuestions,
    check_columns,
    check_different,
    check_some,
    file_image,
)
from alignvlm.evaluation.benchmarks.tsv import TsvRows
from alignvlm.imaging.sources import quoted

__all__ = ["TsvHome"]


@dataclass(frozen=True, kw_only=True)
class TsvHome(Home):
    """A TSV file.

    A file that is called as a published one must be it, byte for byte; call a file of your own,
    e.g. a part of the rows, by another name.

    Attributes:
        url: where the first of the published files is.
        files: names of the published files, the one that is preferred first.
        reader: what a row says.
        only_split: the rows of this split are the benchmark; "" for all rows.
    """

    kind: ClassVar[str] = "tsv"

    url: str
    files: tuple[str, ...]
    reader: Reader
    only_split: str = ""

    def find(self, place: Path) -> Path | None:
        """See `Home.find`."""
        if place.is_file():
            return place if self._may_be(place) else None
        published = (place / name for name in self.files)
        if found := next((path for path in published if path.is_file()), None):
            return found
        files = sorted(filter(self._may_be, place.glob("*.tsv")))
        if len(files) > 1:
            raise InputError(
                f"{quoted(str(place))} holds several TSV files, such as {files[0].name} and "
                f"{files[1].name}: name the one to read"
            )
        return files[0] if files else None

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """See `Home.open`."""
        tsv = TsvRows(place)
        self._check(tsv, place)
        rows: Rows = tsv
        if self.only_split:
            rows = ChosenRows(
                tsv, [i for i, split in enumerate(tsv.splits()) if split in (self.only_split, "")]
            )
        check_some(place, rows)
        form = _TsvForm(self.reader, place.parent)
        return RowQuestions(benchmark, self.kind, place, rows, form, tsv.digest)

    @property
    def remedy(self) -> str:
        """See `Home.remedy`."""
        return f"download {self.url} into that folder"

    @property
    def md5(self) -> dict[str, str]:
        """Of the published files, by name."""
        return {name: PUBLISHED_MD5[name] for name in self.files}

    def _may_be(self, path: Path) -> bool:
        """Whether it is a TSV file and not another benchmark's, or another split's."""
        known = path.name in PUBLISHED_MD5 and path.name not in self.files
        return path.suffix.lower() == ".tsv" and not known

    def _check(self, tsv: TsvRows, place: Path) -> None:
        expected = self.md5.get(place.name)
        if expected and tsv.md5 != expected:
            raise InputError(
                f"{quoted(str(place))} has the MD5 {tsv.md5} and not the published {expected}: "
                "download it again, or rename it if it is meant to differ"
            )
        check_columns(
            place,
            tsv.columns,
            ("index", *self.reader.columns),
            "use a file whose answers are public, such as a validation split"
            if "answer" not in tsv.columns
            else "",
        )
        if not {"image", "image_path"} & set(tsv.columns):
            check_columns(place, tsv.columns, ("image",))
        check_different(tsv, tsv.ids(), "index")


@dataclass(frozen=True)
class _TsvForm(Form):
    """Rows of a TSV file that lies in `folder`."""

    reader: Reader
    folder: Path = field(repr=False)

    def id(self, row: Row, index: int) -> str:
        return text_of(row, "index")

    def asked(self, row: Row, index: int) -> Asked:
        return self.reader.read(row)

    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        where = f"row {place.number} of {place.path.name}"
        if row.get("image"):
            cells = _elements(row["image"])
            return [
                BytesImage(_content(cell), f"image {number} of {where}")
                for number, cell in enumerate(cells, 1)
            ]
        if not row.get("image_path"):
            raise BadRowError("has no image: get the file again")
        text = row["image_path"]
        return [file_image(self.folder, name, place) for name in literal_texts(text) or [text]]


def _elements(cell: str) -> list[str]:
    """The base64 texts of a cell: one, or the text of a list; base64 has no comma and no quote."""
    if not cell.startswith("["):
        return [cell]
    return [element.strip().strip("'\"") for element in cell.strip().strip("[]").split(",")]


def _content(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise BadRowError("has an image that is not base64: get the file again")
    return content
