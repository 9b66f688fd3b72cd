"""Rows of VLMEvalKit's TSV files, which hold images as base64 and may be larger than memory.

A file is read once from beginning to end, for its MD5, for where rows begin and end, and for the
row whose image another row names; this is kept in the cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import numpy as np

from alignvlm.data.rows.base import BadRowError, Place, Row, Rows
from alignvlm.data.rows.index import Index, indexed
from alignvlm.data.rows.json_rows import MAX_ROW_BYTES
from alignvlm.errors import InputError
from alignvlm.imaging.sources import quoted

__all__ = ["MAX_REFERENCE", "TsvRows"]

MAX_REFERENCE: Final = 64
"""An image cell of at most so many characters names the row that has the image (VLMEvalKit)."""

_MAX_ID_BYTES = 256
_MAX_SPLIT_BYTES = 64
_NO_IMAGE, _OWN_IMAGE = -2, -1
_BOM = b"\xef\xbb\xbf"


class TsvRows(Rows):
    """Rows by number; the image of a row that names another row is that row's.

    Args:
        path: the file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or has no header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            index = indexed(path, "benchmark-tsv-1", _scan)
        except OSError as error:
            raise InputError(
                f"{quoted(str(path))} cannot be read ({error.strerror}): check the disk"
            ) from error
        self.md5: str = index["md5"][0].decode()
        self.columns = _decoded(path, index["columns"].tolist())
        self._places = index["places"]
        self._images = index["images"]
        self._ids = index["ids"]
        self._splits = index["splits"]

    def __len__(self) -> int:
        return len(self._places)

    def digest(self) -> str:
        """The MD5 of all bytes."""
        return self.md5

    def place(self, index: int) -> Place:
        """Rows are counted from 1 after the header."""
        return Place(self.path, index + 1)

    def ids(self) -> list[str]:
        """The column `index` of every row; "" of a broken one."""
        return [value.decode("utf-8", "replace") for value in self._ids.tolist()]

    def splits(self) -> list[str]:
        """The column `split` of every row, "" where there is none."""
        return [value.decode("utf-8", "replace") for value in self._splits.tolist()]

    def row(self, index: int) -> Row:
        """See `Rows.row`; cells are texts."""
        row = self._own(index)
        image = int(self._images[index])
        if image == _OWN_IMAGE or "image" not in row:
            return row
        if image == _NO_IMAGE:
            if row["image"]:
                raise BadRowError(
                    f"takes its image from the row {quoted(row['image'])}, which is not there or "
                    "has none: get the file again"
                )
            return row
        return row | {"image": self._own(image)["image"]}

    def _own(self, index: int) -> dict[str, str]:
        start, end = self._places[index].tolist()
        if end - start > MAX_ROW_BYTES:
            raise BadRowError(
                f"is larger than {MAX_ROW_BYTES / 1e6:g} MB: move its images to files"
            )
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                content = file.read(end - start)
        except OSError as error:
            raise BadRowError(f"cannot be read ({error.strerror}): check the disk") from error
        _, _, cells = next(_records(BytesIO(content)), (0, 0, None))
        if cells is None:
            raise BadRowError("has a quotation mark that nothing closes: get the file again")
        if len(cells) != len(self.columns):
            raise BadRowError(
                f"has {len(cells)} cells where the header has {len(self.columns)}: get the file "
                "again"
            )
        try:
            return {name: cell.decode() for name, cell in zip(self.columns, cells, strict=True)}
        except UnicodeDecodeError:
            raise BadRowError("is not UTF-8: save the file in that encoding") from None


Cells = Sequence[bytes] | None
"""The cells of a row; None where they cannot be told apart."""


def _records(file: IO[bytes]) -> Iterator[tuple[int, int, Cells]]:
    """(first byte, byte after the last, cells) of every row; blank lines are none.

    Cells are quoted as in CSV, and a quoted cell may hold line breaks. A row without any quotation
    mark, as most are, is cut at its tabs.
    """
    end = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        start, end = end, end + len(line)
        line = line.removeprefix(_BOM) if start == 0 else line
        bare = line.rstrip(b"\r\n")
        if not bare:
            continue
        if b'"' in bare or b"\r" in bare:
            row = bytearray(line)
            cells = _quoted_cells(row, file)
            end += len(row) - len(line)
            yield start, end, cells
        else:
            yield start, end, bare.split(b"\t")


