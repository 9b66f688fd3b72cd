"""WebDataset: shards that are tar files, neighbouring members of one stem being a row."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from alignvlm.data.rows.base import BadRowError, BlockedRows, Row
from alignvlm.data.rows.index import Index, indexed
from alignvlm.errors import InputError
from alignvlm.imaging.sources import quoted
from alignvlm.limits import DEFAULT_LIMITS

__all__ = ["KEY", "TarRows"]

KEY: Final = "__key__"
"""The field that holds a row's stem."""

_NUM_KEPT = 8  # indices of shards, about 100 bytes a member
_END = bytes(512)


class TarRows(BlockedRows[tuple[Path, Index]]):
    """Rows of uncompressed tar shards: a field for each member, by its suffix in lower case.

    Headers are read once; where members lie is kept in the cache folder. The members of a row
    stand beside each other and are read together.

    Args:
        paths: the shards in order.

    Raises:
        InputError: a shard is no tar file, is compressed or ends too early.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        sizes = [[len(indexed(path, "tar-1", _scan)["keys"])] for path in paths]
        super().__init__(paths, sizes, _NUM_KEPT)

    def load_block(self, path: Path, number: int) -> tuple[Path, Index]:
        """Where the members of a shard lie."""
        try:
            return path, indexed(path, "tar-1", _scan)
        except (InputError, OSError) as error:
            raise BadRowError(
                "cannot be read, its shard has changed: get the shard again"
            ) from error

    def take(self, block: tuple[Path, Index], number: int) -> Row:
        """The members of one row."""
        path, index = block
        if number >= len(index["keys"]):
            raise BadRowError("is no longer there, its shard has changed: start again")
        first, end = index["firsts"][number : number + 2].tolist()
        fields: dict[str, Any] = {KEY: index["keys"][number].decode("utf-8", "replace")}
        try:
            with path.open("rb") as file:
                for member in range(first, end):
                    suffix, offset, size = index["members"][member].tolist()
                    name = index["suffixes"][suffix].decode("utf-8", "replace")
                    if size > DEFAULT_LIMITS.max_file_bytes:
                        raise BadRowError(
                            f"has a member {quoted(name)} of {size / 1e6:.0f} MB: drop it"
                        )
                    file.seek(offset)
                    fields[name] = file.read(size)
        except OSError as error:
            raise BadRowError(f"cannot be read ({error.strerror}): check the disk") from error
        return fields


def _scan(path: Path) -> Index:
    """The members of a shard.

    Returns:
        `keys` bytes [rows], the stems; `firsts` int64 [rows + 1], where each row's members begin;
        `members` int64 [members, 3]: suffix, offset and size; `suffixes` bytes.
    """
    keys: list[bytes] = []
    firsts: list[int] = []
    members: list[tuple[int, int, int]] = []
    suffixes: dict[bytes, int] = {}
    try:
        with tarfile.open(path, "r:", errors="surrogateescape") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # else all of them stay in memory
                folder, _, name = member.name.rpartition("/")
                stem, dot, suffix = name.partition(".")
                if not member.isreg() or not dot or not stem:
                    continue
                key = _bytes(f"{folder}/{stem}" if folder else stem)
                if not keys or keys[-1] != key:
                    keys.append(key)
                    firsts.append(len(members))
                number = suffixes.setdefault(_bytes(suffix.lower()), len(suffixes))
                members.append((number, member.offset_data, member.size))
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(
            f"{quoted(str(path))} is no whole, uncompressed tar file: unpack it if it is "
            "compressed, else get a complete copy of it"
        ) from error
    return {
        "keys": np.array(keys, dtype=bytes),
        "firsts": np.array([*firsts, len(members)], np.int64),
        "members": np.array(members, np.int64).reshape(-1, 3),
        "suffixes": np.array(list(suffixes), dtype=bytes),
    }


def _check_end(path: Path, offset: int) -> None:
    """Refuse a shard that stops otherwise than with the empty block that ends a tar file."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(len(_END)) != _END:
            raise EOFError


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
