"""Pieces of the page: numbers, sections, and intervals as bars in SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignvlm.markup import as_html

__all__ = [
    "between", "difference_bar", "interval_bar", "number", "percent", "points", "probability",
    "section",
]  # fmt: skip

_WIDTH, _HEIGHT = 72, 9


def percent(value: float | None) -> str:
    """A fraction in per cent with the paper's two decimals."""
    return "–" if value is None else f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    shown = f"{100 * value:+.2f}"
    return "0.00" if float(shown) == 0 else shown.replace("-", "−")


def probability(p: float) -> str:
    """A p value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 0) -> str:
    """A number, nothing where there is none."""
    return "" if value is None else f"{value:,.{digits}f}"


def section(name: str, title: str, body: str, note: str = "") -> str:
    """A part of the page that its table of contents can name; empty without a body."""
    if not body:
        return ""
    said = f'<p class="soft">{note}</p>' if note else ""
    return f'<section id="{as_html(name)}"><h2>{as_html(title)}</h2>{said}{body}</section>'


def interval_bar(cell: Mapping[str, Any]) -> str:
    """The interval of a score on a line from 0 to 100."""
    if cell.get("low") is None:
        return ""
    low, at, high = (_WIDTH * cell[key] for key in ("low", "value", "high"))
    return _bar(low, at, high, 0, "score", between(cell))


def between(cell: Mapping[str, Any], shown: Callable[[float], str] = percent) -> str:
    """The interval in words, "" where there is none."""
    if cell.get("low") is None:
        return ""
    return f"{shown(cell['low'])} to {shown(cell['high'])}"


def difference_bar(cell: Mapping[str, Any], largest: float) -> str:
    """The interval of a difference around a line at 0; the ends are at `largest`."""
    if cell["low"] is None:
        return ""
    low, value, high = cell["low"], cell["difference"], cell["high"]
    scale, zero = _WIDTH / 2 / max(largest, 1e-9), _WIDTH / 2
    kind = "up" if low > 0 else "down" if high < 0 else "open"
    left, at, right = (zero + scale * x for x in (low, value, high))
    return _bar(left, at, right, zero, kind, between(cell, points))


def _bar(low: float, at: float, high: float, zero: float, kind: str, said: str) -> str:
    middle = _HEIGHT / 2
    return (
        f'<svg class="bar {kind}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="95 % interval {said}">'
        f'<path class="track" d="M0 {middle}H{_WIDTH}"/>'
        f'<path class="zero" d="M{zero:.1f} 0V{_HEIGHT}"/>'
        f'<path class="span" d="M{low:.1f} {middle}H{max(high, low + 0.5):.1f}"/>'
        f'<circle cx="{at:.1f}" cy="{middle}" r="2.4"/></svg>'
    )
