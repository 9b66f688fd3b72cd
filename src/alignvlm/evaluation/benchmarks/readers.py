"""What a row of a benchmark says: its question, its accepted answers, how they are measured.

A reader takes the fields of a row, whatever file they are from, and gives all of a `Question` but
its id and its images.
"""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignvlm.data.rows.base import BadRowError, Row
from alignvlm.evaluation.scorers.base import literal_list
from alignvlm.imaging.sources import quoted

__all__ = [
    "Asked",
    "Choice",
    "Covered",
    "Graded",
    "Mmmu",
    "Reader",
    "ShortAnswer",
    "TableQuestion",
    "YesNo",
    "text_of",
]

_MAX_LITERAL = 100_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A `Question` without id and images; see there."""

    text: str
    answers: Any
    measures: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    group: str = ""


class Reader(ABC):
    """Reads rows of one benchmark in one form."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns without which no row can be read."""

    @property
    def optional(self) -> tuple[str, ...]:
        """Further columns that are read where there are any."""
        return ()

    @abstractmethod
    def read(self, row: Row) -> Asked:
        """What a row says.

        Raises:
            BadRowError: it lacks something, or holds something else than expected.
        """


@dataclass(frozen=True, kw_only=True)
class ShortAnswer(Reader):
    """A question that is answered with a word or a phrase.

    Attributes:
        measure: what is measured.
        answer: the column of the answers.
        listed: whether it holds a list; in a TSV that is the text of one.
        group: the column of the group, "" for none.
    """

    measure: str
    answer: str = "answer"
    listed: bool = False
    group: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return ("question", self.answer)

    @property
    def optional(self) -> tuple[str, ...]:
        """See `Reader.optional`."""
        return (self.group,)

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        gold = texts_of(row, self.answer) if self.listed else [text_of(row, self.answer)]
        return Asked(
            text=text_of(row, "question"),
            answers=gold,
            measures=(self.measure,),
            group=group_of(row, self.group),
        )


@dataclass(frozen=True, kw_only=True)
class YesNo(Reader):
    """POPE: "Yes" or "No", written so in every home, which VLMEvalKit's scorer wants."""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return ("question", "answer", "category")

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        gold = text_of(row, "answer").strip().capitalize()
        if gold not in ("Yes", "No"):
            raise BadRowError(f"has the answer {quoted(gold)}, not yes or no: get the file again")
        return Asked(
            text=text_of(row, "question"),
            answers=[gold],
            measures=("pope",),
            group=group_of(row, "category"),
        )


@dataclass(frozen=True, kw_only=True)
class Choice(Reader):
    """A question with lettered choices, of which one is right.

    Attributes:
        measure: what is measured.
        choices: the columns of the choices in order.
        group: the column of the group, "" for none.
    """

    measure: str
    choices: tuple[str, ...] = tuple("ABCD")
    group: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return ("question", "answer", *self.choices[:2])

    @property
    def optional(self) -> tuple[str, ...]:
        """See `Reader.optional`."""
        return (*self.choices[2:], self.group)

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        found = {
            letter: str(row[name])
            for letter, name in zip(string.ascii_uppercase, self.choices, strict=False)
            if row.get(name) not in (None, "")
        }
        return choice(row, found, self.measure, group_of(row, self.group))


@dataclass(frozen=True, kw_only=True)
class Mmmu(Reader):
    """MMMU: choices or none, with `<image n>` in the texts.

    A question without choices is an open one; VLMEvalKit's scorer rewrites it as a choice between
    the gold answer and "Other Answers".

    Attributes:
        listed: the column that holds the choices as the text of a list (the Hub's form), "" where
            each has a column of its own (the TSV's).
    """

    listed: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        if self.listed:
            return ("id", "question", "answer", "question_type", self.listed)
        return ("question", "answer", "split", "A", "B")

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        if self.listed:
            texts = texts_of(row, self.listed) if row["question_type"] != "open" else []
            found = dict(zip(string.ascii_uppercase, texts, strict=False))
            group = "_".join(text_of(row, "id").split("_")[1:-1])
        else:
            letters = (letter for letter in string.ascii_uppercase if row.get(letter))
            found = {letter: str(row[letter]) for letter in letters}
            group = group_of(row, "category")
        if found:
            return choice(row, found, "mmmu_choice", group)
        gold = text_of(row, "answer")
        return Asked(
            text=text_of(row, "question"),
            answers=literal_texts(gold) or [gold],
            measures=("mmmu_open",),
            hint=str(row.get("hint") or ""),
            group=group,
        )


