"""Denotation accuracy of WikiTableQuestions: two sets of values, of one size, that match.

Pasupat and Liang, "Compositional Semantic Parsing on Semi-Structured Tables" (2015). A value is a
number, a date or a text; two match when their normalised texts are equal, or their numbers to
1e-6, or their dates in every field. The official scorer reads each gold value from a canonical
form that CoreNLP wrote, so "17" is right for "17 years"; DUE and TableVQA-Bench have no such form.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts

_QUOTES_AND_DASHES = str.maketrans(
    dict.fromkeys("‘’´`", "'") | dict.fromkeys("“”", '"') | dict.fromkeys("‐‑‒–—−", "-")
)
_FOOTNOTES = "•♦†‡*#+"
_NO_FIELD = -1


class Value(NamedTuple):
    """One value of a denotation.

    Attributes:
        kind: "number", "date" or "text".
        key: the number, (year, month, day) with -1 for what is unknown, or the text.
        text: normalised.
    """

    kind: str
    key: Any
    text: str


def normalise(text: str) -> str:
    """A cell's text without what does not matter: marks, footnotes, outer brackets and quotes.

    Diacritics go (NFKD without combining marks), quotes and dashes become ASCII, then footnotes,
    details in round brackets and outer quotes are taken off the end until nothing changes; one
    full stop, letter case and runs of blanks follow.
    """
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in parts if unicodedata.category(char) != "Mn")
    text = text.translate(_QUOTES_AND_DASHES)
    start, end = 0, len(text)
    while True:
        before = start, end
        start, end = _strip(text, start, end)
        start, end = _strip(text, start, _without_footnotes(text, start, end))
        start, end = _strip(text, start, _without_details(text, start, end))
        if _quoted(text, start, end):
            start, end = start + 1, end - 1
        if (start, end) == before:
            break
    return " ".join(text[start:end].removesuffix(".").split()).lower()


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _quoted(text: str, start: int, end: int) -> bool:
    """Whether the text stands in quotes and holds none."""
    return (
        end - start >= 2
        and text[start] == text[end - 1] == '"'
        and text.find('"', start + 1, end - 1) < 0
    )


def _without_footnotes(text: str, start: int, end: int) -> int:
    """Where the text ends without its last signs of `_FOOTNOTES` and `[...]`.

    Square brackets at the very start stay unless they hold digits alone.
    """
    while True:
        while end > start and text[end - 1] in _FOOTNOTES:
            end -= 1
        if end == start or text[end - 1] != "]":
            return end
        after = text.rfind("]", start, end - 1) + 1 or start
        opening = text.find("[", after, end - 1)
        if opening == start and not text[start + 1 : end - 1].isdecimal():
            opening = text.find("[", start + 1, end - 1)
        if opening < 0:
            return end
        end = opening


def _without_details(text: str, start: int, end: int) -> int:
    """Where the text ends without its last " (...)"."""
    while end > start and text[end - 1] == ")":
        after = text.rfind(")", start, end - 1) + 1 or start
        opening = text.find(" (", after, end - 1)
        if opening < 0:
            break
        end = opening
    return end


def parse_number(text: str) -> int | float | None:
    """A finite number, or None."""
    try:
        return int(text)
    except ValueError:
        try:
            amount = float(text)
        except ValueError:
            return None
    return amount if isfinite(amount) else None


def parse_date(text: str) -> tuple[int, int, int] | None:
    """`yyyy-mm-dd`, any field "xx" where unknown, as numbers with -1; None where it is no date."""
    fields = text.lower().split("-")
    if len(fields) != 3:
        return None
    try:
        year = _NO_FIELD if fields[0] in ("xx", "xxxx") else int(fields[0])
        month = _NO_FIELD if fields[1] == "xx" else int(fields[1])
        day = _NO_FIELD if fields[2] == "xx" else int(fields[2])
    except ValueError:
        return None
    real = month in (_NO_FIELD, *range(1, 13)) and day in (_NO_FIELD, *range(1, 32))
    return (year, month, day) if real and (year, month, day) != (_NO_FIELD,) * 3 else None


def to_value(text: str, canonical: str = "") -> Value:
    """A text as a value, read from its canonical form where there is one."""
    written = canonical or text
    amount = parse_number(written)
    date = None if amount is not None else parse_date(written)
    if date is not None and date[1:] == (_NO_FIELD, _NO_FIELD):
        amount = date[0]
    normalised = normalise(text)
    if amount is not None:
        number = int(amount) if abs(amount - round(amount)) < 1e-6 else amount
        return Value("number", number, normalised if text else str(number))
    if date is not None:
        return Value("date", date, normalised if text else _written(*date))
    return Value("text", normalised, normalised)


def _written(year: int, month: int, day: int) -> str:
    """A date whose own text is empty, as the official code writes it: -1 for an unknown day."""
    return f"{'xx' if year == _NO_FIELD else year}-{'xx' if month == _NO_FIELD else month}-{day}"


def to_values(texts: Sequence[str], canonical: Sequence[str] | None = None) -> list[Value]:
    """The set of values of some texts; of equal ones the first stays."""
    forms = canonical if canonical is not None else [""] * len(texts)
    found: dict[tuple[str, Any], Value] = {}
    for text, form in zip(texts, forms, strict=True):
        value = to_value(text, form)
        found.setdefault((value.kind, value.key), value)
    return list(found.values())


def same(target: Value, said: Value) -> bool:
    """Whether two values match."""
    if target.text == said.text:
        return True
    if target.kind != said.kind:
        return False
    if target.kind == "number":
        try:
            return abs(target.key - said.key) < 1e-6
        except OverflowError:
            return False
    return target.kind == "date" and bool(target.key == said.key)


def compare(targets: list[Value], said: list[Value]) -> tuple[float, Parts]:
    """1 where the two sets have one size and every target is matched."""
    missing = [value.text for value in targets if not any(same(value, other) for other in said)]
    right = len(targets) == len(said) and not missing
    return float(right), {
        "normalised_prediction": [value.text for value in said],
        "normalised_answers": [value.text for value in targets],
        "missing": missing,
    }


def _official(
    prediction: Any, answers: Any, target_canon: Sequence[str] | None = None
) -> tuple[float, Parts]:
    golds = as_texts(answers)
    if target_canon is not None and len(target_canon) != len(golds):
        raise UsageError(
            f"There are {len(golds)} answers and {len(target_canon)} canonical targets: give "
            "`target_canon` one text for each answer"
        )
    return compare(to_values(golds, target_canon), to_values(_predicted(prediction)))


def _due(prediction: Any, answers: Any, separator: str | None = None) -> tuple[float, Parts]:
    """A text is one value, as DocOwl passes it; DUE's own baselines split it at " | "."""
    said = _predicted(prediction)
    if separator and isinstance(prediction, str):
        said = prediction.split(separator)
    golds = [answer.upper() for answer in as_texts(answers)]
    return compare(to_values(golds), to_values([value.upper() for value in said]))


def _predicted(prediction: Any) -> list[str]:
    return as_texts(prediction) if isinstance(prediction, list | tuple) else [as_text(prediction)]


WTQ_DENOTATION: dict[str, Scorer] = {"official": _official, "due": _due}


def unescape(text: str) -> str:
    """One value of a TSV cell: newline, bar and backslash are written after a backslash."""
    return text.replace(r"\n", "\n").replace(r"\p", "|").replace("\\\\", "\\")


def cell(text: str) -> list[str]:
    """The values of a TSV cell, which stand between bars."""
    return [unescape(value) for value in text.split("|")]
