"""Sizes from headers: those of the decoded image, whatever EXIF says and wherever it says so."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from alignvlm.errors import LimitError, UnsupportedImageError
from alignvlm.imaging import decode
from alignvlm.imaging.decode import decode_image, image_size
from alignvlm.limits import Limits


def encoded(kind: str, mode: str, size: tuple[int, int], orientation: int) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = BytesIO()
    Image.new(mode, size).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]),
    mode=st.sampled_from(["RGB", "L"]),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    orientation=st.integers(0, 8),
)
def test_the_header_says_the_size_of_the_decoded_image(
    kind: str, mode: str, size: tuple[int, int], orientation: int
) -> None:
    data = encoded(kind, mode, size, orientation)
    image = decode_image(data, "x")
    assert (image.mode, image.size) == ("RGB", image_size(BytesIO(data), "x"))
    assert not image.info
    turned = kind not in ("BMP", "GIF") and orientation >= 5
    assert image.size == (size[::-1] if turned else size)


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk just before its end."""
    chunk = len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    return data[:-12] + chunk + data[-12:]


@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt", b"tEXt"])
def test_a_png_may_say_how_it_is_turned_after_its_pixels(kind: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x tiff:Orientation="6"/>'
    raw = exif.tobytes()
    body = {
        b"eXIf": raw.removeprefix(b"Exif\0\0"),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + xmp,
        b"tEXt": b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode()),
    }[kind]
    data = with_chunk(encoded("PNG", "RGB", (30, 20), 0), kind, body)
    assert decode_image(data, "x").size == image_size(BytesIO(data), "x") == (20, 30)


def test_no_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_chunk(encoded("PNG", "RGB", (30, 20), 0), b"tEXt", b"date:create\0now")

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", refuse)
    assert image_size(BytesIO(data), "x") == (30, 20)


def test_a_cut_image_still_has_a_size(refused: Callable[..., Any]) -> None:
    data = encoded("PNG", "RGB", (300, 200), 0)[:60]
    assert image_size(BytesIO(data), "x") == (300, 200)
    with refused(UnsupportedImageError, "'x' is a damaged, truncated or unusual PNG image"):
        decode_image(data, "x")


@pytest.mark.parametrize("read", [lambda d, li: image_size(BytesIO(d), "x", li),
                                  lambda d, li: decode_image(d, "x", li)])  # fmt: skip
def test_what_is_refused(
    read: Callable[[bytes, Limits], Any],
    refused: Callable[..., Any],
    make_pdf: Callable[..., bytes],
    make_png: Callable[..., bytes],
) -> None:
    limits = Limits()
    with refused(UnsupportedImageError, "'x' is a text file"):
        read(b"hello", limits)
    with refused(UnsupportedImageError, "'x' is a PDF file where an image is expected: save"):
        read(make_pdf(), limits)
    with refused(LimitError, "megapixels allowed"):
        read(make_png(10_000, 9_500), limits)
    with refused(LimitError, "one side more than 200 times"):
        read(make_png(1, 5000), limits)
    with refused(UnsupportedImageError, "damaged"):
        read(b"\x89PNG\r\n\x1a\n" + b"x" * 30, limits)


@given(data=st.binary(max_size=200), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF"]))
def test_noise_is_refused_in_one_sentence(data: bytes, kind: str) -> None:
    head = encoded(kind, "RGB", (9, 7), 6)
    for content in (head[:20] + data, data + head):
        try:
            width, height = image_size(BytesIO(content), "x")
        except decode.InputError as error:
            assert str(error).isprintable()
        else:
            assert width > 0 < height
