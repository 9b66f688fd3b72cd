"""Small files of a run: written whole or not at all, or one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["each_line", "from_line", "read_lines", "to_line", "write_atomically"]

# JSON knows no such numbers; as strings they stay one valid line and can be read back.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file: the old one or the whole new one is there, never a part.

    Half a surrogate pair, which no UTF-8 can hold, is written as its code.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def each_line(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a JSON lines file, one at a time, None for each damaged line.

    There is nothing in a file that is not there; empty lines do not count.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield from_line(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole objects of a JSON lines file."""
    return [record for record in each_line(path) if record is not None]


def to_line(record: Mapping[str, Any]) -> str:
    """The record as one line of JSON; floats keep all digits, see `from_line` for the others."""
    try:
        return json.dumps(record, allow_nan=False, default=_plain) + "\n"
    except ValueError:
        return json.dumps(_finite(record), allow_nan=False, default=_plain) + "\n"


def from_line(line: str) -> dict[str, Any] | None:
    """Inverse of `to_line`, with "NaN" and the infinities as floats; None for a damaged line."""
    # A kill may leave half a line at the end, a crash of the machine zeros in the middle.
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if "NaN" not in line and "Infinity" not in line:
        return record
    return {
        key: _NOT_FINITE.get(value, value) if isinstance(value, str) else value
        for key, value in record.items()
    }


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own; anything else as text."""
    return _finite(value.item()) if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value
