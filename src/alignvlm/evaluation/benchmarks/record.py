"""What a benchmark is: a record of its data, its prompts and its measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

from alignvlm.evaluation.question import Question

__all__ = ["Benchmark", "Home", "PromptRule", "QuestionSet"]


@dataclass(frozen=True, kw_only=True)
class PromptRule:
    """How a dialect puts the questions of a benchmark.

    A template holds `{question}`, `{capitalized}` (first letter upper case, the others lower),
    `{stripped}`, `{hint}` (a line "Hint: ..." or nothing) and `{choices}` (lines "A. ...").

    Attributes:
        template: of the text.
        max_new_tokens: most tokens of the answer.
        stop: texts at the first of which an answer ends.
        without_choices: template of questions without choices, "" for the same one.
        by_group: templates of questions of these groups.
        images: "first" puts all images before the text; "vlmevalkit" and "lmms-eval" put image n
            where the text says `<image n>`, each in its toolkit's way.
        unverified: what of it is not known to be the toolkit's own; "" if all is.
    """

    template: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    without_choices: str = ""
    by_group: Mapping[str, str] = field(default_factory=dict)
    images: Literal["first", "vlmevalkit", "lmms-eval"] = "first"
    unverified: str = ""


class QuestionSet(Sequence[Question]):
    """The questions of a benchmark by number; none is read before it is asked for.

    `set[i]` raises InputError where row i is broken; the message names file and row. Instances
    can be sent to other processes.
    """

    benchmark: Benchmark
    home: str
    """Kind of the home that it was read from, e.g. "tsv"."""
    where: str
    """The file or folder that it was read from; "" where nothing is on disk."""

    @property
    def digest(self) -> str:
        """What changes when the questions or their answers do; "" where that is not known.

        The SHA-256 of a JSON Lines file, the MD5 of a TSV file, one SHA-256 of the three files of
        a DocDownstream set, of drawn pages their settings and kinds. Not noticed: other images in
        files beside these, a parquet file that changes and keeps its name and its size, a page
        generator that draws otherwise.
        """
        return ""

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        if isinstance(index, slice):
            return [self.question(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.question(number)

    def __iter__(self) -> Iterator[Question]:
        return (self.question(number) for number in range(len(self)))

    @abstractmethod
    def question(self, index: int) -> Question:
        """Question `index`, counted from 0, in the data's order.

        Raises:
            InputError: its row is broken; the message names the file and the row.
        """


class Home(ABC):
    """One form in which a benchmark's data is published."""

    kind: ClassVar[str]

    @abstractmethod
    def find(self, place: Path) -> Path | None:
        """What of a file or a folder is data of this form; None if nothing is.

        Raises:
            InputError: it is not clear which of several files is meant.
        """

    @abstractmethod
    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """The questions of what `find` found.

        Raises:
            InputError: columns are missing, the file is not the published one, ids are not
                different, or there is no row.
        """

    @property
    @abstractmethod
    def remedy(self) -> str:
        """How to get the data, e.g. "download https://... into that folder"."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark as data.

    Attributes:
        name: what the command line calls it.
        title: what people call it.
        column: its heading in the paper's tables, "" if it is in none.
        table: 1 for a column of the paper's Table 1 (documents), 3 for one that stands in Table 3
            only (general), 0 for none.
        split: of the published data.
        num_expected: questions of that split; None where it is not established.
        num_source: how the number is known.
        measures: every measure that a question of it may have.
        headline: "mean", the score of the whole set, or "mean_of_groups", the plain mean of its
            groups' scores.
        prompts: rules by dialect; the first is taken for dialects that are not here.
        homes: forms of its data, the preferred one first.
        source: where the facts above are from, and what is doubtful.
    """

    name: str
    title: str
    column: str = ""
    table: int = 0
    split: str
    num_expected: int | None = None
    num_source: str = ""
    measures: tuple[str, ...]
    headline: Literal["mean", "mean_of_groups"] = "mean"
    prompts: Mapping[str, PromptRule]
    homes: tuple[Home, ...]
    source: str = ""

    def to_record(self) -> dict[str, Any]:
        """What a run's folder keeps of it, as a JSON object."""
        return {
            "name": self.name,
            "title": self.title,
            "column": self.column,
            "table": self.table,
            "split": self.split,
            "num_expected": self.num_expected,
            "num_source": self.num_source,
            "measures": list(self.measures),
            "headline": self.headline,
            "source": self.source,
        }
