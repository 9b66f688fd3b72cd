from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.files import each_line, from_line, read_lines, to_line, write_atomically

NUMBERS = st.floats() | st.integers() | st.booleans() | st.none()


@given(st.dictionaries(st.text(), NUMBERS | st.lists(NUMBERS)))
def test_a_record_is_one_line_of_strict_json(record: dict[str, object]) -> None:
    line = to_line(record)
    assert line.index("\n") == len(line) - 1

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    assert set(json.loads(line, parse_constant=refuse)) == set(record)


@given(st.dictionaries(st.text(), NUMBERS))
def test_numbers_come_back_bit_for_bit(record: dict[str, object]) -> None:
    back = from_line(to_line(record))
    assert back is not None
    for key, value in record.items():
        if isinstance(value, float) and math.isnan(value):
            assert math.isnan(back[key])
        else:
            assert back[key] == value
            assert type(back[key]) is type(value)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    record = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(float("inf"))}
    assert from_line(to_line(record)) == {"a": 0.5, "b": 3, "c": math.inf}


def test_damaged_lines_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n\n\x00\x00\x00\n[1]\n{"a": 2}\n' + b"[" * 100_000 + b'\n{"a": 3')
    assert list(each_line(path)) == [{"a": 1}, None, None, {"a": 2}, None, None]
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    assert read_lines(tmp_path / "none.jsonl") == []


def test_text_that_utf8_cannot_hold_is_written_all_the_same(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "ä\ud800")
    assert (tmp_path / "a.txt").read_text("utf-8") == "ä\\ud800"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
