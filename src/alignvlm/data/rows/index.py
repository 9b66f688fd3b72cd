"""What was learned by scanning a large file, kept in the cache folder.

An entry is found by the file's path, size and time of change. It only saves time: without a
writable cache folder, files are scanned again.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignvlm.files import replacing
from alignvlm.paths import cache_dir

__all__ = ["Index", "indexed"]

Index = dict[str, NDArray[Any]]


def indexed(path: Path, kind: str, scan: Callable[[Path], Index]) -> Index:
    """What `scan` finds in a file: from the cache folder if the file has not changed since.

    Args:
        path: the file.
        kind: names what is looked for and how it is stored; another kind is another entry.
        scan: returns arrays without Python objects.
    """
    stat = path.stat()
    key = f"{kind}|{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    entry = cache_dir() / "data" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"
    try:
        with entry.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        index = scan(path)
        _store(entry, index)
        return index


def _store(entry: Path, index: Index) -> None:
    try:
        with replacing(entry) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **index)
    except OSError:
        return
