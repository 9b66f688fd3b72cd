"""What every format is: options, and how a row becomes a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from alignvlm.data.formats.conversation import Conversation
from alignvlm.data.images import ImageFolder, image_source
from alignvlm.data.rows.base import BadRowError, Place, Row, Rows
from alignvlm.data.rows.find import open_rows
from alignvlm.data.sample import DataSource, Sample
from alignvlm.errors import ConfigurationError, InputError
from alignvlm.imaging.sources import quoted

__all__ = ["Format", "RecordFormat", "RecordSource", "as_list", "field", "first_field", "mappings"]


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """A kind of source; its fields are the source's options."""

    @abstractmethod
    def open(self, name: str, path: str | None) -> DataSource:
        """The source.

        Args:
            name: of the format, which becomes the source's.
            path: of its files.

        Raises:
            ConfigurationError: an option is out of range, or the path is missing.
            InputError: the files cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class RecordFormat(Format):
    """A format of rows in files.

    Attributes:
        images: folder that paths of images are relative to; None is the folder of the row's file.
        split: where names of files tell splits apart, the one to read.
    """

    columns: ClassVar[tuple[str, ...] | None] = None
    """The only columns that tables are read for; None for all."""

    images: str | None = None
    split: str = "train"

    @abstractmethod
    def conversation(self, row: Row, place: Place) -> Conversation:
        """What a row says.

        Raises:
            BadRowError: it lacks something.
        """

    def open(self, name: str, path: str | None) -> DataSource:
        """See `Format.open`."""
        if not path:
            raise ConfigurationError(f"The source {name!r} needs files: give its path")
        if self.images is not None and not Path(self.images).expanduser().is_dir():
            raise InputError(f"There is no images folder {quoted(self.images)}: check its path")
        return RecordSource(name, self.choose(self.rows(path)), self, Path(path).expanduser())

    def rows(self, path: str) -> Rows:
        """All rows of the files."""
        return open_rows(path, self.split, self.columns)

    def choose(self, rows: Rows) -> Rows:
        """The rows that the options ask for; all of them, unless a format has such options."""
        return rows

    def image_folder(self, place: Place) -> ImageFolder:
        """Where the images of a row lie."""
        if self.images is None:
            return ImageFolder(place.path.parent)
        return ImageFolder(Path(self.images).expanduser(), given=True)


@final
class RecordSource(DataSource):
    """Rows of files, read in one format.

    Args:
        name: of the format.
        rows: where the rows come from.
        form: what they mean.
        folder: keys name files by their path in it, if they are in it, else by their name.
    """

    def __init__(self, name: str, rows: Rows, form: RecordFormat, folder: Path) -> None:
        self.name = name
        self._rows, self._form, self._folder = rows, form, folder

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self) -> Sequence[int]:
        """See `DataSource.blocks`."""
        return self._rows.blocks()

    def read(self, index: int) -> Sample:
        """See `DataSource.read`."""
        if not 0 <= index < len(self._rows):
            raise IndexError(index)
        place = self._rows.place(index)
        inside = place.path != self._folder and place.path.is_relative_to(self._folder)
        file = place.path.relative_to(self._folder) if inside else place.path.name
        where = f"{file}:{place.number}"
        try:
            conversation = self._form.conversation(self._rows.row(index), place)
            folder = self._form.image_folder(place)
            images = [
                image_source(value, folder, f"image {number} of {where}")
                for number, value in enumerate(conversation.images, 1)
            ]
            return Sample(key=where, messages=conversation.messages(), images=images)
        except BadRowError as error:
            raise InputError(f"Row {place.number} of {quoted(str(place.path))} {error}") from error


def field(row: Row, name: str) -> Any:
    """A field that a row must have.

    Raises:
        BadRowError: it is missing.
    """
    if row.get(name) is None:
        raise BadRowError(f"has no {quoted(name)}: add it, or choose another source than this one")
    return row[name]


def first_field(row: Row, names: Sequence[str]) -> Any:
    """The first of several fields that a row has, or None."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def as_list(value: Any) -> list[Any]:
    """A list's elements that are not None, or a single value as a list, or nothing for None."""
    if value is None:
        return []
    values = value if isinstance(value, (list, tuple)) else [value]
    return [element for element in values if element is not None]


def mappings(value: Any, what: str) -> Iterator[Mapping[str, Any]]:
    """The elements of a list of objects.

    Raises:
        BadRowError: it is none.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRowError(f"has no list of {what}: give it one")
    for element in value:
        if not isinstance(element, Mapping):
            raise BadRowError(f"has {what} that are no objects: give each its fields")
        yield element
