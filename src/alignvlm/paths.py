"""Where this package keeps what it downloads and makes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """The folder for downloaded and converted weights and for fonts; it need not exist yet.

    `ALIGNVLM_CACHE` if set, else `alignvlm` in `XDG_CACHE_HOME`, else `~/.cache/alignvlm`.
    """
    if chosen := os.environ.get("ALIGNVLM_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "alignvlm"
    return Path.home() / ".cache" / "alignvlm"
