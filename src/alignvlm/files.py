"""Small files of a run: written whole or not at all, or one JSON object a line."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from alignvlm.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows keeps what is open from being deleted by itself
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "check_target",
    "each_line",
    "from_line",
    "read_lines",
    "replacing",
    "to_line",
    "write_atomically",
]

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)

# JSON knows no such numbers; as strings they stay one valid line and can be read back.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a small file: the old one or the whole new one is there, never a part.

    See `replacing`. Half a surrogate pair, which no UTF-8 can hold, is written as its code.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of an empty file, which replaces `path` if the block succeeds.

    It has reached the disk by then; if anything fails it is gone, and an older file is as it was.
    Folders above `path` are made. A link stays one: what it points to is replaced. The file has
    the mode that the umask gives, whatever the block's writer thinks of it.

    Raises:
        OSError: the disk is full or not writable, or there is something at `path` but no file.
    """
    if path.exists() and not path.is_file():  # as root one could replace a device
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    with _begin(path) as file:
        temporary = Path(file.name)
        try:
            yield temporary
            temporary.chmod(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            with temporary.open("rb+") as written:  # another file if the block has replaced it
                os.fsync(written.fileno())
            if fcntl is None:  # Windows renames no file that is open
                file.close()
            temporary.replace(path)
        except BaseException:
            file.close()
            with suppress(OSError):
                temporary.unlink()
            raise


def _begin(path: Path) -> IO[bytes]:
    """A new empty file beside `path`; while it is open, a lock says that somebody writes it.

    Two processes may write the same file at once, so each has a name of its own.
    """
    while True:
        file = path.with_name(f".{path.name[:40]}.{os.urandom(8).hex()}.tmp").open("xb")
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(file.name):  # `_clear` may have come between
            return file
        file.close()


@cache
def _left_in(folder: Path) -> list[Path]:
    """Temporary files that were in the folder when this process first wrote there."""
    return [path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]


def _clear(path: Path) -> None:
    """Remove what killed processes left of this file: nobody holds its lock."""
    for left in _left_in(path.parent):
        if left.name.startswith(f".{path.name[:40]}."):
            with suppress(OSError):
                if fcntl is not None:
                    with left.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()  # which Windows refuses while it is open


def check_target(path: Path) -> None:
    """Refuse, before any work is done, a place that no file can be written to.

    Raises:
        UsageError: it is a folder or a device, or lies below a file.
    """
    for place, wanted, is_wanted in (
        (path, "file", stat.S_ISREG),
        *((parent, "folder", stat.S_ISDIR) for parent in path.parents),
    ):
        try:
            mode = place.stat().st_mode
        except OSError:  # not there
            continue
        if not is_wanted(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device"
            why = "" if place is path else f" cannot be written, since {str(place)!r}"
            raise UsageError(f"{str(path)!r}{why} is a {kind} and no {wanted}: name another place")
        return


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
