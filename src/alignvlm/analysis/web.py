"""A page and what its cells say as one HTML file that needs nothing but a browser.

The text comes from a stranger's page: it reaches the file as JSON without `<`, is shown through
`textContent` alone, and the file's content security policy runs no script but ours and forbids
every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignvlm.analysis.lens import LensLine, PageLens, TilePlace
from alignvlm.files import write_atomically
from alignvlm.imaging.data_url import data_url

__all__ = ["render_html", "write_html"]

SCRIPTS = ("data.js", "draw.js", "panel.js")
_MAX_IMAGE_PX = 2400  # longer side of the picture of the page; cells keep page pixels
_MAX_IMAGE_BYTES = 1_000_000
# JPEG quality and longer side to try in turn; even noise fits at the last.
_SMALLER = ((85, _MAX_IMAGE_PX), (70, _MAX_IMAGE_PX), (70, 1600), (60, 1200), (40, 1000))
_BLANK = 0.99  # a cell with more whitespace than this needs no list of words
_STEPS = 65_535  # probabilities and entropies are stored in 16 bits


def write_html(lens: PageLens, path: str | os.PathLike[str]) -> None:
    """Writes `render_html(lens)` to a file: all of it, or nothing.

    Raises OSError where the file cannot be written.
    """
    write_atomically(Path(path), render_html(lens).encode("utf-8", "replace"))


def render_html(lens: PageLens) -> str:
    """The web page: the image, a layer for each view, words under the pointer, the text read.

    Probabilities and entropies are rounded to 16 bits of their range. Cells whose five best words
    hold more than 0.99 of whitespace keep their entropy alone.
    """
    parts = files("alignvlm.analysis").joinpath("page")
    script = "\n".join(parts.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(parts.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(lens.source),
        style=parts.joinpath("style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=f"sha256-{digest}",
        image=data_url(
            lens.image, max_side_px=_MAX_IMAGE_PX, max_bytes=_MAX_IMAGE_BYTES, smaller=_SMALLER
        ),
        data=json.dumps(_data(lens), separators=(",", ":")).replace("<", "\\u003c"),
    )


def _data(lens: PageLens) -> dict[str, Any]:
    """Everything the script reads; arrays are little-endian and base64."""
    kept = np.flatnonzero(lens.on_page & (lens.whitespace_probability < _BLANK))
    ids, places = np.unique(lens.word_ids[kept], return_inverse=True)
    most = math.log(lens.num_words)
    return {
        "source": lens.source,
        "width": lens.image.width,
        "height": lens.image.height,
        "grid": lens.grid,
        "tiles": [_tile(tile) for tile in lens.tiles],
        "numWords": lens.num_words,
        "topK": lens.word_ids.shape[1],
        "words": [[int(token_id), lens.words[int(token_id)]] for token_id in ids],
        "entropy": _packed(_quantised(lens.entropy, most), "<u2"),
        "cells": _packed(kept, "<u4"),
        "best": _packed(places, "<u4"),
        "probabilities": _packed(_quantised(lens.probabilities[kept], 1.0), "<u2"),
        "lines": None if lens.lines is None else [_line(line) for line in lens.lines],
    }


def _tile(tile: TilePlace) -> dict[str, Any]:
    return {
        "x": tile.x,
        "y": tile.y,
        "width": tile.cell_width,
        "height": tile.cell_height,
        "part": tile.part,
        "thumbnail": tile.thumbnail,
    }


def _line(line: LensLine) -> dict[str, Any]:
    shares = [round(share, 2) for share in line.probabilities]
    return {"text": line.text, "cells": line.cells, "probabilities": shares}


def _quantised(values: NDArray[np.float32], largest: float) -> NDArray[np.float64]:
    """Values in [0, largest] as whole numbers up to `_STEPS`."""
    share = np.asarray(values, dtype=np.float64) / max(largest, 1e-12)
    rounded: NDArray[np.float64] = np.rint(share.clip(0, 1) * _STEPS)
    return rounded


def _packed(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
