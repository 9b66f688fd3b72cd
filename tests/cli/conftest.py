"""A stub in the model's place, and files of every kind that a user may name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Generator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from alignvlm.errors import UsageError
from alignvlm.imaging.decode import Page
from alignvlm.inference import answerer
from alignvlm.inference.ask import Answer, Answerer


class StubAnswerer(Answerer):
    """Answers with the size of the page; records what it was asked."""

    made: list[StubAnswerer]
    error: BaseException | None = None
    sure_page = 2  # of several pages the one it is surest of

    def __init__(self, model: str | None, device: str, announce: Callable[[str], None]) -> None:
        self.model, self.device, self.announce = model, device, announce
        self.asked: list[tuple[str, int, str, int]] = []
        StubAnswerer.made.append(self)

    def answer(
        self, page: Page, question: str, max_new_tokens: int
    ) -> Generator[str, None, Answer]:
        if len(question) > 1000:
            raise UsageError("The question has 1001 tokens and the model reads 1000: shorten it")
        if not self.asked:
            self.announce("Running on a stub")
        self.asked.append((page.source, page.number, question, max_new_tokens))
        if StubAnswerer.error is not None:
            raise StubAnswerer.error
        width, height = page.image.size
        tokens = [f"{width}", " x", f" {height}"][:max_new_tokens]
        yield from tokens
        probability = 0.9 if page.number == self.sure_page else 0.5
        return Answer(
            text="".join(tokens),
            page=page.number,
            source=page.source,
            seconds=0.25,
            num_visual_tokens=7 if width > 50 else 0,
            tokens=tuple((token, probability) for token in tokens),
            complete=max_new_tokens >= 3,
        )


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubAnswerer]:
    """Every command of this test asks a stub; nothing loads a model."""
    StubAnswerer.made = []
    monkeypatch.setattr(StubAnswerer, "error", None)
    monkeypatch.setattr(answerer, "ModelAnswerer", StubAnswerer)
    return StubAnswerer


@pytest.fixture(scope="session")
def drawn() -> Image.Image:
    """A small page with a black bar."""
    image = Image.new("RGB", (120, 80), "white")
    ImageDraw.Draw(image).rectangle((20, 20, 90, 40), fill="black")
    return image


@pytest.fixture
def page_png(tmp_path: Path, drawn: Image.Image) -> Path:
    path = tmp_path / "page.png"
    drawn.save(path)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_any_size(width: int, height: int) -> bytes:
    """A PNG whose header states a size that its few bytes of pixels need not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="session")
def bad_files(drawn: Image.Image) -> dict[str, bytes]:
    """Content by kind of badness."""
    png, pdf = encoded(drawn, "PNG"), encoded(drawn, "PDF")
    locked = b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >> /ID [<%s> <%s>]"
    entry = b"11" * 32
    return {
        "empty": b"",
        "text": b"Dear Sir or Madam,\n",
        "other format": encoded(drawn, "PPM"),
        "truncated": png[: len(png) // 2],
        "bomb": png_of_any_size(12_000, 12_000),
        "larger bomb": png_of_any_size(50_000, 50_000),
        "strip": png_of_any_size(1, 100_000),
        "no pixels": png_of_any_size(0, 10),
        "damaged PDF": pdf[:200],
        "encrypted PDF": pdf.replace(
            b"trailer\n<<", b"trailer\n<< " + locked % (entry, entry, b"11" * 16, b"11" * 16)
        ),
    }


@pytest.fixture(scope="session")
def good_files(drawn: Image.Image) -> dict[str, bytes]:
    """Files that look unusual and are read all the same, by name."""
    turned = Image.Exif()
    turned[0x0112] = 6
    sixteen = Image.frombytes("I;16", (120, 80), bytes(120 * 80 * 2))
    red = Image.new("RGB", drawn.size, "red")
    return {
        "page.png": encoded(drawn, "PNG"),
        "page.bmp": encoded(drawn, "BMP"),
        "page.webp": encoded(drawn, "WEBP"),
        "page.pdf": encoded(drawn, "PDF", resolution=150),
        "cmyk.jpg": encoded(drawn.convert("CMYK"), "JPEG"),
        "sixteen.png": encoded(sixteen, "PNG"),
        "palette.gif": encoded(drawn.convert("P"), "GIF"),
        "alpha.png": encoded(drawn.convert("RGBA"), "PNG"),
        "turned.jpg": encoded(drawn.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned),
        "animated.gif": encoded(drawn, "GIF", save_all=True, append_images=[red]),
        "pages.tiff": encoded(drawn, "TIFF", save_all=True, append_images=[red, drawn]),
    }


@pytest.fixture
def one_sentence() -> Callable[[str], str]:
    """The only line of stderr, checked to be one clean sentence."""

    def check(err: str) -> str:
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("Error: ")
        assert ": " in lines[0].removeprefix("Error: "), "what to do follows a colon"
        assert not any(part in err for part in ("Traceback", "Errno", "object at", "site-packages"))
        return lines[0]

    return check
