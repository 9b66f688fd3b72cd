"""Real pages: those of PDFs with a text layer, whose characters know their places.

The PDFs are the user's own choice of training material, e.g. what `scripts/get_pdfs.sh` fetches:
unlike those to be answered about, they are opened in this process.
"""

from __future__ import annotations

import math
import statistics
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from alignvlm.errors import InputError, PdfError
from alignvlm.synth.fonts import ALPHABET, Split
from alignvlm.synth.page import Glyph, Line, Page

if TYPE_CHECKING:
    import pypdfium2  # noqa: TID251

__all__ = [
    "HELD_OUT_PDF_PACKAGES",
    "PDF_PACKAGES",
    "PdfPages",
    "find_pdfs",
    "pdf_page",
    "pdf_stream",
]

PDF_PACKAGES: tuple[str, ...] = (
    "debian-faq",
    "debian-policy",
    "debian-reference-en",
    "developers-reference",
    "docbook-xsl-doc-pdf",
    "giac-doc",
    "gnuplot-doc",
    "octave-doc",
    "python-reportlab-doc",
    "r-cran-lme4",
    "r-cran-sandwich",
    "r-cran-survival",
    "r-cran-vcd",
    "r-cran-zoo",
    "why3-doc-pdf",
)
"""Debian packages with PDF documentation (mostly GPL and GFDL: fetched, never redistributed)."""

HELD_OUT_PDF_PACKAGES: tuple[str, ...] = ("debian-faq", "giac-doc", "r-cran-vcd", "r-cran-zoo")
"""Packages never used in training."""

_MIN_CHARS = 80  # fewer is a title page or a figure
_MIN_LATIN_SHARE = 0.97  # of the characters in `ALPHABET`
_GAP_EM = 1.1  # a wider gap on a baseline is the space between two columns or cells
_X_HEIGHT_EM = 0.47  # small letters of text faces: 0.43 (Garamond) to 0.55 (Verdana) of the size
_SMALL_LETTERS = frozenset("acemnorsuvwxz")
_MAX_PAGE_PT = 1500
_TRIES = 200
_BROKEN_WORD = "\x02\xad\ufffe"  # how PDFium reports a hyphen at the end of a line


def find_pdfs(folder: str | Path, split: Split) -> list[Path]:
    """All PDFs of a split below a folder, whose subfolders are named after packages.

    Args:
        folder: e.g. what `scripts/get_pdfs.sh` filled: `folder/<package>/.../x.pdf`.
        split: `"heldout"` for the packages of `HELD_OUT_PDF_PACKAGES`, `"train"` for all others.

    Raises:
        InputError: there is none.
    """
    root = Path(folder)
    held_out = split == "heldout"
    found = sorted(
        path
        for path in root.rglob("*.pdf")
        if (path.relative_to(root).parts[0] in HELD_OUT_PDF_PACKAGES) == held_out
    )
    if not found:
        raise InputError(
            f"No PDF of the {split} split is in {root}: run `bash scripts/get_pdfs.sh {root}`"
        )
    return found


def pdf_stream(
    folder: str | Path, seed: int, split: Split = "train", dpi: tuple[int, int] = (85, 180)
) -> Iterator[Page]:
    """Endless random pages with enough Latin text: first a package, then a file, then a page.

    Args:
        folder: as in `find_pdfs`.
        seed: the stream is a function of it and of the files.
        split: `"train"` or `"heldout"`.
        dpi: lowest and highest resolution; 10 pt text is 12-25 px high at the default.

    Raises:
        InputError: there is no PDF, or hardly any page with a text layer.
    """
    rng = Random(f"pdf/{split}/{seed}")
    pages = PdfPages(folder, split)
    while True:
        yield pages.draw(rng, dpi)


class PdfPages:
    """The PDFs of a split, to draw pages from: first a package, then a file, then a page.

    Args:
        folder: as in `find_pdfs`.
        split: `"train"` or `"heldout"`.

    Raises:
        InputError: there is no PDF.
    """

    def __init__(self, folder: str | Path, split: Split) -> None:
        self._folder = Path(folder)
        self._packages: dict[str, list[Path]] = {}
        for path in find_pdfs(folder, split):
            self._packages.setdefault(path.relative_to(folder).parts[0], []).append(path)

    def draw(self, rng: Random, dpi: tuple[int, int] = (85, 180)) -> Page:
        """A page with enough Latin text, at a random resolution.

        Raises:
            InputError: hardly any page has a text layer.
        """
        try:
            for _ in range(_TRIES):
                path = rng.choice(self._packages[rng.choice(sorted(self._packages))])
                page = pdf_page(path, rng.random(), rng.randint(*dpi))
                if page is not None:
                    return page
        finally:
            _open.cache_clear()  # PDFium complains on stderr about documents open at exit
        raise InputError(
            f"The PDFs in {self._folder} have hardly any page with a text layer: add others"
        )


