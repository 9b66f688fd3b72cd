"""From a file to its pages.

`load_pages` is what the rest of the package calls: it decodes in a separate process with limits
(`alignvlm.imaging.client`). `open_document` does the decoding itself and runs in that process;
it trusts nothing in the file, but a flaw in a decoder would be a flaw of the calling process.

Formats are told by content, never by file name, and only those of `SIGNATURES` are ever given to
a decoder: most published flaws of image libraries sit in formats that no document comes in.
This is the only module that calls `PIL.Image.open`.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from os import PathLike
from typing import IO, Final, final

from PIL import Image

from alignvlm.errors import AlignVLMError, InputError, LimitError, PdfError, UnsupportedImageError
from alignvlm.imaging.sources import SIGNATURES, parse_pages, quoted, read_source, sniff
from alignvlm.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "PDF_DPI",
    "PDF_MAX_SIDE_PX",
    "Document",
    "Page",
    "decode_image",
    "image_size",
    "load_pages",
    "on_paper",
    "open_document",
    "parse_pages",
    "rgb_strips",
    "upright",
]

PDF_DPI: Final = 150.0
"""Resolution at which PDF pages are drawn: 10-point text becomes 21 px high."""

PDF_MAX_SIDE_PX: Final = 2000
"""Longest side of a drawn PDF page; A4 and US letter at 150 dpi stay below it."""

_STRIP_PX = 4_000_000
_HEAD_BYTES = 1024
_ORIENTATION_TAG = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
# Chunks of a PNG from which PIL takes an orientation, by type and beginning.
_PNG_ORIENTATIONS = (b"eXIf", b"tEXtRaw profile", b"zTXtRaw profile", b"iTXtXML:com.adobe.xmp")
_UPRIGHT = {  # EXIF 2.32, tag Orientation: what brings each value to 1
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: an RGB image, its 1-based number, and the file's name as the user gave it."""

    image: Image.Image
    number: int
    source: str


class Document(ABC):
    """An opened file whose pages can be decoded one at a time."""

    num_pages: int

    @abstractmethod
    def page(self, number: int) -> Image.Image:
        """Decode the 1-based page; any mode that `rgb_strips` takes, upright."""


def load_pages(
    path: str | PathLike[str],
    pages: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    pdf_dpi: float = PDF_DPI,
    pdf_max_side_px: int = PDF_MAX_SIDE_PX,
) -> Iterator[Page]:
    """Yield the pages of a PNG, JPEG, WEBP, TIFF, BMP, GIF or PDF file as RGB images.

    All frames of a TIFF are pages; of animations only the first frame is one. Pages are turned
    upright as EXIF says, transparency is laid on white, and 16-bit greys become 8-bit. Colour
    profiles are ignored. Each page is decoded when it is asked for, in a process of its own that
    has `limits` on memory and time and ends with this generator.

    Args:
        path: the file.
        pages: which pages, such as ``"1-3,5"`` (see `parse_pages`); None means all.
        limits: what to accept.
        pdf_dpi: resolution for PDF pages, in dots per inch.
        pdf_max_side_px: PDF pages that would be longer than this are drawn smaller.

    Raises:
        UsageError: `pages` is not a list of pages.
        UnsupportedImageError: not an accepted format, or damaged.
        PdfError: the PDF is damaged, encrypted, empty, or lacks a page asked for.
        LimitError: the file or a page exceeds `limits`.
        InputError: the file cannot be read, or lacks a page asked for.
    """
    from alignvlm.imaging.client import DecodingWorker  # it starts the process that imports us

    if pages is not None:
        parse_pages(pages, None)
    data, source = read_source(path, limits)
    kind = sniff(data, source)
    with DecodingWorker(
        data, source, limits, pdf_dpi=pdf_dpi, pdf_max_side_px=pdf_max_side_px
    ) as worker:
        del data
        numbers = range(1, worker.num_pages + 1)
        try:
            chosen = numbers if pages is None else parse_pages(pages, worker.num_pages, source)
        except InputError as error:
            raise (PdfError if kind == "PDF" else InputError)(str(error)) from None
        for number in chosen:
            yield Page(image=worker.page(number), number=number, source=source)


def open_document(
    data: bytes,
    source: str,
    limits: Limits = DEFAULT_LIMITS,
    *,
    pdf_dpi: float = PDF_DPI,
    pdf_max_side_px: int = PDF_MAX_SIDE_PX,
) -> Document:
    """Open a file's content in this process; see `load_pages` for arguments and errors."""
    kind = sniff(data, source)
    if kind == "PDF":
        from alignvlm.imaging.pdf import PdfDocument  # images do not need it

        return PdfDocument(data, source, limits, dpi=pdf_dpi, max_side_px=pdf_max_side_px)
    return ImageDocument(data, source, limits, kind)


