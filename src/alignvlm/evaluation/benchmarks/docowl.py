"""DeepForm, Kleister Charity, WikiTableQuestions and TabFact as DocDownstream-1.0 has them.

Questions are in `test/<set>_test.jsonl`, images beside `test`. DUE's metadata says for each
question, in the same order, which document it is about, and for each document what is true:
`meta/<set>/test/metadata.jsonl` and `document.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from alignvlm.data.formats.base import as_list
from alignvlm.data.formats.documents import DocDownstream
from alignvlm.data.rows.base import BadRowError, Place, Row
from alignvlm.data.rows.json_rows import JsonRows, json_lines
from alignvlm.data.sample import ImageSource
from alignvlm.errors import InputError
from alignvlm.evaluation.benchmarks.digests import sha256_of_all
from alignvlm.evaluation.benchmarks.readers import Asked
from alignvlm.evaluation.benchmarks.record import Benchmark, Home, QuestionSet
from alignvlm.evaluation.benchmarks.rows import Form, RowQuestions, check_some, file_image
from alignvlm.imaging.sources import quoted

__all__ = ["DEEPFORM_KEYS", "KLC_KEYS", "DocOwlHome"]

DEEPFORM_KEYS: Final = ("advertiser", "flight_from", "flight_to", "gross_amount", "contract_num")
KLC_KEYS: Final = (
    "address__post_town",
    "address__postcode",
    "address__street_line",
    "charity_name",
    "charity_number",
    "income_annually_in_british_pounds",
    "report_date",
    "spending_annually_in_british_pounds",
)

Values = list[Mapping[str, Any]]
Documents = Mapping[str, Mapping[str, Values]]
"""By document and key: `{"value": ..., "value_variants": [...]}`."""


@dataclass(frozen=True, kw_only=True)
class DocOwlHome(Home):
    """One data set of DocDownstream-1.0.

    Attributes:
        dataset: its name there.
        measure: what is measured.
        metadata: whether answers are DUE's; else they are what the question's row says.
        keys: of the fields that are asked for; a question is about the first that stands in its
            metadata. () where a question is its own key.
    """

    kind: ClassVar[str] = "docdownstream"

    dataset: str
    measure: str
    metadata: bool = True
    keys: tuple[str, ...] = ()

    def find(self, place: Path) -> Path | None:
        """See `Home.find`."""
        name = f"{self.dataset}_test.jsonl"
        if place.is_file():
            return place if place.name == name else None
        files = (place / "test" / name, place / "DocDownstream-1.0" / "test" / name, place / name)
        return next((file for file in files if file.is_file()), None)

    def open(self, benchmark: Benchmark, place: Path) -> QuestionSet:
        """See `Home.open`."""
        rows = json_lines(place)
        check_some(place, rows)
        root = place.parent.parent if place.parent.name == "test" else place.parent
        asked = self._asked(root, len(rows), place) if self.metadata else ()
        form = _DocOwlForm(self.measure, bool(self.keys), root, asked)
        files = (place, *self._answers(root)) if self.metadata else (place,)
        return RowQuestions(benchmark, self.kind, place, rows, form, partial(sha256_of_all, files))

    @property
    def remedy(self) -> str:
        """See `Home.remedy`."""
        return (
            "put test/, meta/ and the unpacked imgs/ of "
            "https://huggingface.co/datasets/mPLUG/DocDownstream-1.0 there"
        )

    def _answers(self, root: Path) -> tuple[Path, Path]:
        """DUE's two files: what each question is about, and what is true."""
        folder = root / "meta" / self.dataset / "test"
        return folder / "metadata.jsonl", folder / "document.jsonl"

    def _asked(self, root: Path, num_rows: int, place: Path) -> tuple[_Gold, ...]:
        metadata, document = self._answers(root)
        for path in (metadata, document):
            if not path.is_file():
                raise InputError(
                    f"There is no {quoted(str(path))}, which has the answers for "
                    f"{quoted(str(place))}: get the folder meta of DocDownstream-1.0 too"
                )
        lines = json_lines(metadata)
        if len(lines) != num_rows:
            raise InputError(
                f"{quoted(str(metadata))} has {len(lines)} rows and {quoted(str(place))} "
                f"{num_rows}: get both from one release"
            )
        documents = _documents(document)
        return tuple(
            _read(lines, index, lambda row: self._gold(row, documents, document))
            for index in range(len(lines))
        )

    def _gold(self, row: Row, documents: Documents, path: Path) -> _Gold:
        name = str(row.get("file_name", "")).rpartition("/")[2].partition(".pdf")[0]
        try:
            question = json.loads(row["ground_truth"])["gt_parses"][0]["question"]
        except (KeyError, IndexError, TypeError, ValueError):
            raise BadRowError("has no question in ground_truth: get the file again") from None
        if name not in documents:
            raise BadRowError(
                f"is about the document {quoted(name)}, which is not in {quoted(str(path))}: get "
                "both from one release"
            )
        key = next((key for key in self.keys if key in question), "") if self.keys else question
        if not key:
            raise BadRowError(
                f"asks {quoted(question)}, which is about none of the fields "
                f"{', '.join(self.keys)}: get the file again"
            )
        values = documents[name].get(key, [])
        if not values and not self.keys:
            raise BadRowError(
                f"asks {quoted(question)}, to which {quoted(str(path))} has no answer: get "
                "both from one release"
            )
        return _Gold(name, key, values)


