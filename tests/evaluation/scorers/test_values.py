"""Denotation, tables, and fields of documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alignvlm.errors import UsageError
from alignvlm.evaluation import aggregate, score
from alignvlm.evaluation.scorers.denotation import (
    cell,
    normalise,
    parse_date,
    parse_number,
    same,
    to_value,
    to_values,
)
from alignvlm.evaluation.scorers.tables import normalise_amount


def value(metric: str, prediction: Any, answers: Any, **options: Any) -> float:
    return score(metric, prediction, answers, **options).value


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Café", "cafe"),
        ("“Blue” – ‘sky’", "\"blue\" - 'sky'"),
        ("x[1][note]*†", "x"),
        ("[1]", ""),
        ("[a]", "[a]"),
        ("[a][b]", "[a]"),
        ("[a*[b]", "[a"),
        ("[]", "[]"),
        ("x[]", "x"),
        ("x]", "x]"),
        ("x [a] y]", "x [a] y]"),
        ("Ribot (ARG)", "ribot"),
        ("Ribot (a) (b)", "ribot"),
        ("Ribot(ARG)", "ribot(arg)"),
        ("(ARG)", "(arg)"),
        ("a (b (c)", "a"),
        ("a) (b)", "a)"),
        ("a)", "a)"),
        ("a (b))", "a (b))"),
        ("a ()", "a"),
        ("MAX•♦†‡*#+", "max"),
        ("MAX", "max"),
        ('"Blue"', "blue"),
        ('""', ""),
        ('"', '"'),
        ('"a"b"', '"a"b"'),
        ('"Blue (x)" (y)*', "blue"),
        ("a..", "a."),
        (" a  b . ", "a b"),
        ("5 + ", "5"),
        ("", ""),
    ],
)
def test_normalised_cells(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_values() -> None:
    assert parse_number("1_000") == 1000
    assert parse_number("1e400") is parse_number("nan") is parse_number("x") is None
    assert parse_number("9" * 5000) is None
    assert parse_date("XX-1-31") == (-1, 1, 31)
    assert parse_date("xxxx-xx-05") == (-1, -1, 5)
    for text in ("2004-13-01", "2004-01-32", "2004-00-01", "xx-xx-xx", "2004-01", "a-b-c", "1-2-0"):
        assert parse_date(text) is None
    assert to_value("2004-xx-xx").kind == "number"
    assert (to_value("2004-03-05").kind, to_value("a").kind) == ("date", "text")
    assert to_value("2.9999999").key == 2
    assert to_value("2.5").key == 2.5
    assert to_value("", "5.0").text == "5"
    assert to_value("", "2004-xx-05").text == "2004-xx-5"
    assert to_value("", "xx-03-xx").text == "xx-3--1"
    assert [value.text for value in to_values(["5.0", "5", "a", "A"])] == ["5.0", "a"]
    assert same(to_value("5"), to_value("5.0000005"))
    assert not same(to_value("5"), to_value("5.000002"))
    assert not same(to_value("0"), to_value("0.000001"))
    assert not same(to_value("9" * 400), to_value("0.5"))
    assert not same(to_value("2004-03-05"), to_value("2004-03-06"))
    assert same(to_value("2004-03-05"), to_value("2004-3-5"))
    assert not same(to_value("a"), to_value("b"))
    assert cell(r"a\pb|c\nd|\\") == ["a|b", "c\nd", "\\"]


def test_several_answers_to_one_question() -> None:
    assert value("wtq_denotation@due", "a | b", ["b", "a"]) == 0.0
    assert value("wtq_denotation@due", "a | b", ["b", "a"], separator=" | ") == 1.0
    assert value("wtq_denotation@due", ["A", "b"], ["B", "a"]) == 1.0
    assert value("wtq_denotation@due", ["a"], ["b", "a"]) == 0.0
    assert score("wtq_denotation@due", ["a"], ["b", "a"]).parts["missing"] == ["b"]
    assert value("wtq_denotation@official", "17", ["17 years"]) == 0.0
    assert value("wtq_denotation@official", "17", ["17 years"], target_canon=["17.0"]) == 1.0
    assert value("tablevqa_wtq", "b||a", ["a|b"]) == value("tablevqa_wtq", "b||a", ["a", "b"]) == 1


def test_tabfact_of_tablevqabench() -> None:
    fact = "tablevqa_tabfact@vlmevalkit-2025.05"
    assert score(fact, "True or false", "1").parts == {"found": None, "unparsed": True}
    assert score(fact, "maybe", "1").parts == {"found": None, "unparsed": False}
    assert score(fact, "untrue", ["1"]).parts == {"found": True, "unparsed": False}
    assert value(fact, "untrue", ["1"]) == 1.0
    assert value(fact, None, "0") == 0.0
    assert value(fact, "false", 0) == 0.0
    assert value("tablevqa_tabfact@official", "false", 0) == 1.0


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("$3,852 million", [3852e6, 3852.0]),
        ("7 thousand", [7e3, 7.0]),
        ("7thousand", ["7thousand", "7thousand"]),
        ("1.5 billion dollars", [1.5e9, 1.5]),
        ("34.2 %", [pytest.approx(0.342), 34.2]),
        ("million", ["e6", ""]),
        ("5-billion", ["5-e9", "5-"]),
        ("5-thousand", ["5-e3", "5-"]),
        ("5 mmbtus", [5.0, 5.0]),
        ("5 gwh 5 mboe", ["5  5 ", "5  5 "]),
        ("10 Square feet", [10.0, 10.0]),
        ("5 yearly", ["5 yearly", "5 yearly"]),
    ],
)
def test_amounts(text: str, amounts: list[Any]) -> None:
    assert normalise_amount(text) == amounts


def test_amounts_that_are_no_json_are_shown_as_text() -> None:
    found = score("fintabnet_relieved", "nan", "nan")
    assert (found.value, found.parts["normalised_prediction"]) == (0.0, ["nan", ["nan", "nan"]])
    assert score("fintabnet_relieved", "5%", "5").parts == {
        "normalised_prediction": [0.05, [0.05, 5.0]],
        "normalised_answer": [5.0, [5.0, 5.0]],
        "exact": False,
    }
    assert score("fintabnet_exact", "5%", ["5", "6"]).parts["normalised_answer"] == [5.0, [5.0] * 2]


def test_documents_must_be_as_many() -> None:
    with pytest.raises(UsageError, match="differ in number"):
        score("due_f1", [], [{"name": "", "annotations": []}])
    with pytest.raises(UsageError, match="differ in number"):
        score("due_f1", [], "a")


def test_fields_of_single_answers_are_pooled_over_their_documents() -> None:
    rows = [
        score("due_f1@due", "ACME", ["acme"], key="advertiser", document="1"),
        score("due_f1@due", " 10\n", ["10"], key="gross_amount", document="1"),
        score("due_f1@due", "None", ["x"], key="contract_num", document="1"),
        score("due_f1@due", "none", [], key="flight_from", document="2"),
        score("due_f1@due", "acme", ["acme"], key="advertiser", document="1"),
    ]
    assert [row.value for row in rows] == [1.0, 1.0, 0.0, 0.0, 1.0]
    total = aggregate(rows)
    counts = [total.parts[f"{kind}_{how}"] for kind in ("true", "false") for how in ("positives",)]
    assert [*counts, total.parts["false_negatives"]] == [2, 2, 1]
    assert total.value == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert total.parts["per_key"]["gross_amount"]["f1"] == 1.0
    assert total.parts["per_key"]["advertiser"]["precision"] == 0.5
    assert total.num_scores == 5
    means = aggregate([score("due_mean_f1@due", "a", ["a"]), score("due_mean_f1@due", "b", [])])
    assert means.parts["per_document"] == [pytest.approx(2 / 3)]
    rows = [score("due_mean_f1", said, ["a"], document=said) for said in ("a", "b")]
    assert aggregate(rows).value == 0.5


def test_a_single_answer_is_a_document_of_one_field() -> None:
    for metric in ("due_f1", "due_mean_f1"):
        fields = [["value", "A"]]
        documents = [{"name": "", "predicted": fields, "gold": fields}]
        assert score(metric, " a", ["a"]).parts["documents"] == documents


def test_variants_survive_pooling() -> None:
    gold = [
        {
            "name": "d",
            "annotations": [{"key": "k", "values": [{"value": "a", "value_variants": ["b"]}]}],
        }
    ]
    said = [{"name": "d", "annotations": [{"key": "k", "values": [{"value": "B"}]}]}]
    one = score("due_f1", said, gold)
    assert one.value == aggregate([one]).value == 1.0
    assert json.loads(json.dumps(one.parts)) == one.parts


@pytest.mark.parametrize(
    ("said", "value"), [("Acme", 1.0), ("ACME INC.", 1.0), ("Acme, Inc", 0.0), ("Acme Ltd", 0.0)]
)
def test_a_field_that_may_be_written_in_several_ways(said: str, value: float) -> None:
    true = {"value": "Acme", "value_variants": ["Acme Inc.", "Acme, Inc."]}
    found = score("due_f1@due", said, [true], key="charity_name", document="1")
    assert found.value == value
    assert aggregate([found]).value == value
