"""Strangers' text made fit to be shown: answers, names of models, reasons of failures."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from alignvlm.imaging.sources import quoted as _quoted

__all__ = ["as_html", "as_markdown", "clean", "quoted", "shortened"]

_HOMES = re.compile(r"(?:/home|/Users)/[^/\s:;,'\"]+")
_SECRETS = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_)[\w-]{16,}")
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+@")
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$])")


def quoted(name: object) -> str:
    """A name for a message, in quotes and on one line."""
    return _quoted(str(name))


def clean(text: Any) -> str:
    """The text without home folders, access tokens and users of URLs; controls as pictures.

    What no file can hold, half a surrogate pair, becomes a question mark.
    """
    shown = str(text).encode("utf-8", "replace").decode("utf-8")
    home = str(Path.home())
    if len(home) > 1:
        shown = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", shown)
    shown = _USER_OF_URL.sub("", _SECRETS.sub("***", _HOMES.sub("~", shown)))
    return shown.replace("\r\n", "\n").translate(_CONTROLS)


def as_html(text: Any) -> str:
    """Text that can stand anywhere in a page, attributes included."""
    return html.escape(clean(text))


def as_markdown(text: Any) -> str:
    """Text that can stand in a cell of a Markdown table and is nothing but text there."""
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(text).split()))


def shortened(text: str, most: int) -> str:
    """At most `most` characters, and how many were left out."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} … ({left:,} more characters)"