@dataclass(frozen=True, kw_only=True)
class Graded(Reader):
    """MM-Vet: a language model compares answers, for which it is told the question.

    Attributes:
        group: the column of the capabilities, joined by commas.
    """

    group: str

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return ("question", "answer")

    @property
    def optional(self) -> tuple[str, ...]:
        """See `Reader.optional`."""
        return (self.group,)

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        text = text_of(row, "question")
        return Asked(
            text=text,
            answers=[text_of(row, "answer")],
            measures=("mmvet",),
            options={"question": text},
            group=group_of(row, self.group),
        )


@dataclass(frozen=True, kw_only=True)
class Covered(Reader):
    """VCR: the covered texts of an image, in order.

    Attributes:
        answer: their column.
        question: asked where the data has no column for it, "" where it has one.
    """

    answer: str
    question: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return (self.answer,) if self.question else ("question", self.answer)

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        return Asked(
            text=self.question or text_of(row, "question"),
            answers=texts_of(row, self.answer),
            measures=("vcr_exact_match", "vcr_jaccard"),
        )


_TABLE_MEASURES = {
    "vwtq": ("tablevqa_wtq",),
    "vwtq_syn": ("tablevqa_wtq",),
    "vtabfact": ("tablevqa_tabfact",),
    "fintabnetqa": ("fintabnet_relieved", "fintabnet_exact"),
}


@dataclass(frozen=True, kw_only=True)
class TableQuestion(Reader):
    """TableVQA-Bench: four sub-sets, each with its measure.

    VTabFact's gold is "1" or "0" here whatever the home; `fit_answers` gives a scorer the type
    that it compares with.

    Attributes:
        answer: the column of the gold answer.
    """

    answer: str = "answer"

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Reader.columns`."""
        return ("question", self.answer, "split")

    def read(self, row: Row) -> Asked:
        """See `Reader.read`."""
        split = text_of(row, "split")
        if split not in _TABLE_MEASURES:
            raise BadRowError(
                f"is of the split {quoted(split)}, not one of {', '.join(_TABLE_MEASURES)}: get "
                "the file again"
            )
        gold = text_of(row, self.answer)
        if split == "vtabfact" and gold not in ("0", "1"):
            raise BadRowError(f"has the answer {quoted(gold)}, not 0 or 1: get the file again")
        return Asked(
            text=text_of(row, "question"),
            answers=[gold],
            measures=_TABLE_MEASURES[split],
            group=split,
        )


def choice(row: Row, choices: Mapping[str, str], measure: str, group: str) -> Asked:
    """A question with these choices.

    Raises:
        BadRowError: the answer is none of them.
    """
    gold = text_of(row, "answer").strip()
    if gold not in choices:
        raise BadRowError(
            f"has the answer {quoted(gold)}, which is none of its choices "
            f"({', '.join(choices) or 'it has none'}): get the file again"
        )
    return Asked(
        text=text_of(row, "question"),
        answers=[gold],
        measures=(measure,),
        options={"options": dict(choices)},
        choices=choices,
        hint=str(row.get("hint") or ""),
        group=group,
    )


def text_of(row: Row, name: str) -> str:
    """A field as text.

    Raises:
        BadRowError: it is missing or empty.
    """
    value = row.get(name)
    if value is None or value == "" or isinstance(value, (list, tuple, Mapping, bytes)):
        raise BadRowError(_lacking(name))
    return value if isinstance(value, str) else str(value)


def texts_of(row: Row, name: str) -> list[str]:
    """A list of texts, or the text of a Python list, or a single text as a list.

    Raises:
        BadRowError: it is missing or empty.
    """
    value = row.get(name)
    if isinstance(value, str) and value:
        value = literal_texts(value) or [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRowError(_lacking(name))
    return [text if isinstance(text, str) else str(text) for text in value]


def literal_texts(text: str) -> list[str]:
    """The elements of a text that is a Python list, as texts; none where it is no list."""
    found = literal_list(text) if len(text) <= _MAX_LITERAL else None
    return [str(element) for element in found or ()]


def group_of(row: Row, name: str) -> str:
    """A field as the name of a group, of several joined by commas."""
    value = row.get(name) if name else None
    if isinstance(value, (list, tuple)):
        return ",".join(str(element) for element in value)
    return "" if value is None else str(value)


def _lacking(name: str) -> str:
    if "answer" in name:
        return (
            f"has no {quoted(name)}, as rows of a test split whose answers are kept secret: use "
            "the split that has answers"
        )
    return f"has no {quoted(name)}: get the file again"
