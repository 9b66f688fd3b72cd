from __future__ import annotations

import random
import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from alignvlm.errors import AlignVLMError, LimitError, UnsupportedImageError
from alignvlm.imaging.decode import ImageDocument, open_document, rgb_strips
from alignvlm.limits import DEFAULT_LIMITS, Limits

WIDTH, HEIGHT = 48, 32


def pixels(data: bytes, number: int = 1, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    image = open_document(data, "page.png", limits).page(number)
    strips = [np.asarray(strip) for strip in rgb_strips(image, "page.png")]
    assert all(strip.dtype == np.uint8 and strip.ndim == 3 for strip in strips)
    return np.concatenate(strips)


def picture() -> Image.Image:
    """Red, green, blue and white in unequal parts, on the grid of JPEG's blocks."""
    array = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    array[:16, :32] = (255, 0, 0)
    array[:16, 32:] = (0, 255, 0)
    array[16:, :32] = (0, 0, 255)
    array[16:, 32:] = 255
    return Image.fromarray(array)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("TIFF", {"big_tiff": True}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 5),
        ("JPEG", {"quality": 95, "subsampling": 0}, 2),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 2),
    ],
)
def test_formats(encode, kind: str, options: dict, tolerance: int) -> None:
    result = pixels(encode(picture(), kind, **options)).astype(int)
    assert np.abs(result - np.asarray(picture())).mean() <= tolerance


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("1", "TIFF"),
        ("1", "BMP"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("P", "PNG"),
        ("P", "BMP"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("CMYK", "TIFF"),
        ("CMYK", "JPEG"),
        ("YCbCr", "TIFF"),
    ],
)
def test_modes_keep_black_and_white(encode, mode: str, kind: str) -> None:
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    page.paste((0, 0, 0), (0, 0, 16, 16))
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    result = pixels(encode(page.convert(mode), kind, **options)).astype(int)
    assert np.abs(result - np.asarray(page)).max() <= 6


def test_sixteen_bit_grey(encode) -> None:
    samples = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    expected = np.array([[0, 0, 1, 128, 255]])
    for kind in ("PNG", "TIFF"):
        result = pixels(encode(Image.fromarray(samples), kind))
        np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=2))


def test_sixteen_bit_big_endian_tiff() -> None:
    samples = np.array([[0, 32768, 65535]], dtype=">u2").tobytes()
    result = pixels(tiff(3, 1, samples, bits=16, order=">"))
    assert result[0, :, 0].tolist() == [0, 128, 255]


