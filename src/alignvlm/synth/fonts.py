"""Fonts for drawn pages: which to install, which are held out, how a face is measured.

Training and evaluation never share a font family: `split="heldout"` gives the families listed in
`HELD_OUT_FAMILIES`, `split="train"` all others.
"""

from __future__ import annotations

import json
import os
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

from PIL import ImageFont

from alignvlm.errors import MissingDependencyError
from alignvlm.files import write_atomically
from alignvlm.paths import cache_dir

__all__ = [
    "ALPHABET",
    "FONT_PACKAGES",
    "HELD_OUT_FAMILIES",
    "Font",
    "SizedFont",
    "Split",
    "find_fonts",
    "pick_font",
]

Split = Literal["train", "heldout"]

FONT_PACKAGES: tuple[str, ...] = (
    "fonts-breip",
    "fonts-cabin",
    "fonts-cantarell",
    "fonts-cmu",
    "fonts-comfortaa",
    "fonts-courier-prime",
    "fonts-crosextra-caladea",
    "fonts-crosextra-carlito",
    "fonts-dancingscript",
    "fonts-dejavu-core",
    "fonts-dejavu-extra",
    "fonts-ebgaramond",
    "fonts-femkeklaver",
    "fonts-firacode",
    "fonts-freefont-ttf",
    "fonts-gfs-didot",
    "fonts-go",
    "fonts-hack",
    "fonts-inconsolata",
    "fonts-jetbrains-mono",
    "fonts-junicode",
    "fonts-lato",
    "fonts-liberation",
    "fonts-linuxlibertine",
    "fonts-lmodern",
    "fonts-ocr-a",
    "fonts-ocr-b",
    "fonts-open-sans",
    "fonts-opendyslexic",
    "fonts-paratype",
    "fonts-quicksand",
    "fonts-roboto-slab",
    "fonts-roboto-unhinted",
    "fonts-sil-andika",
    "fonts-sil-charis",
    "fonts-sil-gentium",
    "fonts-texgyre",
    "fonts-urw-base35",
    "fonts-vollkorn",
)
"""Debian packages with the fonts (OFL, Apache, GPL with font exception and similar licences)."""

HELD_OUT_FAMILIES: tuple[str, ...] = (
    "Cantarell",
    "Courier Prime",
    "Gentium",
    "JetBrains Mono",
    "Linux Biolinum",
    "Linux Libertine",
    "Noto Sans",
    "Open Sans",
    "P052",
    "PT Mono",
    "PT Sans",
    "PT Serif",
    "Roboto Slab",
    "TeX Gyre Pagella",
)
"""Beginnings of family names never used in training.

Serif, sans, monospace, slab and humanist designs; a design and its clones are held out together
(P052 and TeX Gyre Pagella are the same Palatino, Noto Sans and Open Sans have one ancestor).
"""

_HANDWRITTEN_FAMILIES = ("Breip", "Dancing Script", "Femke Klaver", "femkeklaver", "OCRA")
# Symbols, ornaments, small capitals in place of lower case, outlines, and connected chanceries:
# what such a face draws is not the character it is asked for, or no page is set in it.
_REFUSED_NAMES = (
    "symbol", "dingbat", "d050000l", "z003", "chorus", "initial", "keyboard", "math", "caps",
    "emoji", "icons", "unifont", "outline", "webfont", "lastresort", "powerline",
    "-sc", "barcode", "ocraitalic",
)  # fmt: skip
_EXTRA = "£€§°©éèêëáàâäåãæçíìîïñóòôöøõúùûüßÉÖÜÄÇÑ–—‘’“”•…"
ALPHABET = string.digits + string.ascii_letters + string.punctuation + " " + _EXTRA
"""Every character that a drawn page may hold: printable ASCII, then currency, accents, quotes."""

