"""Parquet and arrow files; the only module that imports pyarrow.

A parquet file is read by row group, an arrow file (what `datasets` saves) by record batch, and of
both only the columns that are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from alignvlm.data.rows.base import BadRowError, BlockedRows, Row
from alignvlm.data.rows.index import Index, indexed
from alignvlm.errors import InputError, MissingDependencyError
from alignvlm.imaging.sources import quoted

__all__ = ["NUM_KEPT", "ArrowRows", "ParquetRows"]

NUM_KEPT: Final = 4
"""Row groups that stay in memory: as many as a mixture shuffles together."""

_ARROW_FILE = b"ARROW1"
_PARQUET = b"PAR1"


def _arrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            "pyarrow", "read parquet and arrow files", extra="data"
        ) from error
    return pyarrow


class ParquetRows(BlockedRows[Any]):
    """Rows of parquet files.

    Args:
        paths: in order.
        columns: the only ones to read, where a file has them; None reads all.

    Raises:
        InputError: a file is no whole parquet file.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str] | None = None) -> None:
        _arrow()
        sizes = [indexed(path, "parquet-1", _row_groups)["num_rows"].tolist() for path in paths]
        super().__init__(paths, sizes, NUM_KEPT)
        self._columns = columns

    def load_block(self, path: Path, number: int) -> Any:
        """One row group as an arrow table."""
        return self._read(path, number, self._columns)

    def take(self, block: Any, number: int) -> Row:
        """One row of a row group."""
        return _record(block, number)

    def only(self, names: Sequence[str]) -> Iterator[Row]:
        """See `Rows.only`; no other columns are read."""
        for path, first, end in zip(
            self._paths, self._first_block, self._first_block[1:], strict=False
        ):
            for block in range(first, end):
                try:
                    yield from self._read(path, block - first, names).to_pylist()
                except (BadRowError, ValueError, OverflowError):
                    yield from ({} for _ in range(self._sizes[block]))

    def _read(self, path: Path, number: int, columns: Sequence[str] | None) -> Any:
        pyarrow = _arrow()
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as file:
                there = file.schema_arrow.names
                chosen = None if columns is None else [name for name in there if name in columns]
                return file.read_row_group(number, columns=chosen, use_threads=False)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise BadRowError(
                f"cannot be read, its row group is damaged ({type(error).__name__}): get the file "
                "again"
            ) from error


def _row_groups(path: Path) -> Index:
    pyarrow = _arrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            groups = range(file.metadata.num_row_groups)
            sizes = [file.metadata.row_group(group).num_rows for group in groups]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{quoted(str(path))} is no whole parquet file: get a complete copy of it"
        ) from error
    return {"num_rows": np.array(sizes, np.int64)}


class ArrowRows(BlockedRows[Any]):
    """Rows of arrow files, in the stream or the file format, mapped into memory.

    Args:
        paths: in order.
        columns: the only ones to read, where a file has them; None reads all.

    Raises:
        InputError: a file is no whole arrow file.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str] | None = None) -> None:
        self._batches: dict[Path, list[Any]] = {path: _batches(path) for path in paths}
        sizes = [[batch.num_rows for batch in self._batches[path]] for path in paths]
        super().__init__(paths, sizes, NUM_KEPT)
        self._columns = columns

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_batches": {}}

    def load_block(self, path: Path, number: int) -> Any:
        """One record batch."""
        if path not in self._batches:
            try:
                self._batches[path] = _batches(path)
            except InputError as error:
                raise BadRowError(
                    "cannot be read, its file is damaged: get the file again"
                ) from error
        batch = self._batches[path][number]
        if self._columns is not None:
            batch = batch.select([name for name in batch.schema.names if name in self._columns])
        try:
            # Offsets that point out of the file would end the process; images are not touched.
            batch.validate(full=True)
        except (_arrow().ArrowException, ValueError) as error:
            raise BadRowError(
                f"cannot be read, its record batch is damaged ({type(error).__name__}): get the "
                "file again"
            ) from error
        return batch

    def take(self, block: Any, number: int) -> Row:
        """One row of a record batch."""
        return _record(block, number)


def _batches(path: Path) -> list[Any]:
    """The record batches of a file; their values stay on disk until they are used."""
    pyarrow = _arrow()
    try:
        with path.open("rb") as file:
            is_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
        mapped = pyarrow.memory_map(str(path))
        if is_file:
            reader = pyarrow.ipc.open_file(mapped)
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return list(pyarrow.ipc.open_stream(mapped))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{quoted(str(path))} is no whole arrow file: get a complete copy of it"
        ) from error


def _record(block: Any, number: int) -> Row:
    try:
        record: Row = block.slice(number, 1).to_pylist()[0]
    except Exception as error:  # bytes that are no text, dates out of range, damaged offsets
        raise BadRowError(
            f"holds a value that cannot be read ({type(error).__name__}): delete the row"
        ) from error
    return record
