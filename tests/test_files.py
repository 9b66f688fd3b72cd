from __future__ import annotations

import errno
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import UsageError
from alignvlm.files import (
    check_target,
    each_line,
    from_line,
    read_lines,
    replacing,
    to_line,
    write_atomically,
)

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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Path]:
    """A file that a failure leaves as it was, and nothing beside it."""
    path = tmp_path / "report.json"
    path.write_text("older")
    yield path
    assert path.read_text() == "older"
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("content", ["ä" * 5000, b"\xff" * 5000])
def test_folders_are_made_and_an_older_file_is_replaced(
    tmp_path: Path, content: str | bytes
) -> None:
    path = tmp_path / "a" / "b" / ("n" * 240 + ".html")
    write_atomically(path, "older")
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_file_alone(
    older: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fill_up)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(older, "newer")


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
@pytest.mark.parametrize("content", ["'newer' * 1000", "b'newer' * 1000"])
def test_a_disk_that_is_full_midway_leaves_the_older_file_alone(older: Path, content: str) -> None:
    code = (
        "import resource; from pathlib import Path; from alignvlm.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"try: write_atomically(Path({str(older)!r}), {content})\n"
        "except OSError as error: print(error.strerror)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"


def test_an_interrupt_leaves_the_older_file_alone(older: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(older) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that has written half of the file and waits."""
    code = (
        "from pathlib import Path; from alignvlm.files import replacing\n"
        f"with replacing(Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half'); print('half', flush=True); input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def test_what_a_killed_process_leaves_goes_and_what_one_writes_stays(tmp_path: Path) -> None:
    path, mine = tmp_path / "report.json", tmp_path / ".mine.tmp"
    mine.touch()
    with writer(path) as killed, writer(path) as living:
        assert len(names(tmp_path)) == 3
        killed.kill()
        killed.wait()
        write_atomically(path, "whole")
        assert len(names(tmp_path)) == 3 and path.read_text() == "whole"
        living.communicate("\n", timeout=60)
        assert living.returncode == 0
    assert names(tmp_path) == [".mine.tmp", "report.json"]
    assert path.read_text() == "half"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_modes_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    def private(path: Path) -> None:  # as safetensors writes
        with replacing(path) as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))

    before = os.umask(mask)
    try:
        for number, write in enumerate((lambda path: write_atomically(path, "a"), private)):
            path = tmp_path / str(number)
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "report")
    for content in ("first", "second"):
        write_atomically(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "report").read_text() == content
    assert names(tmp_path) == ["link", "report", "there"]


def make_link(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, make_link])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "place"
    make(path)
    before = path.lstat(), names(tmp_path)
    with pytest.raises(OSError, match=str(path)):
        write_atomically(path, "a")
    with pytest.raises(UsageError, match=r"is a (folder|device) and no file: name another"):
        check_target(path)
    after = path.lstat(), names(tmp_path)
    assert (before[0].st_ino, before[0].st_mode) == (after[0].st_ino, after[0].st_mode)
    assert before[1] == after[1]


def test_a_place_is_checked_before_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path in ("file", "new", "no/such/folder", str(tmp_path / "new")):
        check_target(Path(path))
    with pytest.raises(
        UsageError, match="'file/below/x' cannot be written, since 'file' is a file"
    ):
        check_target(Path("file/below/x"))


def test_leftovers_of_other_files_are_not_ours_to_remove(tmp_path: Path) -> None:
    """Somebody else's folder may hold somebody else's temporary files."""
    own, other = (tmp_path / f".{name}.{'0' * 16}.tmp" for name in ("page.html", "letter.odt"))
    for left in (own, other):
        left.write_text("half")
    write_atomically(tmp_path / "page.html", "whole")
    assert not own.exists() and other.exists()