_ASCII = "".join(c for c in ALPHABET if c.isascii() and c != " ")
_SPELLED = {
    "£": "GBP ", "€": "EUR ", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',
    "•": "*", "…": "...", "ß": "ss", "æ": "ae", "ø": "o", "§": "Sec. ", "°": " deg", "©": "(c)",
}  # fmt: skip
_SYSTEM_FOLDERS = (
    "/usr/share/fonts", "/usr/share/texmf/fonts", "/usr/local/share/fonts",
    "~/.local/share/fonts", "~/.fonts", "/Library/Fonts", "/System/Library/Fonts",
    "C:/Windows/Fonts",
)  # fmt: skip
_SCAN_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Font:
    """One face in one file.

    Attributes:
        path: the .ttf or .otf file.
        family: family name from the file, e.g. `"Liberation Sans"`.
        style: style name from the file, e.g. `"Bold Italic"`.
        lacks: characters of `ALPHABET` that the face cannot draw (none of them is ASCII).
    """

    path: str
    family: str
    style: str
    lacks: str

    @property
    def handwritten(self) -> bool:
        """Whether the face is far from print (handwriting, OCR-A): drawn seldom."""
        return self.family.startswith(_HANDWRITTEN_FAMILIES)

    @property
    def upright(self) -> bool:
        """Whether the face is a plain one: not bold, not italic, not handwritten."""
        style = self.style.lower()
        plain = not any(w in style for w in ("bold", "ital", "obl", "black", "heavy", "slant"))
        return plain and not self.handwritten

    def at(self, size_px: int) -> SizedFont:
        """The face at `size_px` pixels per em."""
        return _sized(self.path, size_px)

    def spell(self, text: str) -> str:
        """`text` with every character that the face or `ALPHABET` lacks written in others."""
        if text.isascii() and text.isprintable():
            return text
        return "".join(self._spell_one(char) for char in text)

    def _spell_one(self, char: str) -> str:
        if char in ALPHABET and char not in self.lacks:
            return char
        if char in _SPELLED:
            return _SPELLED[char]
        base = unicodedata.normalize("NFKD", char)
        return "".join(c for c in base if c in _ASCII) or " "


class SizedFont:
    """A face at one size, with the metrics of its characters remembered.

    Attributes:
        face: the FreeType face, with the basic layout: one glyph a character, pair kerning only.
        size_px: pixels per em.
        x_height_px: height of the ink of `x` over the baseline.
    """

    def __init__(self, path: str, size_px: int) -> None:
        self.face = ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)
        self.size_px = size_px
        self._advance: dict[str, float] = {}
        self._pair: dict[str, float] = {}
        self._ink: dict[str, tuple[float, float, float, float]] = {}
        self.x_height_px = -self.ink("x")[1]

    def ink(self, char: str) -> tuple[float, float, float, float]:
        """Ink box (x0, y0, x1, y1) in px of a character drawn with its origin at (0, 0)."""
        box = self._ink.get(char)
        if box is None:
            box = self._ink[char] = self._measure_ink(char)
        return box

    def _measure_ink(self, char: str) -> tuple[float, float, float, float]:
        # `getbbox` would stretch the box to the origin and the advance; the mask's does not.
        mask, (x, y) = self.face.getmask2(char, "L", anchor="ls")
        x0, y0, x1, y1 = mask.getbbox() or (0, 0, 0, 0)
        return x + x0, y + y0, x + x1, y + y1

    def origins(self, text: str) -> list[float]:
        """The x of every character's origin in px, then that of the text's end."""
        x = 0.0
        xs = [0.0]
        for before, char in pairwise(text):
            x += self._step(before + char)
            xs.append(x)
        if text:
            xs.append(x + self._width(text[-1]))
        return xs

    def length(self, text: str) -> float:
        """Advance width of `text` in px."""
        return self.origins(text)[-1]

    def _width(self, char: str) -> float:
        width = self._advance.get(char)
        if width is None:
            width = self._advance[char] = self.face.getlength(char)
        return width

    def _step(self, pair: str) -> float:
        """From the origin of the first character to that of the second, kerning included."""
        step = self._pair.get(pair)
        if step is None:
            step = self._pair[pair] = self.face.getlength(pair) - self._width(pair[1])
        return step


@lru_cache(maxsize=1024)
def _sized(path: str, size_px: int) -> SizedFont:
    return SizedFont(path, size_px)


def find_fonts(split: Split, folders: Sequence[str | Path] | None = None) -> list[Font]:
    """Every usable face of a split, sorted by family, style and file name.

    A face is usable if FreeType opens it, it draws all of printable ASCII, and it is not a symbol,
    small-capital or ornamental face. The result of a scan is kept in the cache folder, because
    opening some hundred fonts takes seconds.

    Args:
        split: `"train"` or `"heldout"`; the two share no family.
        folders: where to look; by default the folder that `scripts/get_fonts.sh` fills and the
            system's font folders.

    Raises:
        MissingDependencyError: no usable face of this split was found.
    """
    roots = (cache_dir() / "fonts", *_SYSTEM_FOLDERS) if folders is None else folders
    held_out = split == "heldout"
    usable = _usable(tuple(str(root) for root in roots))
    found = [font for font in usable if font.family.startswith(HELD_OUT_FAMILIES) == held_out]
    if not found:
        raise MissingDependencyError(
            "fonts", f"draw pages of the {split} split", command="bash scripts/get_fonts.sh"
        )
    return found