def _quoted_cells(row: bytearray, file: IO[bytes]) -> Cells:
    """The cells of a row, whose further lines are read as its quoted cells need them."""
    cells = []
    at = 0
    while True:
        if row[at : at + 1] == b'"':
            close = _closing(row, at + 1, file)
            if close is None:
                return None
            cells.append(bytes(row[at + 1 : close]).replace(b'""', b'"'))
            at = close + 1
        else:
            tab = row.find(b"\t", at)
            cell = bytes(row[at:tab] if tab >= 0 else row[at:].rstrip(b"\r\n"))
            if b"\r" in cell:
                return None
            cells.append(cell)
            at += len(cell)
        if row[at : at + 1] != b"\t":
            return None if row[at:].strip(b"\r\n") else cells
        at += 1


def _closing(row: bytearray, at: int, file: IO[bytes]) -> int | None:
    """Where the quotation mark is that closes the cell; a doubled one is text."""
    while True:
        found = row.find(b'"', at)
        if found >= 0 and row[found + 1 : found + 2] != b'"':
            return found
        if found >= 0:
            at = found + 2
            continue
        at = max(at, len(row))
        more = file.readline(MAX_ROW_BYTES + 1) if len(row) <= MAX_ROW_BYTES else b""
        if not more:
            return None
        row += more


def _decoded(path: Path, columns: Sequence[bytes]) -> list[str]:
    """The header as texts; UTF-16, as spreadsheets save it, has NULs if it decodes at all."""
    try:
        found = [name.decode() for name in columns]
    except UnicodeDecodeError:
        found = ["\0"]
    if any("\0" in name for name in found):
        raise InputError(f"{quoted(str(path))} is not UTF-8: save the file in that encoding")
    return found


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.md5 = hashlib.md5(usedforsecurity=False)

    def readline(self, size: int) -> bytes:
        line = self._file.readline(size)
        self.md5.update(line)
        return line


def _scan(path: Path) -> Index:
    """What there is to know about a file.

    Returns:
        `md5` bytes [1]; `columns` bytes; of each row `places` int64 [rows, 2], its first byte and
        the one after it, `ids` and `splits` bytes, and `images` int64: -1 for an image of its own,
        -2 for none, else the row that has it.
    """
    places: list[tuple[int, int]] = []
    ids: list[bytes] = []
    splits: list[bytes] = []
    images: list[bytes | None] = []
    columns: list[bytes] = []
    with path.open("rb") as opened:
        file = _Hashed(opened)
        for start, end, cells in _records(file):  # type: ignore[arg-type]
            if not columns:
                columns = list(cells or ())
                continue
            fits = cells is not None and len(cells) == len(columns)
            row = dict(zip(columns, cells or (), strict=True)) if fits else {}
            places.append((start, end))
            ids.append(row.get(b"index", b"")[:_MAX_ID_BYTES])
            splits.append(row.get(b"split", b"")[:_MAX_SPLIT_BYTES])
            image = row.get(b"image", b"")
            images.append(image if len(image) <= MAX_REFERENCE else None)
    if not columns:
        raise InputError(f"{quoted(str(path))} is empty or has no header: get the file again")
    return {
        "md5": np.array([file.md5.hexdigest()], dtype=bytes),
        "columns": np.array(columns, dtype=bytes),
        "places": np.array(places, np.int64).reshape(-1, 2),
        "ids": np.array(ids, dtype=bytes),
        "splits": np.array(splits, dtype=bytes),
        "images": np.array(_resolved(ids, images), np.int64),
    }


def _resolved(ids: Sequence[bytes], images: Sequence[bytes | None]) -> list[int]:
    """Where each row's image is; `images` has what the row names instead of one."""
    with_image = {name: row for row, name in enumerate(ids) if images[row] is None}
    return [
        _OWN_IMAGE if named is None else with_image.get(named.strip(), _NO_IMAGE)
        for named in images
    ]
