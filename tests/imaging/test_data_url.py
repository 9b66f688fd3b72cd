from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from alignvlm.imaging.data_url import data_url

SMALLER = ((80, 300), (60, 100))


def noise(side_px: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def opened(url: str) -> Image.Image:
    _, _, content = url.partition(";base64,")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_small_picture_stays_as_it_is() -> None:
    page = Image.new("RGB", (60, 20), (1, 2, 3))
    url = data_url(page, max_side_px=100, max_bytes=10_000, smaller=SMALLER)
    assert url.startswith("data:image/png;base64,")
    assert opened(url).tobytes() == page.tobytes()


def test_a_long_side_is_shrunk_and_the_picture_given_is_not() -> None:
    page = Image.new("RGB", (400, 100))
    shown = opened(data_url(page, max_side_px=200, max_bytes=10_000, smaller=SMALLER))
    assert (shown.size, page.size) == ((200, 50), (400, 100))


@pytest.mark.parametrize(("max_bytes", "side_px"), [(60_000, 300), (4_000, 100), (10, 100)])
def test_too_many_bytes_make_a_jpeg_of_the_first_size_that_fits(
    max_bytes: int, side_px: int
) -> None:
    """The last is taken however large it is."""
    url = data_url(noise(400), max_side_px=400, max_bytes=max_bytes, smaller=SMALLER)
    assert url.startswith("data:image/jpeg;base64,")
    assert opened(url).size == (side_px, side_px)