@lru_cache(maxsize=8)
def _usable(roots: tuple[str, ...]) -> tuple[Font, ...]:
    """All usable faces below some folders, one file each, as seen first by this process."""
    files = sorted({p for root in roots for p in _font_files(Path(root).expanduser())})
    fonts: dict[tuple[str, str], Font] = {}
    for font in _scan(files):
        fonts.setdefault((font.family, font.style), font)
    return tuple(sorted(fonts.values(), key=lambda f: (f.family, f.style, Path(f.path).name)))


def pick_font(
    rng: Random, fonts: Sequence[Font], upright_share: float = 0.6, handwritten_share: float = 0.03
) -> Font:
    """A random face: first a family, all as likely, then one of its faces.

    Args:
        rng: source of randomness.
        fonts: faces, from `find_fonts`.
        upright_share: how often the family's plain face is taken, if it has one.
        handwritten_share: how often, at most, a handwritten family is taken.
    """
    hand = rng.random() < handwritten_share
    families: dict[str, list[Font]] = {}
    for font in fonts:
        if font.handwritten == hand:
            families.setdefault(font.family, []).append(font)
    if not families:
        return rng.choice(fonts)
    faces = families[rng.choice(sorted(families))]
    plain = [font for font in faces if font.upright]
    return rng.choice(plain if plain and rng.random() < upright_share else faces)


def _font_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            if name.lower().endswith((".ttf", ".otf")):
                yield Path(folder, name)


def _scan(files: Iterable[Path]) -> list[Font]:
    """Inspect font files, asking the remembered scan first; unchanged files are not reopened."""
    index_path = cache_dir() / "fonts" / "index.json"
    known = _read_index(index_path)
    index: dict[str, dict[str, str] | None] = {}
    for path in files:
        stat = path.stat()
        key = f"{path}|{stat.st_size}|{int(stat.st_mtime)}"
        if key in known:
            index[key] = known[key]
        else:
            font = _inspect(path)
            index[key] = None if font is None else asdict(font)
    if any(key not in known for key in index):
        _write_index(index_path, known | index)
    return [Font(**entry) for entry in index.values() if entry is not None]


def _inspect(path: Path) -> Font | None:
    name = path.stem.lower()
    if any(word in name for word in _REFUSED_NAMES):
        return None
    try:
        face = ImageFont.truetype(str(path), 24, layout_engine=ImageFont.Layout.BASIC)
        family, style = face.getname()
        if any(word in f"{family} {style}".lower() for word in _REFUSED_NAMES):
            return None
        absent = _drawn(face, "\U0010fffe")
        lacks = "".join(c for c in ALPHABET if c != " " and _drawn(face, c) in (absent, b""))
    except OSError:
        return None
    if _small_capitals(face) or any(c in lacks for c in _ASCII):
        return None
    return Font(path=str(path), family=family or path.stem, style=style or "", lacks=lacks)


def _drawn(face: ImageFont.FreeTypeFont, char: str) -> bytes:
    mask = face.getmask(char)
    return bytes(mask) if any(mask.size) else b""


def _small_capitals(face: ImageFont.FreeTypeFont) -> bool:
    """Whether `h` is drawn as a small `H`: its ink is then no higher than that of `x`."""
    return face.getbbox("h", anchor="ls")[1] >= face.getbbox("x", anchor="ls")[1]


def _read_index(path: Path) -> dict[str, dict[str, str] | None]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict) or stored.get("version") != _SCAN_VERSION:
        return {}
    entries = stored["fonts"]
    return entries if isinstance(entries, dict) else {}


def _write_index(path: Path, index: dict[str, dict[str, str] | None]) -> None:
    try:
        write_atomically(path, json.dumps({"version": _SCAN_VERSION, "fonts": index}))
    except OSError:
        return  # the index only saves time: a read-only home folder is no reason to fail