def test_sixteen_bit_colour_png(make_png) -> None:
    row = b"\0" + np.array([65535, 32768, 0], dtype=">u2").tobytes()
    assert pixels(make_png(1, 1, depth=16, colour=2, rows=row)).tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bit_samples_are_refused(encode, refused, mode: str) -> None:
    data = encode(Image.new(mode, (4, 4)), "TIFF")
    with refused(UnsupportedImageError, "32 bits a sample"):
        pixels(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white_paper(encode, mode: str) -> None:
    page = Image.new(mode, (3, 1), 0)
    page.putpixel((1, 0), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    page.putpixel((2, 0), (0, 128) if mode == "LA" else (0, 0, 0, 128))
    assert pixels(encode(page))[0, :, 0].tolist() == [255, 0, 127]


def test_transparent_palette_entry_and_colour(encode) -> None:
    page = Image.new("P", (2, 1))
    page.putpalette([10, 20, 30, 0, 0, 0])
    page.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert pixels(encode(page, kind, transparency=0)).tolist() == [[[255] * 3, [0] * 3]]
    grey = Image.new("L", (1, 1), 7)
    assert pixels(encode(grey, transparency=7)).tolist() == [[[255] * 3]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(encode, kind: str, orientation: int) -> None:
    upright = np.asarray(picture())
    # What a camera stores so that the tag brings it upright (EXIF 2.32: row 0, column 0).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    result = pixels(data).astype(int)
    assert result.shape == upright.shape
    assert np.abs(result - upright).max() <= 8


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0junk"])
def test_damaged_exif_is_no_reason_to_refuse(encode, exif: bytes) -> None:
    assert pixels(encode(picture(), "JPEG", exif=exif)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(encode, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white", "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(data)) as image:
        assert image.n_frames == 3
    assert open_document(data, "page.png").num_pages == 1
    assert pixels(data).max() == 0


def test_every_page_of_a_tiff(encode) -> None:
    frames = [Image.new("L", (8 + grey, 8), grey) for grey in (10, 20, 30)]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert open_document(data, "page.png").num_pages == 3
    for number in (3, 1, 2):
        assert pixels(data, number).shape == (8, 8 + 10 * number, 3)
        assert (pixels(data, number) == 10 * number).all()


def test_more_pages_than_allowed(encode, refused) -> None:
    frames = [Image.new("1", (1, 1))] * 5
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert open_document(data, "scan.tif", Limits(max_pages=5)).num_pages == 5
    with refused(LimitError, "'scan.tif' has more than the 4 pages allowed"):
        open_document(data, "scan.tif", Limits(max_pages=4))


def test_large_pages_come_in_strips(encode) -> None:
    rng = np.random.default_rng(0)
    page = rng.integers(0, 255, (4200, 2000), dtype=np.uint8)
    strips = list(rgb_strips(Image.fromarray(page), "page.png"))
    assert [strip.height for strip in strips] == [2000, 2000, 200]
    np.testing.assert_array_equal(np.concatenate([np.asarray(s)[..., 0] for s in strips]), page)


def tiff(width: int, height: int, strips: bytes, *, bits: int = 8, order: str = "<") -> bytes:
    """A grey TIFF of one strip that states any size."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 4, bits),
        (259, 4, 1),
        (262, 4, 1),
        (273, 4, 8),
        (277, 4, 1),
        (278, 4, height),
        (279, 4, len(strips)),
    ]
    strips += b"\0" * (len(strips) % 2)
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(strips))
    out += strips + struct.pack(f"{order}H", len(tags))
    for number, kind, value in tags:
        out += struct.pack(f"{order}HHII", number, kind, 1, value)
    return out + b"\0\0\0\0"


def bombs(encode: Callable[..., bytes], make_png: Callable[..., bytes]) -> dict[str, bytes]:
    gif = bytearray(encode(Image.new("L", (1, 1)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(encode(Image.new("L", (1, 1)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    jpeg = bytearray(encode(Image.new("L", (1, 1)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = b"\xff\xff\xff\xff"
    webp = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP"))
    size = webp.index(b"\x9d\x01\x2a") + 3
    webp[size : size + 4] = struct.pack("<HH", 16_383, 16_383)
    return {
        "PNG": make_png(13_000, 13_000),  # PIL alone would only warn
        "larger PNG": make_png(2**31 - 1, 2**31 - 1),
        "16-bit PNG": make_png(9_500, 9_500, depth=16, colour=6),
        "TIFF": tiff(100_000, 100_000, b"\0"),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "JPEG": bytes(jpeg),
        "WEBP": bytes(webp),
        "long PNG": make_png(1, 100_000),
        "wide PNG": make_png(100_000, 1),
        "wide TIFF": tiff(201, 1, b"\0" * 201),
    }


BOMBS = ["PNG", "larger PNG", "16-bit PNG", "TIFF", "GIF", "BMP", "JPEG", "WEBP"]
BOMBS += ["long PNG", "wide PNG", "wide TIFF"]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(
    encode, make_png, refused, monkeypatch, name: str
) -> None:
    data = bombs(encode, make_png)[name]
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels of a bomb were decoded")
    )
    with refused(LimitError, "page.png"):
        pixels(data)


def test_a_page_exactly_at_the_limits(make_png, refused) -> None:
    rows = (b"\0" + b"\xff" * 10) * 20
    data = make_png(10, 20, rows=rows)
    assert pixels(data, limits=Limits(max_page_px=200, max_aspect=2)).shape == (20, 10, 3)
    with refused(LimitError, "10 x 20 px, more than the 0.000199 megapixels"):
        pixels(data, limits=Limits(max_page_px=199))
    with refused(LimitError, "10 x 20 px, one side more than 1.9 times the other"):
        pixels(data, limits=Limits(max_aspect=1.9))


def test_a_page_between_pils_warning_and_our_limit_is_read(make_png) -> None:
    data = make_png(9_472, 9_472, depth=1, rows=bytes(9_472 * 1_185))
    page = open_document(data, "page.png").page(1)
    assert page.size == (9_472, 9_472) and page.mode == "1"


def test_zero_size(make_png, refused) -> None:
    for width, height in ((0, 5), (5, 0)):
        with refused(UnsupportedImageError, "no pixels|damaged"):
            pixels(make_png(width, height))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_images(encode, refused, kind: str, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (50, 50, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with refused(UnsupportedImageError, "'page.png' is a damaged, truncated or unusual"):
        pixels(data[: int(share * len(data))])


def test_too_little_memory_is_a_limit(encode, refused, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with refused(LimitError, "more memory"):
        pixels(encode(picture()))


def test_only_the_stated_format_is_tried(make_png, refused) -> None:
    """A file that begins as one format never reaches the decoder of another."""
    with refused(UnsupportedImageError, "GIF image"):
        pixels(b"GIF89a" + make_png(1, 1, rows=b"\0\0"))
    document = open_document(make_png(1, 1, rows=b"\0\0"), "page.gif")
    assert isinstance(document, ImageDocument)


@pytest.fixture(scope="session")
def seeds(encode, make_pdf) -> list[bytes]:
    noise = Image.effect_noise((24, 20), 80)
    return [
        encode(noise),
        encode(noise.convert("P"), "PNG", transparency=1),
        encode(noise.convert("RGB"), "JPEG"),
        encode(noise.convert("RGB"), "WEBP"),
        encode(noise, "TIFF", save_all=True, append_images=[noise]),
        encode(noise, "TIFF", compression="tiff_lzw"),
        encode(noise, "BMP"),
        encode(noise, "GIF"),
        make_pdf(((24, 20), (20, 24))),
        make_pdf(((24, 20),), password=b""),
    ]


@given(index=st.integers(0, 9), seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 12))
def test_damaged_files_raise_only_our_errors(
    seeds: list[bytes], index: int, seed: int, changes: int
) -> None:
    rng = random.Random(seed)
    data = bytearray(seeds[index])
    for _ in range(changes):
        place = rng.randrange(len(data))
        action = rng.randrange(4)
        if action == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x80\0\0\0"])
        elif action == 2:
            del data[place : place + rng.randrange(1, 9)]
        else:
            data[place:place] = data[: rng.randrange(1, 9)]
        data = data or bytearray(b"x")
    limits = Limits(max_page_px=1_000_000, max_pages=10)
    try:
        document = open_document(bytes(data), "page.dat", limits)
        for number in range(1, document.num_pages + 1):
            for strip in rgb_strips(document.page(number), "page.dat"):
                assert strip.mode == "RGB"
    except AlignVLMError as error:
        assert "page.dat" in str(error)
