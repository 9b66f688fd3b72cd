"""What can be said about a file before any decoder sees it: bytes, format, page numbers."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from os import PathLike
from typing import Final

from alignvlm.errors import InputError, LimitError, UnsupportedImageError, UsageError
from alignvlm.limits import Limits

__all__ = ["SIGNATURES", "Signature", "parse_pages", "quoted", "read_source", "sniff"]

ACCEPTED: Final = "PNG, JPEG, WEBP, TIFF, BMP, GIF and PDF"

_PDF_HEADER_BYTES = 1024
"""PDF 1.7, implementation note 13: the header may lie anywhere in the first 1024 bytes."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How a format begins (`.` stands for any byte) and the PIL module that decodes it."""

    pattern: re.Pattern[bytes]
    plugin: str


def _signature(pattern: bytes, plugin: str) -> Signature:
    return Signature(pattern=re.compile(pattern, re.DOTALL), plugin=plugin)


SIGNATURES: Final = {
    "PNG": _signature(rb"\x89PNG\r\n\x1a\n", "PngImagePlugin"),
    "JPEG": _signature(rb"\xff\xd8\xff", "JpegImagePlugin"),
    "WEBP": _signature(rb"RIFF....WEBP", "WebPImagePlugin"),
    "TIFF": _signature(rb"II[*+]\0|MM\0[*+]", "TiffImagePlugin"),
    "GIF": _signature(rb"GIF8[79]a", "GifImagePlugin"),
    # "BM" alone also begins texts; bytes 14-17 are the size of one of the known headers.
    "BMP": _signature(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BmpImagePlugin"),
}
"""The image formats that are decoded, by PIL's names; nothing else reaches a decoder."""

_KNOWN_OTHERS: Final = (
    (rb"....ftyp(heic|heix|mif1|msf1|hevc)", "a HEIC image"),
    (rb"....ftypavif", "an AVIF image"),
    (rb"\0\0\0\x0cjP  |\xffO\xffQ", "a JPEG 2000 image"),
    (rb"8BPS", "a Photoshop image"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"SIMPLE  =", "a FITS image"),
    (rb"\0\0[\x01\x02]\0(?!\0\0)", "an icon"),  # of at least one picture
    # No magic number: kind, no colour map, place and size, bits of a pixel.
    (rb".\0[\x02\x03\x0a\x0b]\0{5}.{8}[\x08\x0f\x10\x18\x20]", "a TGA image"),
    (rb"P[1-7]\s", "a Netpbm image"),
    (rb"PK\x03\x04", "a ZIP archive or office document"),
    (rb"\xd0\xcf\x11\xe0", "an office document"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed archive"),
    (rb"MZ|\x7fELF", "a program"),
    (rb"\s*<(\?xml|svg)", "an SVG or XML file"),
    (rb"\s*<(!doctype )?html", "a web page"),
)


def quoted(source: str) -> str:
    """The file's name for a message: as given, without characters that steer a terminal."""
    printable = "".join(char if char.isprintable() else "?" for char in source)
    return f"'{printable}'"


def read_source(path: str | PathLike[str], limits: Limits) -> tuple[bytes, str]:
    """The content of a regular file, and its name as given.

    Raises InputError if it cannot be read, LimitError if it is larger than allowed.
    """
    source = os.fspath(path)
    name = quoted(source)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{name} is a folder: name the files in it")
        if not stat.S_ISREG(mode):  # a pipe or a device may never end
            raise InputError(f"{name} is a pipe or a device: copy it to a file first")
        with open(source, "rb") as file:
            data = file.read(limits.max_file_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"There is no file {name}: check the name and the folder") from None
    except PermissionError:
        raise InputError(f"{name} may not be read by this user: change its permissions") from None
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "no valid name"
        )
        raise InputError(f"{name} cannot be read ({reason}): check the name and the disk") from None
    if not data:
        raise UnsupportedImageError(f"{name} is empty: copy or download it again")
    if len(data) > limits.max_file_bytes:
        raise LimitError(
            f"{name} is larger than the {limits.max_file_bytes / 1e6:g} MB allowed: "
            "split it or compress it"
        )
    return data, source


def sniff(data: bytes, source: str) -> str:
    """The format by its first bytes: a key of `SIGNATURES` or "PDF".

    Raises UnsupportedImageError for everything else.
    """
    for kind, signature in SIGNATURES.items():
        if signature.pattern.match(data):
            return kind
    if b"%PDF-" in data[:_PDF_HEADER_BYTES]:
        return "PDF"
    raise UnsupportedImageError(
        f"{quoted(source)} is {_describe(data)}, not a page that can be read: "
        f"convert it to one of {ACCEPTED}"
    )


def _describe(data: bytes) -> str:
    for pattern, name in _KNOWN_OTHERS:
        if re.match(pattern, data, re.DOTALL | re.IGNORECASE):
            return name
    head = data[:_PDF_HEADER_BYTES]
    is_text = b"\0" not in head and not re.search(rb"[\x01-\x08\x0e-\x1a\x7f]", head)
    return "a text file" if is_text else "of an unknown format"


def parse_pages(spec: str, num_pages: int | None, source: str | None = None) -> list[int]:
    """Page numbers from text such as ``"1-3,5"``: 1-based, in the order given, no repeats.

    `num_pages` None checks the text alone and returns []. `source` is named in the message.
    Raises UsageError if the text is not a list of pages, InputError for a page beyond the last.
    """
    numbers: dict[int, None] = {}
    for part in spec.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise UsageError(
                f"{quoted(spec)} is not a list of pages: write it like 1-3,5, counting from 1"
            )
        if num_pages is None:
            continue
        if last > num_pages:
            name = "the document" if source is None else quoted(source)
            unit = "page" if num_pages == 1 else "pages"
            raise InputError(f"There is no page {last} in {name}: it has {num_pages} {unit}")
        numbers |= dict.fromkeys(range(first, last + 1))
    return list(numbers)
