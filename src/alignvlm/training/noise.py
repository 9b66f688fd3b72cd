"""Reading errors for text: what a character reader does to a page, without drawing one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_LOOK_ALIKE = {
    "0": "OoD", "O": "0oQ", "o": "0ca", "1": "lI|", "l": "1I|", "I": "l1|", "5": "S", "S": "5s",
    "8": "B", "B": "8R", "6": "b", "9": "g", "2": "Z", "Z": "2", "c": "eo", "e": "co", "a": "o",
    "n": "ru", "u": "vn", "v": "u", "m": "n", "h": "b", "b": "h", "i": "l", "t": "f", "f": "t",
    ".": ",", ",": ".", ":": ";", ";": ":", "-": "_", "/": "l", "s": "5", "g": "9q", "q": "g",
}  # fmt: skip


def misread(text: str, rng: Random, rate: float, keep: Sequence[str] = ()) -> str:
    """The text with about `rate` of its characters confused, lost or doubled.

    Args:
        text: of a page.
        rng: source of randomness.
        rate: share of wrong characters, 0 to 1.
        keep: strings that stay whole wherever they occur: answers, which the model shall copy and
            not guess.
    """
    fixed = _protected(text, keep)
    read = []
    for place, char in enumerate(text):
        if place in fixed or char == "\n" or rng.random() >= rate:
            read.append(char)
            continue
        kind = rng.random()
        if kind < 0.6 and char in _LOOK_ALIKE:
            read.append(rng.choice(_LOOK_ALIKE[char]))
        elif kind < 0.75:
            read.append(char + char)
        # else: the character is lost
    return "".join(read)


def _protected(text: str, keep: Sequence[str]) -> set[int]:
    places: set[int] = set()
    for part in keep:
        start = text.find(part) if part else -1
        while start >= 0:
            places.update(range(start, start + len(part)))
            start = text.find(part, start + 1)
    return places
