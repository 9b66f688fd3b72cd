"""Benchmarks as they lie on the Hub: parquet files, images inside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from alignvlm.data.images import image_source
from alignvlm.data.rows.base import BadRowError, ChosenRows, Place, Row, Rows
from alignvlm.data.rows.tables import ParquetRows
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.digests import sha256_of_sizes
from alignvlm.evaluation.benchmarks.readers import Asked, Reader
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.benchmarks.rows import (
    Form,
    RowQuestions,
    check_columns,
    check_different,
    check_some,
    image_folder,
)
from alignvlm.imaging.sources import quoted

__all__ = ["HubHome"]

_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_TIMEOUT_S = 10
_TABLE_SPLIT = "split"


@dataclass(frozen=True, kw_only=True)
class HubHome(Home):
    """Parquet files of one configuration and split, as `datasets` names them.

    Attributes:
        repo: the data set's repository.
        reader: what a row says.
        config: the folder of the configuration, "" for none.
        splits: what the names of the files begin with; the first set of which there are files.
        ids: the columns that together name a row; () for its number.
        images: the columns of images in order.
        images_elsewhere: (configuration, the row's column, the image's id column) where images are
            in files of their own and rows name them.
        only: (column, value) that a row must have to be of the benchmark.
        split_column: whether the split, which a file's name tells, is a field of its rows.
    """

    kind: ClassVar[str] = "hub"

    repo: str
    reader: Reader
    config: str = ""
    splits: tuple[tuple[str, ...], ...] = (("test",),)
    ids: tuple[str, ...] = ()
    images: tuple[str, ...] = ("image",)
    images_elsewhere: tuple[str, str, str] | None = None
    only: tuple[str, str] | None = None
    split_column: bool = False

    def find(self, place: Path) -> Path | None:
        """See `Home.find`."""
        return place if self._files(place, self.config) else None

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """See `Home.open`."""
        files = self._files(place, self.config)
        fields = [*self.reader.columns, *self.reader.optional, *self.ids, *self.images]
        fields += [self.images_elsewhere[1]] if self.images_elsewhere else []
        fields += [self.only[0]] if self.only else []
        rows: Rows = ParquetRows(files, fields)
        if self.split_column:
            rows = _WithSplit(rows)
        check_some(files[0], rows)
        self._check(files[0], rows)
        rows = self._chosen(rows)
        check_some(place, rows)
        form = _HubForm(self.reader, self.ids, self.images, *self._elsewhere(place))
        digest = partial(sha256_of_sizes, [*files, *self._image_files(place)])
        return RowQuestions(benchmark, self.kind, place, rows, form, digest)

    @property
    def remedy(self) -> str:
        """See `Home.remedy`."""
        return f"put the parquet files of https://huggingface.co/datasets/{self.repo} there"

    def fetch(self) -> Path:
        """The folder of the files in the local Hub cache, downloaded if they are not there.

        Raises:
            OSError, ValueError, huggingface_hub's errors: they cannot be had.
        """
        from huggingface_hub import get_session, snapshot_download
        from huggingface_hub.constants import ENDPOINT

        folders = [self.config] + ([self.images_elsewhere[0]] if self.images_elsewhere else [])
        patterns = [
            f"{folder}/{split}-*.parquet" if folder else f"*{split}-*.parquet"
            for folder in folders
            for split in self.splits[0]
        ]
        try:
            folder = Path(
                snapshot_download(
                    self.repo, repo_type="dataset", allow_patterns=patterns, local_files_only=True
                )
            )
            if self.find(folder):
                return folder
        except (OSError, ValueError, InputError):
            pass  # not in the cache, or in part
        # One quick question first: the downloader itself retries for half a minute.
        get_session().head(ENDPOINT, timeout=_TIMEOUT_S)
        return Path(snapshot_download(self.repo, repo_type="dataset", allow_patterns=patterns))

    def _files(self, place: Path, config: str) -> list[Path]:
        if place.is_file():
            return [place] if place.suffix.lower() == ".parquet" else []
        if config and not (place / config).is_dir():
            # Folders below may be other configurations.
            files = sorted(place.glob("*.parquet"))
        else:
            files = sorted((place / config).rglob("*.parquet"))
        for names in (*self.splits, ("",)):
            starts = tuple(f"{name}{end}" for name in names for end in "-._") if names[0] else ""
            chosen = [file for file in files if file.name.startswith(starts)]
            if not names[0] and any(_SHARD.search(file.name) for file in chosen):
                return []  # of other splits
            if chosen:
                _check_whole(chosen)
                return chosen
        return []

    def _chosen(self, rows: Rows) -> Rows:
        """The rows of the benchmark, whose ids must differ; images are not read."""
        column, value = self.only or ("", "")
        names, chosen = [], []
        for index, row in enumerate(rows.only([*self.ids, column])):
            if not self.only or str(row.get(column, value)) == value:
                chosen.append(index)
                names.append(_joined(row, self.ids))
        if self.only:
            rows = ChosenRows(rows, chosen)
        check_different(rows, names, " and ".join(self.ids))
        return rows

    def _check(self, path: Path, rows: Rows) -> None:
        try:
            there = rows.row(0).keys()
        except BadRowError as error:
            raise InputError(f"Row 1 of {quoted(str(path))} {error}") from error
        needed = [*self.reader.columns, *self.ids]
        needed += [self.images_elsewhere[1]] if self.images_elsewhere else self.images[:1]
        check_columns(path, there, dict.fromkeys(needed))

    def _image_files(self, place: Path) -> list[Path]:
        """Those that hold images alone; none where images are in the rows."""
        folder = place / self.images_elsewhere[0] if self.images_elsewhere else None
        return self._files(folder, "") if folder is not None and folder.is_dir() else []

    def _elsewhere(self, place: Path) -> tuple[str, Rows | None, Mapping[str, int]]:
        if self.images_elsewhere is None:
            return "", None, {}
        config, named_by, id_column = self.images_elsewhere
        files = self._image_files(place)
        if not files:
            raise InputError(
                f"{quoted(str(place))} has the questions but not the folder {config!r} with their "
                f"images: get it from https://huggingface.co/datasets/{self.repo}"
            )
        rows = ParquetRows(files, (id_column, self.images[0]))
        found = (str(row.get(id_column, "")) for row in rows.only([id_column]))
        return named_by, rows, {name: index for index, name in enumerate(found) if name}


@dataclass(frozen=True)
class _HubForm(Form):
    """Rows of parquet files; `elsewhere` has images that rows name in the column `named_by`."""

    reader: Reader
    ids: tuple[str, ...]
    image_columns: tuple[str, ...]
    named_by: str
    elsewhere: Rows | None
    numbers: Mapping[str, int]

    def id(self, row: Row, index: int) -> str:
        if not self.ids:
            return str(index + 1)
        name = _joined(row, self.ids)
        if not name:
            raise BadRowError(f"has no {quoted(self.ids[0])}: get the file again")
        return name

    def asked(self, row: Row, index: int) -> Asked:
        return self.reader.read(row)

    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        if self.elsewhere is not None:
            name = str(row.get(self.named_by))
            if name not in self.numbers:
                raise BadRowError(
                    f"names the image {quoted(name)}, which is not among the images: get their "
                    "files again"
                )
            row = self.elsewhere.row(self.numbers[name])
        values = [row.get(column) for column in self.image_columns]
        while values and values[-1] is None:
            values.pop()
        flat = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if not flat or any(value is None for value in flat):
            raise BadRowError(f"has no {quoted(self.image_columns[0])}: get the file again")
        where = f"row {place.number} of {place.path.name}"
        folder = image_folder(place.path.parent)
        return [
            image_source(value, folder, f"image {number} of {where}")
            for number, value in enumerate(flat, 1)
        ]


class _WithSplit(Rows):
    """Rows with the field `split`, the beginning of their file's name."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        split = _SHARD.split(self.place(index).path.stem)[0]
        return {**self._rows.row(index), _TABLE_SPLIT: split}

    def place(self, index: int) -> Place:
        return self._rows.place(index)

    def only(self, names: Sequence[str]) -> Iterator[Row]:
        return self._rows.only(names)


def _joined(row: Row, names: Sequence[str]) -> str:
    values = [row.get(name) for name in names]
    return "" if any(value is None for value in values) else "/".join(map(str, values))


def _check_whole(files: Sequence[Path]) -> None:
    """Refuse a part of the files of a split, whose names say how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for file in files:
        if found := _SHARD.search(file.name):
            name = file.name[: found.start()]
            counts[name] = counts.get(name, (0, 0))[0] + 1, int(found[2])
    for name, (there, total) in counts.items():
        if there < total:
            raise InputError(
                f"{quoted(str(files[0].parent))} holds {there} of the {total} files of "
                f"{quoted(name)}: download the others"
            )