def pdf_page(path: Path, place: float, dpi: int) -> Page | None:
    """One page of a PDF with its text, or None if it has hardly any, or no Latin one.

    Args:
        path: the PDF.
        place: which page, as a fraction of the document in [0, 1).
        dpi: resolution in pixels per inch.

    Raises:
        PdfError: the file cannot be read as a PDF.
    """
    document = _open(path)
    number = int(place * len(document))
    page = document[number]
    try:
        if max(page.get_size()) > _MAX_PAGE_PT or page.get_rotation():
            return None
        lines = _lines(page, dpi / 72)
        if not _is_latin(lines):
            return None
        image = page.render(scale=dpi / 72, rev_byteorder=True).to_pil().convert("RGB")
    finally:
        page.close()
    return Page(image, tuple(lines), (), "pdf", number, path.stem)


@lru_cache(maxsize=16)
def _open(path: Path) -> pypdfium2.PdfDocument:
    import pypdfium2  # noqa: TID251

    try:
        return pypdfium2.PdfDocument(path)
    except (pypdfium2.PdfiumError, OSError) as error:
        raise PdfError(f"{path} cannot be read as a PDF: remove it from the folder") from error


@dataclass(frozen=True)
class _Char:
    """A character as PDFium reports it, in px from the top left; spaces have no ink."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    base: float


def _lines(page: pypdfium2.PdfPage, scale: float) -> list[Line]:
    """The text layer as runs of characters on one baseline."""
    lines = []
    for run in _runs(_chars(page, scale)):
        while run and run[-1].text == " ":
            del run[-1]
        if run:
            lines.append(_line(run))
    return lines


def _chars(page: pypdfium2.PdfPage, scale: float) -> Iterator[_Char]:
    """Upright characters in the order of the text layer."""
    from ctypes import byref, c_double

    from pypdfium2 import raw  # noqa: TID251

    left, _, _, top = page.get_bbox()
    text = page.get_textpage()
    for index in range(text.count_chars()):
        char = chr(raw.FPDFText_GetUnicode(text, index))
        if char.isspace() or raw.FPDFText_IsGenerated(text, index) == 1:
            yield _Char(" ", 0, 0, 0, 0, 0)
            continue
        char = "-" if char in _BROKEN_WORD else char
        angle = raw.FPDFText_GetCharAngle(text, index)
        if min(abs(angle), abs(angle - 2 * math.pi)) > 0.02 or not char.isprintable():
            continue
        x, y = c_double(), c_double()
        raw.FPDFText_GetCharOrigin(text, index, byref(x), byref(y))
        x0, y0, x1, y1 = text.get_charbox(index)
        yield _Char(
            char,
            (x0 - left) * scale,
            (top - y1) * scale,
            (x1 - left) * scale,
            (top - y0) * scale,
            (top - y.value) * scale,
        )
    text.close()


def _runs(chars: Iterator[_Char]) -> Iterator[list[_Char]]:
    """Cut where the baseline changes, the text steps back, or a gap is as wide as a column's."""
    run: list[_Char] = []
    last: _Char | None = None
    for char in chars:
        if char.text == " ":
            if run and run[-1].text != " ":
                run.append(char)
            continue
        if last is not None:
            if (char.x0, char.x1, char.base) == (last.x0, last.x1, last.base):
                # The letters of a ligature come one by one, each with the box of the whole.
                run[-1] = last = replace(last, text=last.text + char.text)
                continue
            em = max(last.y1 - last.y0, char.y1 - char.y0) * 1.4
            level = abs(char.base - last.base) < 0.15 * em
            if not level or not -0.3 * em < char.x0 - last.x1 < _GAP_EM * em:
                yield run
                run = []
        run.append(char)
        last = char
    yield run


def _line(run: Sequence[_Char]) -> Line:
    inked = [char for char in run if char.text != " "]
    base = statistics.median(char.base for char in inked)
    small = [char.base - char.y0 for char in inked if char.text in _SMALL_LETTERS]
    tall = [char.base - char.y0 for char in inked]
    x_height = max(statistics.median(small) if small else 0.7 * statistics.median(tall), 1.0)
    glyphs: list[Glyph] = []
    for index, char in enumerate(run):
        if char.text == " ":
            x0, x1 = glyphs[-1].x1, run[index + 1].x0
            glyphs.append(Glyph(" ", x0, base - x_height, max(x0 + 1, x1), base))
        else:
            glyphs.extend(_glyphs(char))
    text = "".join(glyph.char for glyph in glyphs)
    return Line(text, tuple(glyphs), base, x_height / _X_HEIGHT_EM, x_height)


def _glyphs(char: _Char) -> list[Glyph]:
    """One glyph, or the letters of a ligature side by side; accents stay on their letters."""
    parts = char.text if char.text in ALPHABET else unicodedata.normalize("NFKC", char.text)
    step = (char.x1 - char.x0) / len(parts)
    return [
        Glyph(part, char.x0 + index * step, char.y0, char.x0 + (index + 1) * step, char.y1)
        for index, part in enumerate(parts)
    ]


def _is_latin(lines: Sequence[Line]) -> bool:
    text = "".join(line.text for line in lines)
    known = sum(char in ALPHABET for char in text)
    return len(text) >= _MIN_CHARS and known >= _MIN_LATIN_SHARE * len(text)
