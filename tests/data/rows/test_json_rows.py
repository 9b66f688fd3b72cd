"""JSON Lines and lists by place: against the whole file decoded, at every chunk size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignvlm.data.rows import json_rows
from alignvlm.data.rows.base import BadRowError, Rows
from alignvlm.data.rows.json_rows import json_array, json_lines
from alignvlm.errors import InputError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.sampled_from('\\"[]{},:ä\n a'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(st.sampled_from('\\"[],{}a'), max_size=4), VALUES, max_size=3)


def all_rows(rows: Rows) -> list[Any]:
    return [rows.row(index) for index in range(len(rows))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(OBJECTS, max_size=5),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    chunk=st.sampled_from([1, 2, 3, 7, 1000]),
    data=st.data(),
)
def test_both_forms_equal_the_decoded_file(
    values: list[Any], indent: int | None, ascii_only: bool, chunk: int, data: st.DataObject,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(json_rows, "_CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert all_rows(json_array(path)) == values
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    ending = data.draw(st.sampled_from(["", "\n", "\r\n", "\n\n \n"]))
    path.write_bytes(("\n".join(lines) + ending).encode())
    rows = json_lines(path)
    assert all_rows(rows) == values
    assert [rows.place(index).number for index in range(len(rows))] == [
        number + 1 for number in range(len(values))
    ]


@pytest.mark.parametrize("content", ["[]", " [ \n ] ", ""])
def test_files_without_rows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    if content:
        assert len(json_array(path)) == 0
    else:
        assert len(json_lines(path)) == 0


@pytest.mark.parametrize("content", ["[{}", '[{"a": "]"}', '[{"a": "x]', "[{}]]", "[{}] [", "[}}"])
def test_lists_that_are_cut_off(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x.json' is not one whole JSON list: get a complete"):
        json_array(path)


def test_broken_rows_say_why_and_leave_the_others(tmp_path: Path) -> None:
    bad = [
        (b"{", "not valid JSON at its character 2"),
        (b"", "is empty"),
        (b"[1]", "is a list and no JSON object"),
        (b"7", "is a number and no"),
        (b"null", "is null and no"),
        (b'"x"', "is a string and no"),
        (b"true", "is a truth value and no"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON:"),
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"first": 1}\n' + b"\n".join(row for row, _ in bad) + b'\n{"l": 2}'
    )
    rows = json_lines(path)
    assert len(rows) == len(bad) + 2
    assert rows.row(0) == {"first": 1}
    assert rows.row(len(bad) + 1) == {"l": 2}
    for number, (_, reason) in enumerate(bad, 1):
        with pytest.raises(BadRowError, match=reason):
            rows.row(number)
    assert list(rows.only(("first",)))[:2] == [{"first": 1}, {}]


def test_an_element_may_be_broken(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"a" 2}, {"a": 3},]')
    rows = json_array(path)
    assert len(rows) == 4
    assert rows.row(2) == {"a": 3}
    for broken, reason in ((1, "not valid"), (3, "is empty")):
        with pytest.raises(BadRowError, match=reason):
            rows.row(broken)


def test_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 100 + '"}\n')
    rows = json_lines(path)
    monkeypatch.setattr(json_rows, "MAX_ROW_BYTES", 50)
    assert rows.row(0) == {"a": 1}
    with pytest.raises(BadRowError, match="larger than 5e-05 MB: move its images to files"):
        rows.row(1)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(InputError, match="cannot be read"):
        json_lines(path)
    path.write_text("{}\n")
    rows = json_lines(path)
    path.unlink()
    with pytest.raises(BadRowError, match="cannot be read"):
        rows.row(0)