@dataclass(frozen=True)
class _Gold:
    """What is true of a key of a document: none, one or several values."""

    document: str
    key: str
    values: Values

    @property
    def answers(self) -> list[Any]:
        """The values: texts, or objects where a value may be written in several ways."""
        return [
            dict(value) if value.get("value_variants") else str(value["value"])
            for value in self.values
        ]


@dataclass(frozen=True)
class _DocOwlForm(Form):
    """Rows of a test file; `golds` has DUE's answers, nothing where rows have their own."""

    measure: str
    by_key: bool
    root: Path = field(repr=False)
    golds: Sequence[_Gold] = field(repr=False)

    def id(self, row: Row, index: int) -> str:
        return str(index + 1)

    def asked(self, row: Row, index: int) -> Asked:
        said = DocDownstream().conversation(row, Place(self.root, index + 1)).messages()
        if [message["role"] for message in said] != ["user", "assistant"]:
            raise BadRowError("is no question with one answer: get the file again")
        text, answer = (_text(message["content"]) for message in said)
        if not self.golds:
            return Asked(text=text, answers=[answer], measures=(self.measure,))
        gold = self.golds[index]
        options = {"key": gold.key, "document": gold.document} if self.by_key else {}
        return Asked(
            text=text,
            answers=gold.answers,
            measures=(self.measure,),
            options=options,
            group=gold.key if self.by_key else "",
        )

    def images(self, row: Row, place: Place) -> Sequence[ImageSource]:
        names = as_list(row.get("image"))
        if not all(isinstance(name, str) for name in names):
            raise BadRowError("has an image that is no path: get the file again")
        return [file_image(self.root, name, place) for name in names]


def _text(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text").strip()


def _documents(path: Path) -> Documents:
    rows = json_lines(path)
    found: dict[str, dict[str, Values]] = {}
    for index in range(len(rows)):
        name, keys = _read(rows, index, _document)
        found[name] = keys
    return found


def _document(row: Row) -> tuple[str, dict[str, Values]]:
    try:
        keys: dict[str, Values] = {}
        for annotation in row["annotations"]:
            values = [value for value in annotation["values"] if value["value"] is not None]
            keys.setdefault(str(annotation["key"]), []).extend(values)
        return str(row["name"]), keys
    except (KeyError, TypeError):
        raise BadRowError("is no document with annotations: get the file again") from None


def _read(rows: JsonRows, index: int, read: Any) -> Any:
    try:
        return read(rows.row(index))
    except BadRowError as error:
        place = rows.place(index)
        raise InputError(f"Row {place.number} of {quoted(str(place.path))} {error}") from error
