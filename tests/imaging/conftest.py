"""Files built on the fly: PDFs written by hand, images of every kind that PIL can save."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from alignvlm.errors import AlignVLMError

_PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_ID = b"0123456789abcdef"


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _encryption(password: bytes) -> tuple[bytes, bytes]:
    """The file key and the /Encrypt dictionary of PDF 1.7, 7.6.3 (revision 2, 40 bits)."""
    user = (password + _PAD)[:32]
    owner_entry = _rc4(hashlib.md5((b"owner" + _PAD)[:32]).digest()[:5], user)
    permissions = struct.pack("<i", -4)
    key = hashlib.md5(user + owner_entry + permissions + _ID).digest()[:5]
    entries = (owner_entry.hex().encode(), _rc4(key, _PAD).hex().encode())
    return key, b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % entries


@pytest.fixture(scope="session")
def make_pdf() -> Callable[..., bytes]:
    """Write a PDF whose pages hold a black square of 36 pt, 36 pt from the left and the top."""

    def make(
        sizes: tuple[tuple[float, float], ...] = ((144, 288),),
        password: bytes | None = None,
        page_extra: bytes = b"",
    ) -> bytes:
        count = len(sizes)
        kids = b" ".join(b"%d 0 R" % (3 + 2 * index) for index in range(count))
        bodies = [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids),
        ]
        key, encrypt = _encryption(password) if password is not None else (b"", b"")
        for index, (width, height) in enumerate(sizes):
            drawing = b"0 g 36 %g 36 36 re f" % (height - 72)
            number = 4 + 2 * index
            if key:
                salt = struct.pack("<I", number)[:3] + b"\0\0"
                drawing = _rc4(hashlib.md5(key + salt).digest()[:10], drawing)
            bodies += [
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %f %f] /Contents %d 0 R %s >>"
                % (width, height, number, page_extra),
                b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing),
            ]
        out, offsets = bytearray(b"%PDF-1.4\n"), []
        for number, body in enumerate(bodies, start=1):
            offsets.append(len(out))
            out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        xref = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
        out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
        extra = b"/Encrypt %s /ID [<%s> <%s>]" % (encrypt, _ID.hex().encode(), _ID.hex().encode())
        trailer = b"<< /Size %d /Root 1 0 R %s >>" % (len(bodies) + 1, extra if key else b"")
        out += b"trailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (trailer, xref)
        return bytes(out)

    return make


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """An image as the bytes of a file."""

    def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, format=kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    """A grey PNG whose header states any size, with as many pixels as it needs or fewer."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    def make(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        )

    return make


@pytest.fixture
def refused() -> Callable[..., Any]:
    """Like pytest.raises, and the message is one clean sentence."""

    @contextmanager
    def check(kind: type[AlignVLMError], match: str) -> Iterator[None]:
        with pytest.raises(kind, match=match) as caught:
            yield
        assert caught.type is kind
        message = str(caught.value)
        assert message.isprintable()
        assert not re.search(r"0x[0-9a-fA-F]{4,}|<[\w.]+ |object at|site-packages|Errno", message)
        assert ": " in message  # what to do follows the colon

    return check
