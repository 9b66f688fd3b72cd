"""F1 of extracted fields as DUE computes it (DeepForm, Kleister Charity).

Borchmann et al., "DUE: End-to-End Document Understanding Benchmark" (2021). A document is
`{"name": ..., "annotations": [{"key": ..., "values": [{"value": ..., "value_variants": [...]}]}]}`.
Pairs (key, value) are matched as multisets; values are compared in upper case, and nothing else
is normalised: "$12,500.00" is not "12,500.00".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignvlm.errors import UsageError
from alignvlm.evaluation.scorers.base import Parts, Scorer, as_text, as_texts
from alignvlm.evaluation.scorers.relaxed import docowl_line

ABSENT = "None"
"""What a model answers where a document lacks a field, as DocOwl trains it: no value at all."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of one key, in upper case, with what else it may be written as."""

    key: str
    value: str
    variants: tuple[str, ...] = ()

    def matches(self, other: Field) -> bool:
        """Whether the two have one key, and one of them is, or is a variant of, the other."""
        return self.key == other.key and (
            self.value == other.value
            or self.value in other.variants
            or other.value in self.variants
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """What matching two lists of fields found.

    Attributes:
        hits: predicted fields that a gold field was found for.
        predicted: how many were predicted.
        found: gold fields that a predicted field was found for; `hits`, unless variants make
            matching depend on the order.
        gold: how many there are.
    """

    hits: int = 0
    predicted: int = 0
    found: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.predicted + other.predicted,
            self.found + other.found,
            self.gold + other.gold,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted fields that are right; 0 where none is predicted."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold fields that were found; 0 where there is none."""
        return self.found / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def parts(self) -> Parts:
        """The counts and their ratios, ready for JSON."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "true_positives": self.hits,
            "false_positives": self.predicted - self.hits,
            "false_negatives": self.gold - self.found,
        }


def count(predicted: Sequence[Field], gold: Sequence[Field]) -> Counts:
    """Match two lists of fields, each against what the other has left, in their orders."""
    hits, found = _matched(predicted, gold), _matched(gold, predicted)
    return Counts(hits, len(predicted), found, len(gold))


def _matched(fields: Sequence[Field], others: Sequence[Field]) -> int:
    left: dict[str, list[Field]] = defaultdict(list)
    for other in others:
        left[other.key].append(other)
    matched = 0
    for field in fields:
        rest = left[field.key]
        index = next((i for i, other in enumerate(rest) if field.matches(other)), None)
        if index is not None:
            del rest[index]
            matched += 1
    return matched


def fields_of(document: Mapping[str, Any]) -> list[Field]:
    """Every value of a document's annotations."""
    return [
        _field(as_text(annotation["key"]), value)
        for annotation in document.get("annotations", ())
        for value in annotation["values"]
    ]


def pair_documents(
    prediction: Any, answers: Any, key: str, document: str
) -> list[tuple[str, list[Field], list[Field]]]:
    """Documents with what was predicted for them and what is true.

    Args:
        prediction: documents, or the answer about one key of one document.
        answers: documents in the same order, or the key's true values, as texts or as objects with
            `value` and `value_variants`; none where it is absent.
        key: what a single answer is about.
        document: where it stands.

    Raises:
        UsageError: the numbers of documents differ.
    """
    if isinstance(prediction, list | tuple):
        if not isinstance(answers, list | tuple) or len(prediction) != len(answers):
            raise UsageError(
                "Predicted and true documents differ in number: give as many of one as of the "
                "other, in one order"
            )
        return [
            (as_text(true.get("name")), fields_of(said), fields_of(true))
            for said, true in zip(prediction, answers, strict=True)
        ]
    said = docowl_line(as_text(prediction))
    predicted = [] if said == ABSENT else [Field(key, said.upper())]
    return [(document, predicted, [_field(key, value) for value in _values(answers)])]


def _values(answers: Any) -> list[Mapping[str, Any]]:
    """True values as DUE has them; one that may be written in several ways already is an object."""
    listed = answers if isinstance(answers, list | tuple) else as_texts(answers)
    return [value if isinstance(value, Mapping) else {"value": value} for value in listed]


def _field(key: str, value: Mapping[str, Any]) -> Field:
    variants = tuple(as_text(variant).upper() for variant in value.get("value_variants", ()))
    return Field(key, as_text(value["value"]).upper(), variants)


def _f1(
    prediction: Any, answers: Any, key: str = "value", document: str = ""
) -> tuple[float, Parts]:
    return rate_pooled(pair_documents(prediction, answers, key, document))


def _mean_f1(
    prediction: Any, answers: Any, key: str = "value", document: str = ""
) -> tuple[float, Parts]:
    return rate_mean(pair_documents(prediction, answers, key, document))


Documents = Sequence[tuple[str, list[Field], list[Field]]]


def rate_pooled(documents: Documents) -> tuple[float, Parts]:
    """Micro-F1: counts of all documents added up; each key's own numbers beside it."""
    total = Counts()
    keys: dict[str, Counts] = {}
    for _, predicted, gold in documents:
        total += count(predicted, gold)
        for key in dict.fromkeys(field.key for field in (*gold, *predicted)):
            of_key = count(
                [field for field in predicted if field.key == key],
                [field for field in gold if field.key == key],
            )
            keys[key] = keys.get(key, Counts()) + of_key
    per_key = {key: {"f1": counts.f1} | counts.parts() for key, counts in keys.items()}
    return total.f1, total.parts() | {"per_key": per_key, "documents": _as_json(documents)}


def rate_mean(documents: Documents) -> tuple[float, Parts]:
    """The mean of the documents' own F1."""
    values = [count(predicted, gold).f1 for _, predicted, gold in documents]
    mean = sum(values) / len(values) if values else 0.0
    return mean, {"per_document": values, "documents": _as_json(documents)}


def _as_json(documents: Documents) -> list[Parts]:
    """The compared fields, from which scores of single answers are put together again."""
    return [
        {
            "name": name,
            "predicted": [[field.key, field.value] for field in predicted],
            "gold": [[field.key, field.value, *field.variants] for field in gold],
        }
        for name, predicted, gold in documents
    ]


def regroup(rows: Sequence[Parts]) -> list[tuple[str, list[Field], list[Field]]]:
    """Scores of single answers put together by the documents' names.

    A key's true values count once however many pages of the document were asked for it; what was
    predicted for any of them counts.
    """
    predicted: dict[str, list[Field]] = {}
    gold: dict[str, dict[str, list[Field]]] = {}
    for row in rows:
        for document in row["documents"]:
            name = document["name"]
            predicted.setdefault(name, []).extend(
                Field(key, value) for key, value in document["predicted"]
            )
            fresh: dict[str, list[Field]] = defaultdict(list)
            for key, value, *variants in document["gold"]:
                fresh[key].append(Field(key, value, tuple(variants)))
            gold.setdefault(name, {}).update(fresh)
    return [
        (name, fields, [field for of_key in gold[name].values() for field in of_key])
        for name, fields in predicted.items()
    ]


DUE_F1: dict[str, Scorer] = {"due": _f1}
DUE_MEAN_F1: dict[str, Scorer] = {"due": _mean_f1}
