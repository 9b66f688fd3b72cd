"""Strangers' text made fit to be shown: answers, names of models, reasons of failures."""

from __future__ import annotations

import re
from typing import Any

from alignvlm.imaging.sources import quoted as _quoted
from alignvlm.markup import clean

__all__ = ["as_markdown", "quoted", "shortened"]

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$])")


def quoted(name: object) -> str:
    """A name for a message, in quotes and on one line."""
    return _quoted(str(name))


def as_markdown(text: Any) -> str:
    """Text that can stand in a cell of a Markdown table and is nothing but text there."""
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(text).split()))


def shortened(text: str, most: int) -> str:
    """At most `most` characters, and how many were left out."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} … ({left:,} more characters)"
