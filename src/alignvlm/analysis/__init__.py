"""Looks into a model: what each patch of a page says, as a web page or a picture."""

from __future__ import annotations

from alignvlm.analysis.lens import LensLine, PageLens, TilePlace, look
from alignvlm.analysis.overlay import draw_overlay, write_png
from alignvlm.analysis.web import write_html

__all__ = [
    "LensLine",
    "PageLens",
    "TilePlace",
    "draw_overlay",
    "look",
    "write_html",
    "write_png",
]
