"""From rows of files to questions, whatever the files are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

from alignvlm.data.images import FileImage, ImageFolder
from alignvlm.data.rows.base import BadRowError, Place, Row, Rows
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.readers import Asked
from alignvlm.evaluation.benchmarks.record import Benchmark, QuestionSet
from alignvlm.evaluation.question import Question
from alignvlm.imaging.sources import quoted

__all__ = [
    "Form",
    "RowQuestions",
    "check_columns",
    "check_different",
    "check_some",
    "file_image",
    "image_folder",
]


class Form(ABC):
    """What the rows of one file mean."""

    @abstractmethod
    def id(self, row: Row, index: int) -> str:
        """What names row `index`.

        Raises:
            BadRowError: it has no name.
        """

    @abstractmethod
    def asked(self, row: Row, index: int) -> Asked:
        """What row `index` says.

        Raises:
            BadRowError: it lacks something.
        """

    @abstractmethod
    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        """Its images, not decoded.

        Raises:
            BadRowError: one is not there.
        """


@final
class RowQuestions(QuestionSet):
    """Questions that are rows of files.

    Args:
        benchmark: what they belong to.
        home: kind of the home.
        where: the file or folder.
        rows: all of them.
        form: what they mean.
        digest: computes `QuestionSet.digest`; a function that can be sent to other processes.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        home: str,
        where: Path,
        rows: Rows,
        form: Form,
        digest: Callable[[], str],
    ) -> None:
        self.benchmark, self.home, self.where = benchmark, home, str(where)
        self._rows, self._form, self._compute_digest = rows, form, digest

    @cached_property
    def digest(self) -> str:
        """See `QuestionSet.digest`; computed when it is first asked for."""
        return self._compute_digest()

    def __len__(self) -> int:
        return len(self._rows)

    def question(self, index: int) -> Question:
        """See `QuestionSet.question`."""
        place = self._rows.place(index)
        try:
            row = self._rows.row(index)
            name = self._form.id(row, index)
            asked = self._form.asked(row, index)
            images = tuple(self._form.images(row, place))
        except BadRowError as error:
            raise InputError(f"{_called(place)} {error}") from error
        return Question(
            id=name,
            text=asked.text,
            images=images,
            answers=asked.answers,
            measures=asked.measures,
            options=asked.options,
            choices=asked.choices,
            hint=asked.hint,
            group=asked.group,
        )


def check_columns(path: Path, there: Iterable[str], needed: Iterable[str], why: str = "") -> None:
    """Refuse a file without the columns that it should have.

    Args:
        path: the file.
        there: its columns.
        needed: those that it should have.
        why: ends the message.

    Raises:
        InputError: it lacks one.
    """
    there = list(there)
    missing = [name for name in needed if name not in there]
    if missing:
        raise InputError(
            f"{quoted(str(path))} has no column {', '.join(map(quoted, missing))} but "
            f"{', '.join(map(quoted, there[:20]))}: {why or 'check that it is the right file'}"
        )


def check_different(rows: Rows, ids: Iterable[str], what: str) -> None:
    """Refuse rows of which two have one id; empty ids are left out.

    Raises:
        InputError: two have.
    """
    seen: dict[str, int] = {}
    for index, name in enumerate(ids):
        if name and seen.setdefault(name, index) != index:
            first, second = rows.place(seen[name]), rows.place(index)
            raise InputError(
                f"Rows {first.number} and {second.number} of {quoted(str(second.path))} have the "
                f"same {what} {quoted(name)}: give each row its own"
            )


def check_some(path: Path, rows: Rows) -> None:
    """Refuse a file without rows.

    Raises:
        InputError: there is none.
    """
    if not len(rows):
        raise InputError(f"{quoted(str(path))} holds no question: get a complete copy of it")


def image_folder(folder: Path) -> ImageFolder:
    """Where the images of a benchmark lie, with the advice for those that lie elsewhere."""
    return ImageFolder(folder, given=True, remedy="put it there and give its path from there")


def file_image(folder: Path, name: str, place: Place) -> FileImage:
    """An image file that a row names, by its path below a folder.

    Raises:
        BadRowError: it is not there, or lies outside.
    """
    path = image_folder(folder).file(name)
    if not path.is_file():
        raise BadRowError(
            f"names the image {quoted(name)}, which is not in {quoted(str(folder))}: put it there"
        )
    return FileImage(str(path), named_by=_called(place))


def _called(place: Place) -> str:
    return f"Row {place.number} of {quoted(str(place.path))}"
