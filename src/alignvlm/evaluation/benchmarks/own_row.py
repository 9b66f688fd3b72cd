"""What a row of a user's own file says, with all that its measure will need checked.

A scorer that meets a value of the wrong type may fail after thousands of answers, or score 0
without a word; so nothing reaches one that is not checked here.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from alignvlm.data.rows.base import BadRowError, Row
from alignvlm.evaluation.benchmarks.readers import Asked, group_of
from alignvlm.evaluation.scorers.registry import MEASURES, WHOLE_SETS
from alignvlm.hints import did_you_mean
from alignvlm.imaging.sources import quoted

__all__ = ["OPTIONS", "ROW_MEASURES", "asked_in", "id_of", "wrong_measure"]

ROW_MEASURES: Final = tuple(name for name in MEASURES if name not in WHOLE_SETS)
"""Measures that a row may have."""

_FIELDS = ("due_f1", "due_mean_f1")
_CHOICES = ("seed_choice", "mmmu_choice")
_OF_ONE = ("pope", "tablevqa_tabfact", "fintabnet_relieved", "fintabnet_exact", "mmvet")
_DECIDED = {"pope": ("Yes", "No"), "tablevqa_tabfact": ("1", "0")}

OPTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "due_f1": ("key", "document"),
        "due_mean_f1": ("key", "document"),
        "wtq_denotation": ("separator", "target_canon"),
    }
)
"""Options that rows give a measure. The choices of a question and its text are given anyway."""


def asked_in(row: Row, default: str) -> Asked:
    """What a row says.

    Args:
        row: of the file.
        default: the measure of rows that name none, "" for none.

    Raises:
        BadRowError: it lacks something, or holds something that its measure cannot be given.
    """
    measure = _measure(row, default)
    text = _text(row.get("question"), "question")
    choices = _choices(row, measure)
    answers = _answers(row, measure, choices)
    options = _options(row, measure, len(answers))
    if measure in _CHOICES:
        options = {"options": choices}
    if measure == "mmvet":
        options = {"question": text}
    return Asked(
        text=text,
        answers=answers,
        measures=(measure,),
        options=options,
        choices=choices,
        hint="" if row.get("hint") in (None, "") else _text(row["hint"], "hint"),
        group=_group(row),
    )


def id_of(row: Row, index: int) -> str:
    """What names row `index`: its `id`, or its number.

    Raises:
        BadRowError: the id is neither a text nor a number.
    """
    name = row.get("id")
    if name is None or name == "":
        return str(index + 1)
    return str(_plain(name, "id"))


def wrong_measure(name: str) -> str:
    """What is wrong with a measure for rows, and what to do; "" if nothing is."""
    if name in WHOLE_SETS:
        return f"metric {quoted(name)}, which is of a whole set: use {quoted(WHOLE_SETS[name])}"
    if name not in MEASURES:
        meant = did_you_mean(name.partition("@")[0], ROW_MEASURES)
        return f"metric {quoted(name)}{meant}: use one of {', '.join(ROW_MEASURES)}"
    return ""


def _measure(row: Row, default: str) -> str:
    found = default if row.get("metric") in (None, "") else row["metric"]
    if not found:
        raise BadRowError("has no metric: give it one, or all such rows one by --metric")
    if not isinstance(found, str):
        raise BadRowError(f"has a metric that is {_kind(found)}: name one measure")
    if problem := wrong_measure(found):
        raise BadRowError(f"has the {problem}")
    return found


def _choices(row: Row, measure: str) -> dict[str, str]:
    """The choices by their letters; none where the row has none."""
    found = row.get("choices")
    if found is None or found == [] or found == {}:
        if measure in _CHOICES:
            raise BadRowError(f"has no choices, which {quoted(measure)} needs: add them")
        return {}
    if isinstance(found, list) and len(found) <= len(string.ascii_uppercase):
        found = dict(zip(string.ascii_uppercase, found, strict=False))
    if not isinstance(found, Mapping):
        raise BadRowError("has choices that are no list: give at most 26 texts in order")
    if measure in _CHOICES and not set(found) <= set(string.ascii_uppercase):
        raise BadRowError("has choices by other names than A to Z: give a list of their texts")
    return {letter: str(_plain(text, "choice")) for letter, text in found.items()}


def _answers(row: Row, measure: str, choices: Mapping[str, str]) -> list[Any]:
    """The accepted answers, of the type that the measure's scorers compare with."""
    found = row.get("answers") if row.get("answers") is not None else row.get("answer")
    if found is None or found == []:
        raise BadRowError("has no answers: give a list of the accepted ones")
    found = found if isinstance(found, list) else [found]
    if len(found) > 1 and measure in _OF_ONE:
        raise BadRowError(
            f"has {len(found)} answers where {quoted(measure)} takes one: leave one of them"
        )
    if measure in _FIELDS:
        return [_value(one) if isinstance(one, Mapping) else _plain(one, "answer") for one in found]
    answers = [_plain(one, "answer") for one in found]
    if measure in _DECIDED:
        answers = [str(one).strip().capitalize() for one in answers]
    known = tuple(choices) if measure in _CHOICES else _DECIDED.get(measure, ())
    unknown = [one for one in answers if known and one not in known]
    if unknown:
        raise BadRowError(
            f"has the answer {quoted(str(unknown[0]))}, which is none of {', '.join(known)}: give "
            "one of these"
        )
    return answers