def image_size(file: IO[bytes], source: str, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(width, height) of an image file as `decode_image` would return it, from its header.

    Args:
        file: its content, which can be read from any place.
        source: its name, for messages.
        limits: what to accept.

    Raises:
        UnsupportedImageError: not an image of an accepted format, or its header is damaged.
        LimitError: it is larger than `limits` allow.
    """
    file.seek(0)
    kind = _image_kind(file.read(_HEAD_BYTES), source)
    import_module(f"PIL.{SIGNATURES[kind].plugin}")
    with decoding(quoted(source), f"{kind} image"):
        decode_all = kind == "PNG" and _orientation_follows_pixels(file)
        file.seek(0)
        image = Image.open(file, formats=[kind])
        width, height = image.size
        check_page_size(width, height, source, 1, limits)
        if kind == "PNG" and not decode_all:
            # What PIL's PNG class adds to this method is the decoding of all pixels.
            orientation = _orientation(image, Image.Image.getexif)
        else:
            orientation = _orientation(image)
    # PIL itself turns a TIFF, and says its upright size beforehand.
    return (height, width) if orientation in _ON_ITS_SIDE and kind != "TIFF" else (width, height)


def decode_image(data: bytes, source: str, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The image in a file's content, the first one of several: RGB and upright.

    It is decoded in this process, as `open_document` does.

    Raises:
        UnsupportedImageError: not an image of an accepted format, or damaged.
        LimitError: it is larger than `limits` allow.
    """
    document = ImageDocument(data, source, limits, _image_kind(data, source))
    image = document.page(1)
    with decoding(quoted(source), "image"):
        page = on_paper(image, quoted(source))
    page.info.clear()  # whoever sees the EXIF data again would turn it again
    return page


def _image_kind(data: bytes, source: str) -> str:
    kind = sniff(data, source)
    if kind not in SIGNATURES:
        raise UnsupportedImageError(
            f"{quoted(source)} is a {kind} file where an image is expected: save its page as PNG"
        )
    return kind


def _orientation_follows_pixels(file: IO[bytes]) -> bool:
    """Whether a PNG says how it is turned only after its pixels."""
    file.seek(8)
    pixels_seen = False
    while len(head := file.read(8)) == 8:
        length, chunk = int.from_bytes(head[:4], "big"), head[4:]
        pixels_seen = pixels_seen or chunk == b"IDAT"
        beginning = file.read(min(length, 24))
        if pixels_seen and (chunk + beginning).startswith(_PNG_ORIENTATIONS):
            return True
        file.seek(length - len(beginning) + 4, os.SEEK_CUR)
    return False


@final
class ImageDocument(Document):
    """An image file; several pages only if it is a TIFF."""

    def __init__(self, data: bytes, source: str, limits: Limits, kind: str) -> None:
        import_module(f"PIL.{SIGNATURES[kind].plugin}")  # else PIL imports all 43 formats
        self._data, self._source, self._limits, self._kind = data, source, limits, kind
        self.num_pages = 1
        if kind == "TIFF":
            self.num_pages = self._count_frames()

    def _count_frames(self) -> int:
        limit = self._limits.max_pages
        with self._guarded(), self._open() as image:
            for frame in range(1, limit + 1):
                try:
                    image.seek(frame)
                except EOFError:
                    return frame
        raise LimitError(
            f"{quoted(self._source)} has more than the {limit} pages allowed: split the file"
        )

    def page(self, number: int) -> Image.Image:
        with self._guarded():
            image = self._open()
            if number > 1:
                image.seek(number - 1)
            check_page_size(*image.size, self._source, number, self._limits)
            image.load()
            return upright(image)

    def _open(self) -> Image.Image:
        """Reads the header, no pixels."""
        return Image.open(BytesIO(self._data), formats=[self._kind])

    def _guarded(self) -> AbstractContextManager[None]:
        return decoding(quoted(self._source), f"{self._kind} image")


@contextmanager
def decoding(
    subject: str, kind: str, damaged: type[InputError] = UnsupportedImageError
) -> Iterator[None]:
    """Turn whatever a decoder raises into one of our errors.

    Decoders fail on damaged files with any built-in exception (KeyError, struct.error, ...), and
    their messages may hold addresses, hence the broad clause and a sentence of our own.
    """
    try:
        with warnings.catch_warnings():
            # PIL warns of its own pixel limit and of metadata; `check_page_size` is our limit.
            warnings.simplefilter("ignore")
            yield
    except AlignVLMError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise LimitError(
            f"{subject} needs more memory to decode than is allowed: scale the page down"
        ) from error
    except Exception as error:
        raise damaged(
            f"{subject} is a damaged, truncated or unusual {kind}: "
            "get a complete copy or save it again with another program"
        ) from error


def check_page_size(width: int, height: int, source: str, number: int, limits: Limits) -> None:
    """Refuse a page by the size that its header states, before any pixel is decoded."""
    page = f"Page {number} of {quoted(source)}"
    if width < 1 or height < 1:
        raise UnsupportedImageError(f"{page} is {width} x {height} px: it has no pixels to read")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise LimitError(
            f"{page} is {width} x {height} px, one side more than {limits.max_aspect:g} times "
            "the other: crop it"
        )
    if width * height > limits.max_page_px:
        raise LimitError(
            f"{page} is {width} x {height} px, more than the "
            f"{limits.max_page_px / 1e6:g} megapixels allowed: scale it down"
        )


def rgb_strips(image: Image.Image, source: str) -> Iterator[Image.Image]:
    """The page from top to bottom in RGB strips, so that no whole page is held twice."""
    rows = max(1, _STRIP_PX // image.width)
    for top in range(0, image.height, rows):
        with decoding(quoted(source), "image"):
            strip = image.crop((0, top, image.width, min(image.height, top + rows)))
            rgb = on_paper(strip, quoted(source))
        yield rgb


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says; what says so stays in `info`."""
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def on_paper(image: Image.Image, subject: str) -> Image.Image:
    """A new RGB image: transparency is laid on white, 16-bit greys become 8-bit.

    Raises an UnsupportedImageError, which begins with `subject`, for 32 bits a sample.
    """
    if image.mode in ("I", "F"):
        # Without a stated black and white there is no right way to show such samples.
        raise UnsupportedImageError(
            f"{subject} has 32 bits a sample, which documents do not: save it with 8 bits"
        )
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode[:-1] + "A")
    rgba = image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(rgba, mask=rgba.getchannel("A"))
    return paper


def _orientation(
    image: Image.Image, getexif: Callable[[Image.Image], Image.Exif] | None = None
) -> int:
    try:
        exif = image.getexif() if getexif is None else getexif(image)
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata is no reason to refuse the pixels
        return 1
