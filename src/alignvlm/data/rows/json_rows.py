"""JSON Lines and JSON lists, read row by row.

A file is scanned once for where its rows begin and end; what stays in memory is 16 bytes a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from alignvlm.data.rows.base import BadRowError, Place, Row, Rows
from alignvlm.errors import InputError
from alignvlm.imaging.sources import quoted

__all__ = ["JsonRows", "json_array", "json_lines"]

MAX_ROW_BYTES: Final = 512_000_000
"""Longest row: some dozens of pages as base64."""

_CHUNK_BYTES = 8_000_000
_SPACE = b" \t\r\n"


class JsonRows(Rows):
    """Objects at known places of one file.

    Args:
        path: the file.
        starts, ends: int64 [number of rows], the first byte of each row and the one after it.
    """

    def __init__(self, path: Path, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._path, self._starts, self._ends = path, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, index: int) -> Place:
        """The row's number is its line in JSON Lines, else its place in the list."""
        return Place(self._path, index + 1)

    def row(self, index: int) -> Row:
        """See `Rows.row`."""
        start, end = int(self._starts[index]), int(self._ends[index])
        if end - start > MAX_ROW_BYTES:
            raise BadRowError(
                f"is larger than {MAX_ROW_BYTES / 1e6:g} MB: move its images to files"
            )
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                text = file.read(end - start).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadRowError("is not UTF-8: save the file in that encoding") from None
        except OSError as error:
            raise BadRowError(f"cannot be read ({error.strerror}): check the disk") from error
        return _parsed(text)


def _parsed(text: str) -> Row:
    if not text.strip():
        raise BadRowError("is empty: delete it")
    try:
        value: Any = json.loads(text)
    except RecursionError:
        raise BadRowError("is nested too deep: flatten it") from None
    except ValueError as error:
        where = (
            f" at its character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise BadRowError(f"is not valid JSON{where}: repair or delete it") from None
    if not isinstance(value, dict):
        raise BadRowError(f"is {_named(value)} and no JSON object: repair or delete it")
    return value


def _named(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def json_lines(path: Path) -> JsonRows:
    """The rows of a JSON Lines file; every line is a row, blank ones only at the end are not.

    Raises:
        InputError: the file cannot be read.
    """
    breaks = [np.zeros(0, np.int64)]
    offset = 0
    last_ink = -1
    for chunk in _chunks(path):
        breaks.append(np.flatnonzero(chunk == ord("\n")) + offset)
        if tail := chunk.tobytes().rstrip(_SPACE):
            last_ink = offset + len(tail) - 1
        offset += len(chunk)
    line_ends = np.concatenate(breaks)
    ends = np.append(line_ends[line_ends < last_ink], last_ink + 1)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    return JsonRows(path, starts, ends) if last_ink >= 0 else JsonRows(path, ends[:0], ends[:0])


def json_array(path: Path) -> JsonRows:
    """The elements of a file that is one JSON list.

    Raises:
        InputError: the file cannot be read, or the list does not end.
    """
    scan = _Scan()
    cuts = [np.zeros(0, np.int64), *(scan.cuts(chunk) for chunk in _chunks(path))]
    if scan.depth != 0 or scan.in_string or not scan.closed:
        raise InputError(
            f"{quoted(str(path))} is not one whole JSON list: get a complete copy of the file"
        )
    edges = np.concatenate(cuts)
    starts, ends = edges[:-1] + 1, edges[1:]
    if len(starts) == 1:
        with path.open("rb") as file:
            file.seek(int(starts[0]))
            if not file.read(int(ends[0] - starts[0])).strip():
                starts, ends = starts[:0], ends[:0]
    return JsonRows(path, starts, ends)


@dataclass
class _Scan:
    """Finds where the elements of a JSON list are cut, from chunk to chunk.

    A cut is the list's opening or closing bracket or a comma between two elements. Nothing is
    decoded: brackets and commas count unless they stand in a string, and a string ends at a
    quotation mark before which no backslash escapes it.
    """

    offset: int = 0
    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    closed: bool = False

    def cuts(self, chunk: NDArray[np.uint8]) -> NDArray[np.int64]:
        chunk = self._without_escaped(chunk)
        quotes = np.flatnonzero(chunk == ord('"'))
        marks = np.flatnonzero(_STRUCTURE[chunk])
        inside = (np.searchsorted(quotes, marks) + self.in_string) % 2 == 1
        marks = marks[~inside]
        steps = _STRUCTURE[chunk[marks]] - _COMMA
        depths = self.depth + np.cumsum(steps, dtype=np.int64)
        # The list's own depth is 1: before its end, after its beginning, around its commas.
        is_cut = np.where(steps < 0, depths == 0, depths == 1)
        self.in_string ^= len(quotes) % 2 == 1
        found = marks[is_cut] + self.offset
        if self.closed and len(marks):
            self.depth = -1  # something follows the list
        elif len(depths):
            ended = np.flatnonzero(depths == 0)
            self.closed = bool(len(ended))
            self.depth = int(depths[-1]) if not len(ended) or ended[0] == len(depths) - 1 else -1
        self.offset += len(chunk)
        return found

    def _without_escaped(self, chunk: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The chunk with every character that a backslash escapes blanked out."""
        slashes = np.flatnonzero(chunk == ord("\\"))
        if self.escaped:
            chunk = chunk.copy()
            chunk[0] = ord(" ")
            slashes = slashes[slashes > 0]
        self.escaped = False
        if not len(slashes):
            return chunk
        # In a run of backslashes the first, third, ... escape what follows them.
        first = np.concatenate([[True], np.diff(slashes) > 1])
        run_start = slashes[np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0))]
        targets = slashes[(slashes - run_start) % 2 == 0] + 1
        self.escaped = bool(targets[-1] == len(chunk))
        chunk = chunk.copy()
        chunk[targets[targets < len(chunk)]] = ord(" ")
        return chunk


_COMMA = 2
_STRUCTURE = np.zeros(256, np.int8)
_STRUCTURE[list(b"[{")] = _COMMA + 1
_STRUCTURE[list(b"]}")] = _COMMA - 1
_STRUCTURE[ord(",")] = _COMMA


def _chunks(path: Path) -> Iterator[NDArray[np.uint8]]:
    try:
        with path.open("rb") as file:
            yield from _read(file)
    except OSError as error:
        raise InputError(
            f"{quoted(str(path))} cannot be read ({error.strerror}): check its name and the disk"
        ) from error


def _read(file: IO[bytes]) -> Iterator[NDArray[np.uint8]]:
    while content := file.read(_CHUNK_BYTES):
        yield np.frombuffer(content, np.uint8)
