"""What must not stand in files that are passed on: home folders, access tokens, users of URLs."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["without_private"]

_HOMES = re.compile(r"(?:/home|/Users)/[^/\s:;,'\"]+")
_SECRETS = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_)[\w-]{16,}")
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+@")


def without_private(text: str) -> str:
    """The text without home folders, access tokens and users of URLs."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return _USER_OF_URL.sub("", _SECRETS.sub("***", _HOMES.sub("~", text)))
