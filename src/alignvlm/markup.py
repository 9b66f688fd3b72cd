"""Strangers' text made fit to be shown, and tables, in HTML and in Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from alignvlm.privacy import without_private

__all__ = ["as_html", "clean", "html_table", "markdown_table"]

_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def clean(text: Any) -> str:
    """The text without what is private, controls as pictures.

    What no file can hold, half a surrogate pair, becomes a question mark.
    """
    shown = without_private(str(text).encode("utf-8", "replace").decode("utf-8"))
    return shown.replace("\r\n", "\n").translate(_CONTROLS)


def as_html(text: Any) -> str:
    """Text that can stand anywhere in a page, attributes included."""
    return html.escape(clean(text))


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML, "" without rows.

    Args:
        head: names of the columns; a `#` before one marks a column of numbers.
        rows: cells that are escaped already.
    """
    if not rows:
        return ""
    kinds = [' class="number"' if name.startswith("#") else "" for name in head]
    names = "".join(
        f'<th scope="col"{kind}>{as_html(name.removeprefix("#"))}</th>'
        for kind, name in zip(kinds, head, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="card wide"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown, where names of columns are escaped already as well."""
    names = [name.removeprefix("#") for name in head]
    rule = ["---:" if name.startswith("#") else "---" for name in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *rows))