def _value(found: Mapping[str, Any]) -> dict[str, Any]:
    """A value of a field that may be written in several ways, as DUE has it."""
    known = ("value", "value_variants")
    for unknown in (name for name in found if name not in known):
        raise BadRowError(
            f"has an answer with the field {quoted(unknown)}{did_you_mean(unknown, known)}: give "
            "`value` and, if wanted, `value_variants`"
        )
    if "value" not in found:
        raise BadRowError("has an answer that is an object without `value`: give it one")
    variants = found.get("value_variants", [])
    if not isinstance(variants, list):
        raise BadRowError(f"has `value_variants` that are {_kind(variants)}: give a list of texts")
    return {
        "value": _plain(found["value"], "value"),
        "value_variants": [_plain(one, "value variant") for one in variants],
    }


def _options(row: Row, measure: str, num_answers: int) -> dict[str, Any]:
    found = row.get("options")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise BadRowError("has options that are no object: give them names")
    known = OPTIONS.get(measure, ())
    for unknown in (name for name in found if name not in known):
        remedy = f"use {' and '.join(known)}" if known else "leave it out"
        raise BadRowError(
            f"has the option {quoted(unknown)}{did_you_mean(unknown, known)}, which "
            f"{quoted(measure)} does not take from rows: {remedy}"
        )
    for name, value in found.items():
        if name == "target_canon":
            _check_canon(value, num_answers)
        else:
            _text(value, f"option {name}")
    return dict(found)


def _check_canon(value: Any, num_answers: int) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadRowError("has an option target_canon that is no list of texts: give it one")
    if len(value) != num_answers:
        raise BadRowError(
            f"has {num_answers} answers and {len(value)} texts as the option target_canon: give "
            "one for each answer"
        )


def _group(row: Row) -> str:
    group = row.get("group")
    for name in group if isinstance(group, Sequence) and not isinstance(group, str) else [group]:
        if name is not None:
            _plain(name, "group")
    return group_of(row, "group")


def _text(value: Any, what: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRowError(f"has no {what}: give it one")
    if not isinstance(value, str):
        raise BadRowError(f"has {_a(what)} that is {_kind(value)}: write it as text, in quotes")
    return value


def _plain(value: Any, what: str) -> str | int | float:
    if isinstance(value, str | int | float) and _kind(value) in ("a text", "a number"):
        return value
    raise BadRowError(f"has {_a(what)} that is {_kind(value)}: give a text or a number")


def _a(what: str) -> str:
    return f"{'an' if what[0] in 'aio' else 'a'} {what}"


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not isfinite(value):
        return "no finite number"
    names = {"dict": "an object", "list": "a list", "str": "a text"}
    return names.get(type(value).__name__, "a number")
