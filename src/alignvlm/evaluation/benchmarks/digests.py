"""What tells whether the files of a benchmark are the same as before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from alignvlm.weights.cache import sha256_of

__all__ = ["sha256_of_all", "sha256_of_sizes"]


def sha256_of_all(paths: Sequence[Path]) -> str:
    """Of the bytes of some files, in this order."""
    return _of([sha256_of(path) for path in paths])


def sha256_of_sizes(paths: Sequence[Path]) -> str:
    """Of the names and sizes of some files, in this order."""
    return _of([f"{path.name} {path.stat().st_size}" for path in paths])


def _of(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
