"""Shards: members by stem, read without the others, and damaged ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from alignvlm.data.rows import tars
from alignvlm.data.rows.base import BadRowError
from alignvlm.data.rows.tars import KEY, TarRows
from alignvlm.errors import InputError


def test_members_are_grouped_by_stem(tmp_path: Path, files: Any) -> None:
    members = [
        ("0001.jpg", b"j"), ("0001.seg.PNG", b"s"), ("0001.txt", b""),
        ("sub/0002.txt", b"two"), ("sub/0002.jpg", b"J"),
        ("README", b"no suffix"), (".hidden", b"no stem"), ("0003.json", b"{}"),
    ]  # fmt: skip
    rows = TarRows([files.tar(tmp_path / "a.tar", members), files.tar(tmp_path / "b.tar", [])])
    assert [rows.row(index) for index in (2, 0, 1)] == [
        {KEY: "0003", "json": b"{}"},
        {KEY: "0001", "jpg": b"j", "seg.png": b"s", "txt": b""},
        {KEY: "sub/0002", "txt": b"two", "jpg": b"J"},
    ]
    assert list(rows.blocks()) == [3, 0]
    assert rows.place(2).number == 3


def test_long_and_odd_names(tmp_path: Path, files: Any) -> None:
    long = "x" * 180 + "/ü" + "y" * 120
    rows = TarRows([files.tar(tmp_path / "a.tar", [(f"{long}.txt", b"1"), ("z.txt", b"2")])])
    assert [rows.row(0)[KEY], rows.row(1)[KEY]] == [long, "z"]


def test_links_and_folders_are_no_members(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "1.jpg"), (tarfile.DIRTYPE, "2.d")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("3.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    assert [dict(TarRows([path]).row(0))] == [{KEY: "3", "txt": b"x"}]


def test_headers_are_read_once(tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.tar(tmp_path / "a.tar", files.shard(0, 3))
    first = TarRows([path]).row(1)

    def refuse(_: Path) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(tars, "_scan", refuse)
    assert TarRows([path]).row(1) == first
    files.tar(path, files.shard(0, 2))  # another file of that name
    with pytest.raises(AssertionError, match="read again"):
        TarRows([path])


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1024, 2048 - 512])
def test_shards_that_are_cut_off(tmp_path: Path, files: Any, kept: int) -> None:
    path = files.tar(tmp_path / "a.tar", [("1.txt", b"x" * 400), ("2.txt", b"y" * 400)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a.tar' is no whole, uncompressed tar file: unpack"):
        TarRows([path])


def test_compressed_shards(tmp_path: Path, files: Any) -> None:
    path = files.tar(tmp_path / "a.tar", files.shard(0, 1))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="unpack it if it is compressed"):
        TarRows([path])


def test_a_shard_that_changes_under_a_run(tmp_path: Path, files: Any) -> None:
    path = files.tar(tmp_path / "a.tar", files.shard(0, 3))
    rows = TarRows([path])
    files.tar(path, files.shard(0, 1))
    with pytest.raises(BadRowError, match="its shard has changed"):
        rows.row(2)
    path.unlink()
    with pytest.raises(BadRowError, match="its shard has changed"):
        rows.load_block(path, 0)


def test_a_member_too_large(tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignvlm.limits import Limits

    rows = TarRows([files.tar(tmp_path / "a.tar", [("1.txt", b"x" * 4000)])])
    monkeypatch.setattr(tars, "DEFAULT_LIMITS", Limits(max_file_bytes=3000))
    with pytest.raises(BadRowError, match="has a member 'txt' of 0 MB: drop it"):
        rows.row(0)


def test_a_read_only_cache_only_costs_time(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setattr("alignvlm.data.rows.index.cache_dir", lambda: blocked)
    path = files.tar(tmp_path / "a.tar", files.shard(0, 2))
    assert len(TarRows([path])) == 2


def test_a_damaged_entry_of_the_cache_is_made_again(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("alignvlm.data.rows.index.cache_dir", lambda: cache)
    path = files.tar(tmp_path / "a.tar", files.shard(0, 2))
    TarRows([path])
    (entry,) = (cache / "data").iterdir()
    for content in (b"", b"PK\3\4 no zip", entry.read_bytes()[:300]):
        entry.write_bytes(content)
        assert TarRows([path]).row(1)["txt"] == b"caption 1"
