"""Pictures inside of HTML files, small enough to pass on."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

__all__ = ["data_url"]


def data_url(
    image: Image.Image, *, max_side_px: int, max_bytes: int, smaller: Sequence[tuple[int, int]]
) -> str:
    """The picture as a data URL: PNG if that is small, as it is for drawn pages, else JPEG.

    Args:
        image: RGB; stays as it is.
        max_side_px: of the longer side; a larger picture is shrunk.
        max_bytes: of the PNG or JPEG; base64 makes four bytes of three.
        smaller: quality of the JPEG and longer side in px, tried in turn while there are more
            bytes; the last is taken however large it is.
    """
    image = image.copy()
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    kind, content = "png", _encoded(image, "PNG")
    for quality, side in smaller:
        if len(content) <= max_bytes:
            break
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        kind, content = "jpeg", _encoded(image, "JPEG", quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
