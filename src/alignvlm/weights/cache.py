"""Folders of converted weights on disk: each is whole and checked, or absent.

A folder is built under a lock, in a temporary folder beside its final place, and renamed into it
when everything in it has reached the disk. The last file written is a marker with the size and
sha256 of every other file, so that a truncated or half-deleted folder is noticed at the next load.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignvlm.errors import WeightsError
from alignvlm.paths import cache_dir

__all__ = [
    "MARKER",
    "atomic_folder",
    "damaged_files",
    "ensure_folder",
    "is_complete",
    "locked",
    "sha256_of",
]

MARKER = "complete.json"
"""Name of the file that is written last: `{"files": {name: {"bytes": int, "sha256": str}}}`."""

QUIET_WAIT_S = 2.0
"""How long a process waits for another one's lock before it says so."""

LONGEST_WAIT_S = 900.0
"""After this a lock counts as hung; no conversion takes a tenth of it."""


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's sha256 in hexadecimal; `progress` is told the bytes read since its last call."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`: one process at a time, and free again if that process dies.

    Raises:
        WeightsError: the cache is not writable, or the lock stays taken for 15 minutes.
    """
    folder = cache_dir()
    with _one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=QUIET_WAIT_S)
        except Timeout:
            print(f"Waiting for another process that prepares {name} in {folder}", file=sys.stderr)
            _acquire_patiently(lock)
    try:
        yield
    finally:
        lock.release()


def _acquire_patiently(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=LONGEST_WAIT_S)
    except Timeout:
        raise WeightsError(
            f"Another process has held {lock.lock_file} for {LONGEST_WAIT_S / 60:.0f} minutes: "
            "end that process, then try again"
        ) from None


@contextmanager
def atomic_folder(target: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` if the block succeeds and vanishes otherwise.

    On success every file is hashed and flushed to disk, the marker is written, and one rename puts
    the folder in place of whatever was there. Call it under `locked(target.name)`: it also clears
    what killed processes left behind, which would otherwise be another's work in progress.

    Args:
        target: the final folder.
        needed_bytes: how much the block is going to write; checked before it starts.

    Raises:
        WeightsError: the disk is full or not writable.
    """
    parent = target.parent
    with _one_sentence(parent, needed_bytes):
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in parent.glob(f".{target.name}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        if shutil.disk_usage(parent).free < needed_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=parent))
        try:
            staged = temporary / "staged"
            staged.mkdir()
            yield staged
            _write_marker(staged)
            _open_to_others(staged)
            _flush_folder(staged)
            if target.exists():
                target.rename(temporary / "replaced")
            staged.rename(target)
            _flush(parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def damaged_files(folder: Path, *, hashes: bool = False) -> list[str]:
    """Names in `folder` that are missing or not as they were written; empty for a whole folder.

    Sizes are compared (microseconds, finds truncation); with `hashes` contents too. A folder
    without a readable marker reports the marker.
    """
    try:
        recorded = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        expected = [(str(name), int(f["bytes"]), str(f["sha256"])) for name, f in recorded.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [MARKER]
    return [
        name
        for name, num_bytes, sha256 in expected
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != num_bytes
        or (hashes and sha256_of(folder / name) != sha256)
    ]


def is_complete(folder: Path) -> bool:
    """Whether `folder` was finished by `atomic_folder` and every file still has its size."""
    return not damaged_files(folder)


def ensure_folder(name: str, build: Callable[[Path], None], needed_bytes: int) -> Path:
    """The cache's folder `name`, built by `build(empty_folder)` unless it is there and whole.

    Of several processes that ask at once, one builds and the others wait. A damaged folder is
    rebuilt, which one line on stderr says.

    Raises:
        WeightsError: the disk is full or not writable; and whatever `build` raises.
    """
    folder = cache_dir() / name
    if is_complete(folder):
        return folder
    with locked(name):
        damaged = damaged_files(folder)
        if damaged and folder.exists():
            print(
                f"The cached weights in {folder} are damaged ({', '.join(damaged)}); "
                "building them again",
                file=sys.stderr,
            )
        if damaged:
            with atomic_folder(folder, needed_bytes) as empty:
                build(empty)
    return folder


def _write_marker(folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / MARKER).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def _open_to_others(folder: Path) -> None:
    """Give files the mode of the umask: safetensors keeps its own to their owner."""
    mode = folder.stat().st_mode & 0o666  # the folder was made with that mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _flush_folder(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Flush a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_sentence(folder: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Turn the operating system's refusal to write into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = f"{needed_bytes / 1e6:.0f} MB ({needed_bytes} bytes)" if needed_bytes else "more"
            raise WeightsError(
                f"The disk of {folder} is full and the weights need {size}: free some space, or "
                "set ALIGNVLM_CACHE to a folder on another disk"
            ) from error
        refused = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        # In some places (/proc) no folder can be made, and the system says that there is none.
        if error.errno in refused or (error.errno == errno.ENOENT and not folder.is_dir()):
            raise WeightsError(
                f"The weights cannot be stored in {folder} ({error.strerror}): set ALIGNVLM_CACHE "
                "to a folder that you may write to"
            ) from error
        raise
