"""Letters as spaCy's tokenizer tells them apart: lower and upper case, and scripts without case."""

from __future__ import annotations

import unicodedata
from functools import cache

_LATIN = ((0x41, 0x250), (0x1E00, 0x1F00), (0x2C60, 0x2C7C), (0x2C7E, 0x2C80), (0xA722, 0xA770))
_LATIN_LATER = ((0xA771, 0xA7BA), (0xA7FA, 0xA7FB), (0xFF21, 0xFF5B))
_PHONETIC = ((0x250, 0x2B0), (0x1D00, 0x1D26), (0x1D6B, 0x1D78), (0x1D79, 0x1D9B), (0xAB30, 0xAB5B))
_PHONETIC_LATER = ((0xAB60, 0xAB65),)
_GREEK_AND_CYRILLIC = (
    "ΆΈΉΊΌΎΏΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩάέήίαβγδεζηθικλμνξοπρςστυφχψωόύώ"
    "ЀЁЃЄЅІЇЈЉЊЌЍАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюяѐёѓєѕіїјљњќѝ"
    "ҐґҖҗҢңҮүҺһӘәӨө"
)
_UNASSIGNED = "\u03a2"
"""Stands among the capitals of Greek, so that spaCy's range of them has it too."""
_NOT_LETTERS = "ªµº"
_TITLE_CASE = "ƻǅǈǋǲ"
_WITHOUT_CASE = (
    "\u0591-\u05f4\u0620-\u064a\u066e-\u06d5\u06e5-\u06ff\u0750-\u077f\u08a0-\u08bd\u0900-\u09ff"
    "\u0b80-\u0cff\u0d80-\u0dff\u1100-\u137f\u2e80-\u2fdf\u2ff0-\u30ff\u31c0-\u31ef\u3200-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\ufb1d-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdc7\ufdf0-\ufdfb"
    "\ufe30-\ufe4f\ufe70-\ufefc\U0001ee00-\U0001eebb\U0001f200-\U0001f2ff\U00020000-\U0002a6df"
    "\U0002a700-\U0002ebef\U0002f800-\U0002fa1f"
)


@cache
def letter_classes() -> tuple[str, str, str]:
    """(lower, upper, all): the insides of three character classes of a regular expression."""
    ranges = _LATIN + _LATIN_LATER + _PHONETIC + _PHONETIC_LATER
    cased = [chr(code) for first, end in ranges for code in range(first, end)]
    cased += _GREEK_AND_CYRILLIC
    lower = "".join(char for char in cased if char.islower() and char not in _NOT_LETTERS) + "ʔ"
    upper = "".join(char for char in cased if char.isupper()) + _UNASSIGNED
    return lower + _WITHOUT_CASE, upper + _WITHOUT_CASE, lower + upper + _TITLE_CASE + _WITHOUT_CASE


@cache
def symbols() -> str:
    """Signs of Unicode's category "other symbol", e.g. ° and emoji, as one class's inside.

    spaCy 3 lists those of Unicode 11; symbols that were added later are signs here too.
    """
    return "".join(chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) == "So")
