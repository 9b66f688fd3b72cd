"""Figures as PNG; the only file that imports matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from alignvlm.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_installed", "new_figure", "png"]

_DOTS_PER_INCH = 150


def check_installed() -> None:
    """Raises a MissingDependencyError if there is no matplotlib."""
    new_figure(1.0, 1.0)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, measured in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "draw the plots", extra="plots") from error
    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of 150 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()
