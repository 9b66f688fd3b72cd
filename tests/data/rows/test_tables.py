"""Parquet and arrow: by block, by column, and damaged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from alignvlm.data.rows import tables
from alignvlm.data.rows.base import BadRowError
from alignvlm.data.rows.tables import NUM_KEPT, ArrowRows, ParquetRows
from alignvlm.errors import InputError, MissingDependencyError

ROWS = [
    {"a": number, "b": f"{number}", "image": {"bytes": b"x", "path": None}} for number in range(7)
]


@pytest.fixture
def paths(tmp_path: Path, files: Any) -> list[Path]:
    return [
        files.parquet(tmp_path / "one.parquet", ROWS[:5]),
        files.parquet(tmp_path / "two.parquet", ROWS[5:]),
    ]


def test_row_groups_are_blocks(paths: list[Path]) -> None:
    rows = ParquetRows(paths)
    assert list(rows.blocks()) == [2, 2, 1, 2]
    assert [rows.row(index) for index in range(7)] == ROWS
    assert [(rows.place(index).path.stem, rows.place(index).number) for index in (0, 4, 5, 6)] == [
        ("one", 1), ("one", 5), ("two", 1), ("two", 2)
    ]  # fmt: skip


def test_only_the_columns_that_are_needed(paths: list[Path]) -> None:
    assert ParquetRows(paths, ("b", "absent")).row(3) == {"b": "3"}
    assert list(ParquetRows(paths, ("b",)).only(("a",))) == [{"a": row["a"]} for row in ROWS]


def test_a_few_row_groups_stay_in_memory(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ParquetRows([files.parquet(tmp_path / "x.parquet", ROWS, row_group_size=1)])
    reads: list[int] = []
    read = rows._read
    monkeypatch.setattr(rows, "_read", lambda *args: reads.append(args[1]) or read(*args))
    for index in (0, 1, 2, 3, 0, 3, 1):
        rows.row(index)
    assert reads == [0, 1, 2, 3]
    rows.row(5)
    rows.row(2)  # the one that was not used for longest had to go
    assert reads == [0, 1, 2, 3, 5, 2]
    assert len(rows._loaded) == NUM_KEPT


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_in_both_forms(tmp_path: Path, kind: str) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    writer = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    path = tmp_path / "x.arrow"
    with writer(path, table.schema) as sink:
        sink.write_table(table, max_chunksize=3)
    rows = ArrowRows([path], ("a", "image"))
    assert list(rows.blocks()) == [3, 3, 1]
    assert rows.row(4) == {"a": 4, "image": {"bytes": b"x", "path": None}}
    assert ArrowRows([path]).row(6) == ROWS[6]


def test_damaged_files_are_refused_when_they_are_opened(paths: list[Path], tmp_path: Path) -> None:
    whole = paths[0].read_bytes()
    for content in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1" + bytes(50) + b"PAR1"):
        paths[1].write_bytes(content)
        with pytest.raises(InputError, match=r"two.parquet' is no whole parquet file: get"):
            ParquetRows(paths)
    arrow = tmp_path / "x.arrow"
    for content in (b"", b"hello there, no arrow", b"ARROW1\0\0" + bytes(40)):
        arrow.write_bytes(content)
        with pytest.raises(InputError, match=r"x.arrow' is no whole arrow file: get"):
            ArrowRows([arrow])


def test_a_damaged_row_group_breaks_its_rows_alone(paths: list[Path]) -> None:
    rows = ParquetRows(paths[:1])
    content = bytearray(paths[0].read_bytes())
    content[4:60] = bytes(56)  # the pages of the first row group
    paths[0].write_bytes(content)
    with pytest.raises(BadRowError, match="its row group is damaged"):
        rows.row(0)
    assert rows.row(4) == ROWS[4]
    assert list(rows.only(("a",)))[3:] == [{"a": 3}, {"a": 4}]


def test_values_that_are_no_text(tmp_path: Path) -> None:
    bad = pyarrow.array([b"\xff\xfe", b"ok"]).view(pyarrow.string())
    path = tmp_path / "x.arrow"
    table = pyarrow.table({"a": bad})
    with pyarrow.ipc.new_stream(path, table.schema) as sink:
        sink.write_table(table)
    with pytest.raises(BadRowError, match="its record batch is damaged"):
        ArrowRows([path]).row(0)


def test_offsets_that_point_out_of_the_file(tmp_path: Path) -> None:
    table = pyarrow.table({"a": ["xy", "z"]})
    path = tmp_path / "x.arrow"
    with pyarrow.ipc.new_stream(path, table.schema) as sink:
        sink.write_table(table)
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 2, 3))
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, offsets[:4] + b"\xff\xff\xff\x6f" + offsets[8:]))
    with pytest.raises(BadRowError, match="its record batch is damaged"):
        ArrowRows([path]).row(0)


def test_values_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    times = pyarrow.array([2**62, 0], pyarrow.timestamp("s"))
    table = pyarrow.table({"a": times})
    with pyarrow.ipc.new_stream(path, table.schema) as sink:
        sink.write_table(table)
    with pytest.raises(BadRowError, match="holds a value that cannot be read"):
        ArrowRows([path]).row(0)


def test_without_pyarrow(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for kind in (ParquetRows, ArrowRows):
        with pytest.raises(MissingDependencyError, match=r'pip install "alignvlm\[data\]"'):
            kind(paths)


def test_footers_are_read_once(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ParquetRows(paths)) == 7

    def refuse(_: Path) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(tables, "_row_groups", refuse)
    assert len(ParquetRows(paths)) == 7
