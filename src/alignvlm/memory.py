"""The machine's memory, as far as its system says."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_bytes", "total_bytes"]

_MEMINFO = Path("/proc/meminfo")


def total_bytes() -> int | None:
    """Physical memory; None where the system does not say, e.g. on Windows."""
    return _pages("SC_PHYS_PAGES")


def available_bytes() -> int | None:
    """What programs can still get; None where the system does not say."""
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> int | None:
    if name not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
