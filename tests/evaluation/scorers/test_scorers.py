"""What the recorded results do not show: `strict`, options, parts, whole sets, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError, MissingDependencyError, UsageError
from alignvlm.evaluation import RecordedJudge, aggregate, metric_name, metric_names, score
from alignvlm.evaluation.scorers import MEASURES
from alignvlm.evaluation.scorers import anls as anls_module
from alignvlm.evaluation.scorers.base import literal_list
from alignvlm.evaluation.scorers.choices import extract, find_letter, lettered, parse_mmmu
from alignvlm.evaluation.scorers.denotation import (
    cell,
    normalise,
    parse_date,
    parse_number,
    same,
    to_value,
    to_values,
)
from alignvlm.evaluation.scorers.judge import grading_prompt, prompt_sha256
from alignvlm.evaluation.scorers.mmmu_open import candidates, key_phrases, numbers_in
from alignvlm.evaluation.scorers.tables import normalise_amount
from alignvlm.evaluation.scorers.vqa_words import CONTRACTIONS

CHOICES = {"A": "a red car", "B": "a blue car", "C": "the sky"}


def value(metric: str, prediction: Any, answers: Any, **options: Any) -> float:
    return score(metric, prediction, answers, **options).value


def test_names() -> None:
    assert metric_name("anls") == "anls@vlmevalkit-2025.05"
    assert metric_name("anls", "strict") == "anls@strict"
    assert metric_name("anls", "vlmevalkit-2025.05+pipeline") == "anls@vlmevalkit-2025.05+pipeline"
    assert metric_name("due_f1") == metric_name("due_f1", "lmms-eval") == "due_f1@due"
    assert metric_name("exact_accuracy") == "exact_accuracy@docowl"
    assert metric_name("wtq_denotation", "vlmevalkit-2026.08") == "wtq_denotation@due"
    assert {name.split("@")[0] for name in metric_names()} == set(MEASURES)
    assert "pope_corpus@vlmevalkit-2025.05+pipeline" not in metric_names()
    assert "anls@strict+pipeline" not in metric_names()
    assert score("anls", "a", ["a"]).metric == "anls@vlmevalkit-2025.05"


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("anls@nobody", {}, "no dialect 'nobody': use one of anls@vlmevalkit-2025.05, "),
        ("beauty@strict", {}, "no metric 'beauty@strict': measures are anls, "),
        ("beauty", {}, "no measure 'beauty': use one of anls, "),
        ("anls", {"colour": 1}, "has no option 'colour': it takes none"),
        ("wtq_denotation@official", {"separator": "|"}, "it takes target_canon"),
        ("wtq_denotation@official", {"target_canon": []}, "1 answers and 0 canonical targets"),
        ("seed_choice", {}, "needs its choices"),
        ("seed_choice", {"options": {"a": "x"}}, "needs its choices"),
        ("seed_choice", {"options": "ABC"}, "needs its choices"),
        ("mmvet", {}, "graded by a language model"),
        ("pope_corpus", {"categories": None}, "1 predictions and 2 answers"),
    ],
)
def test_misuse_is_told_in_a_sentence(metric: str, options: dict[str, Any], message: str) -> None:
    answers = ["a", "b"] if metric == "pope_corpus" else ["a"]
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        score(metric, ["a"] if metric == "pope_corpus" else "a", answers, **options)


def test_documents_must_be_as_many() -> None:
    with pytest.raises(UsageError, match="differ in number"):
        score("due_f1", [], [{"name": "", "annotations": []}])
    with pytest.raises(UsageError, match="differ in number"):
        score("due_f1", [], "a")


def test_anls_needs_rapidfuzz(monkeypatch: pytest.MonkeyPatch) -> None:
    anls_module.levenshtein.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz.distance", None)
    with pytest.raises(MissingDependencyError, match=r"alignvlm\[eval\]"):
        score("anls", "a", ["a"])
    anls_module.levenshtein.cache_clear()


def test_anls_has_its_parts() -> None:
    found = score("anls@vlmevalkit-2025.05", " Pariss", ["London", "Paris"])
    assert found.parts == {
        "matched": "Paris",
        "distance": 1,
        "length": 7,
        "similarity": pytest.approx(6 / 7),
        "normalised_prediction": "pariss",
        "normalised_answer": "paris",
    }
    assert score("anls", "a", []).parts == {"matched": None, "normalised_prediction": "a"}
    assert score("anls", "xy", ["", "ab"]).parts["matched"] == ""


def test_exactly_half_is_where_anls_differ() -> None:
    halves = {"vlmevalkit-2025.05": 0.5, "vlmevalkit-2026.08": 0.5, "lmms-eval": 0.5, "mmf": 0.5}
    for dialect in MEASURES["anls"]:
        wanted = 0.5 if dialect == "anls_star-1.0.1" else halves.get(dialect, 0.0)
        assert value(f"anls@{dialect}", "Stortf", ["Stortford123"]) == wanted, dialect
    assert value("anls@strict", "Abc  d", ["abc d"]) == 1.0
    assert value("anls@strict", "", [""]) == 1.0
    assert value("anls@strict", "abcd", ["abcx"]) == 0.75


@pytest.mark.parametrize(
    ("prediction", "answer", "toolkit", "strict"),
    [
        ("1.05", "1", 0.0, 1.0),
        ("105", "100", 1.0, 1.0),
        ("105.01", "100", 0.0, 0.0),
        ("0.0", "0", 0.0, 1.0),
        ("0.1", "0", 0.0, 0.0),
        ("14", "14%", 0.0, 0.0),
        (" 14.5% ", "14%", 1.0, 1.0),
        ("0.14", "14%", 1.0, 1.0),
        ("-5", "5", 0.0, 0.0),
        ("-105", "-100", 1.0, 1.0),
        ("nan", "nan", 0.0, 1.0),
        ("inf", "inf", 0.0, 1.0),
        ("1_000", "1000", 1.0, 1.0),
        ("Blue", "blue", 1.0, 1.0),
        ("%", "%", 1.0, 1.0),
    ],
)
def test_relaxed_accuracy(prediction: str, answer: str, toolkit: float, strict: float) -> None:
    assert value("relaxed_accuracy@vlmevalkit-2026.08", prediction, [answer]) == toolkit
    assert value("relaxed_accuracy@strict", prediction, [answer]) == strict


def test_docowl_reads_one_line() -> None:
    for metric in ("relaxed_accuracy@docowl", "exact_accuracy@docowl"):
        assert value(metric, " Tr\nue\n", ["True."]) == 1.0
        assert value(metric, "True", [" Tr\nue. "]) == 1.0
        assert value(metric, "True.", ["True"]) == 0.0


def test_relaxed_accuracy_has_its_parts() -> None:
    found = score("relaxed_accuracy@lmms-eval", "14.5", ["x", "14"]).parts
    assert found == {
        "matched": "14",
        "normalised_prediction": "14.5",
        "prediction_number": 14.5,
        "answer_number": 14.0,
    }
    assert score("relaxed_accuracy@lmms-eval", "inf", ["x"]).parts["prediction_number"] is None
    assert score("relaxed_accuracy@lmms-eval", "1", []).parts["matched"] is None
    assert score("relaxed_accuracy@lmms-eval", "1", []).value == 0.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[1, 'a']", [1, "a"]),
        ("  ['a']", ["a"]),
        ("['a'", None),
        ("a", None),
        ("(1, 2)", None),
        ("[open('x')]", None),
        ("[1][0]", None),
        (r"['\d']", [r"\d"]),
        ("[" * 100_000, None),
        ("['\0']", None),
    ],
)
def test_answer_columns_are_read_and_never_run(text: str, found: list[Any] | None) -> None:
    assert literal_list(text) == found


def test_answer_columns_of_vlmevalkit() -> None:
    year = "relaxed_accuracy@vlmevalkit-2026.08"
    assert value(year, "2018", ["[2018, 2019]"]) == 1.0
    assert value(year, "[2018, 2019]", ["[2018, 2019]"]) == 0.0
    assert value("relaxed_accuracy@lmms-eval", "2018", ["[2018, 2019]"]) == 0.0
    assert value("anls@vlmevalkit-2025.05", "b", "['a', 'b']") == 1.0
    assert value("anls@vlmevalkit-2025.05", "['a', 'b']", ["['a', 'b']"]) == 1.0
    assert value("anls@lmms-eval", "b", "['a', 'b']") == 0.0
    assert value("exact_match@vlmevalkit-2026.08", "b", ["['a', 'b']"]) == 1.0


def test_predictions_may_be_lost_in_the_file() -> None:
    for text in ("n/a", "None", "NA", "null", ""):
        found = score("anls@vlmevalkit-2025.05+pipeline", text, ["nan"])
        assert (found.value, found.parts["prediction_after_roundtrip"]) == (1.0, "nan")
    assert value("anls@vlmevalkit-2025.05+pipeline", "none", ["none"]) == 1.0
    assert value("tablevqa_wtq@vlmevalkit-2025.05+pipeline", "Answer: 5", "5") == 1.0
    assert value("tablevqa_wtq@vlmevalkit-2025.05", "Answer: 5", "5") == 0.0
    assert value("anls@vlmevalkit-2025.05+pipeline", "Answer: 5", ["Answer: 5"]) == 1.0
    assert value("seed_choice@vlmevalkit-2026.08+pipeline", "A", ["A"], options=["x", "y"]) == 1.0


def test_contractions_are_the_published_ones() -> None:
    assert len(CONTRACTIONS) == 114
    for short, word in (
        ("dont", "don't"),
        ("couldntve", None),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("ow's'at", "'ow's'at"),
        ("'ow'sat", "'ow's'at"),
        ("twas", "'twas"),
        ("hell", None),
        ("im", None),
    ):
        assert CONTRACTIONS.get(short) == word


def test_only_32_full_stops_go() -> None:
    found = score("vqa_soft_accuracy@official", ". " * 40, ["a", "b"])
    assert found.parts["normalised_prediction"] == " ".join("." * 8)
    for text in ("a?b", "a,b"):
        found = score("vqa_soft_accuracy@lmms-eval", text, [])
        assert (found.value, found.parts["normalised_prediction"]) == (0.0, "ab")
    assert score("vqa_soft_accuracy", "x", ["x"]).value == 0.0
    assert score("vqa_soft_accuracy", "x", ["x"] * 3 + ["y"] * 7).parts["matches"] == 3


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
    assert to_value("2.9999999").key == 2
    assert to_value("2.5").key == 2.5
    assert to_value("", "5.0").text == "5"
    assert to_value("", "2004-xx-05").text == "2004-xx-5"
    assert to_value("", "xx-03-xx").text == "xx-3--1"
    assert [value.text for value in to_values(["5.0", "5", "a", "A"])] == ["5.0", "a"]
    assert same(to_value("5"), to_value("5.0000005"))
    assert not same(to_value("5"), to_value("5.000002"))
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
        ("10 Square feet", [10.0, 10.0]),
        ("5 yearly", ["5 yearly", "5 yearly"]),
    ],
)
def test_amounts(text: str, amounts: list[Any]) -> None:
    assert normalise_amount(text) == amounts


def test_amounts_that_are_no_json_are_shown_as_text() -> None:
    found = score("fintabnet_relieved", "nan", "nan")
    assert (found.value, found.parts["normalised_prediction"]) == (0.0, ["nan", ["nan", "nan"]])
    assert score("fintabnet_relieved", "5%", "5").parts["exact"] is False


def test_letters() -> None:
    for since in (True, False):
        assert find_letter("B.", CHOICES, since_2025_08=since) == "B"
        assert (
            find_letter("Failed to obtain answer via API: B", CHOICES, since_2025_08=since) is None
        )
        assert find_letter("I can't process this file. B", CHOICES, since_2025_08=since) == "Z"
        assert find_letter("Z", CHOICES, since_2025_08=since) == "Z"
        assert find_letter("A or B", CHOICES, since_2025_08=since) is None
    far = "B it is, as anyone can see"
    assert extract(far, CHOICES, since_2025_08=False) == "B"
    assert extract(far, CHOICES, since_2025_08=True) == "Z"
    assert extract("B one two three four", CHOICES, since_2025_08=True) == "Z"
    assert extract("B one two three", CHOICES, since_2025_08=True) == "B"
    told = "A B: the answer  is **b**"
    assert extract(told, CHOICES, since_2025_08=True) == "B"
    assert extract(told, CHOICES, since_2025_08=False) == "Z"
    assert extract("answer is D", CHOICES, since_2025_08=True) == "Z"
    long = "it must be the sky " + "x" * 60
    assert extract(long, CHOICES, since_2025_08=False) == "C"
    assert extract(long, CHOICES, since_2025_08=True) == "Z"
    assert extract("the sky".ljust(54, "x"), CHOICES, since_2025_08=True) == "Z"
    assert extract("the sky".ljust(52, "x"), CHOICES, since_2025_08=True) == "C"
    assert lettered(["x", 5]) == {"A": "x", "B": "5"}
    assert lettered({"A": "x", "B": None}) == {"A": "x"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(A) or (B)", "B"),
        ("(B) not (A) A", "A"),
        ("(B) A", "B"),
        ("A or B", "B"),
        ("xA B C", "C"),
        ("xA.y", "A"),
        ("A.x B.x", "A"),
        ("A B (x", "B"),
        ("it is surely, I think, the sky", "C"),
        ("a red car or a blue car, I think", "B"),
        ("the sky", None),
        ("it is surely not one of these", None),
        ("'B'", "B"),
        ("B!?", None),
        ("B?!", "B"),
    ],
)
def test_letters_of_mmmus_own_parser(answer: str, letter: str | None) -> None:
    assert parse_mmmu(answer, CHOICES) == letter
    found = score("mmmu_choice@lmms-eval", answer, [letter or "A"], options=CHOICES)
    assert (found.value, found.parts["unparsed"]) == (float(letter is not None), letter is None)


def test_first_characters() -> None:
    assert score("seed_choice@lmms-eval", " (A)", ["A"]).parts == {
        "extracted": "(",
        "unparsed": True,
    }
    assert value("seed_choice@lmms-eval", " a long story", ["A"]) == 1.0


def test_open_questions() -> None:
    assert numbers_in("1,234 1e5 -.5 7.25 3e 6.7e8") == [
        *("1,234", "1e5", "6.7e8"),
        *("234", "5", "-.5", "7.25", "6", "8"),
    ]
    assert candidates(" 1,000.006 ") == [1000.01]
    assert candidates("A") == [" a", "a "]
    assert candidates(" AB ") == ["ab"]
    assert key_phrases("So it is 5.\nx = 7") == ["5.", "7"]
    assert key_phrases("a = 5\nfinal : \nis :") == ["a = 5\nfinal : \nis :"]
    assert key_phrases(" .a. ") == ["a"]
    for key in ("could be", "so", "is", "thus", "therefore", "final", "answer", "result"):
        assert key_phrases(f"x {key} 7\n8") == ["7"]
    assert key_phrases("thus therefore 7") == ["7"]
    assert value("mmmu_open@official", "x = 5.304", "5.3") == 1.0
    assert score("mmmu_open@official", "it is 7", "7").parts["matched"] == 7.0
    assert value("mmmu_open@lmms-eval", "5.3", "5.3") == 0.0
    assert value("mmmu_open@lmms-eval", "5.3", "") == 1.0
    assert value("mmmu_open@lmms-eval", "", "") == 0.0
    # The gold of an open question that is a capital letter is taken for a choice.
    assert value("mmmu_open@vlmevalkit-2025.05", "so C", "C") == 0.0
    assert value("mmmu_open@vlmevalkit-2025.05", "5 or 6", ["5", "6"]) == 0.0
    assert score("mmmu_open@vlmevalkit-2025.05", "other answers", "5").parts == {
        "extracted": "B",
        "unparsed": False,
    }


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


def test_pope_over_a_set() -> None:
    said = ["Yes", "No", "Yes, a dog", "maybe"]
    gold = ["Yes", "Yes", "No", "No"]
    for dialect, value_, key in (
        ("vlmevalkit-2026.08", 0.5, "Overall"),
        ("lmms-eval", 0.25, "accuracy"),
    ):
        rows = [score(f"pope@{dialect}", *pair) for pair in zip(said, gold, strict=True)]
        total = aggregate(rows)
        whole = score(f"pope_corpus@{dialect}", said, gold)
        assert total.value == whole.value == value_
        assert total.parts == whole.parts
        assert key in whole.parts["report"]
    assert rows[0].parts["unparsed"] is False
    assert rows[2].parts["unparsed"] is True
    report = score("pope_corpus@lmms-eval", ["yes", "maybe"], ["yes", "yes"]).parts["report"]
    assert report == {"accuracy": 0.5, "f1": 1.0, "precision": 1.0, "recall": 1.0, "yes_ratio": 1.0}
    empty = score("pope_corpus@lmms-eval", [], []).parts["report"]
    assert set(empty.values()) == {0.0}


def test_pope_counts_a_row_for_each_of_its_categories() -> None:
    rows = [
        score("pope@vlmevalkit-2025.05", said, gold)
        for said, gold in (("Yes", "Yes"), ("no", "No"), ("no", "Yes"))
    ]
    total = aggregate(rows, ["random,popular", "random", "popular"])
    report = total.parts["report"]
    assert report["Overall"] == pytest.approx(
        {"Overall": 80.0, "acc": 75.0, "precision": 100.0, "recall": 200 / 3}
    )
    assert report["popular"]["recall"] == 50.0
    assert list(report) == ["Overall", "popular", "random"]
    assert total.value == pytest.approx(0.8)
    assert total.parts["groups"] == {"random": 1.0, "popular": pytest.approx(2 / 3)}


def test_means_and_groups() -> None:
    rows = [score("anls", said, ["ab"]) for said in ("ab", "xx", "ab")]
    total = aggregate(rows, ["easy", "easy", "hard"])
    assert total.value == pytest.approx(2 / 3)
    assert total.parts == {"groups": {"easy": 0.5, "hard": 1.0}, "mean_of_groups": 0.75}
    for wrong in ([], [rows[0], score("pope", "yes", "Yes")]):
        with pytest.raises(UsageError, match="aggregate each metric by itself"):
            aggregate(wrong)
    with pytest.raises(UsageError, match="3 scores and 1 groups"):
        aggregate(rows, ["easy"])


def test_vcr_pools_blanks() -> None:
    first = score("vcr_exact_match", "a b c", ["a b", "c", "d"])
    second = score("vcr_exact_match", "nothing", ["d"])
    assert first.parts["per_blank"] == [1.0, 1.0, 0.0]
    total = aggregate([first, second])
    assert (total.value, total.parts["num_blanks"]) == (0.5, 4)
    assert aggregate([score("vcr_jaccard", "a", [])]).value == 0.0
    assert value("vcr_jaccard", "User: x Assistant: a b", "['a b']") == 1.0
    assert value("vcr_jaccard", "a b x", ["a b c"]) == 0.5
    for refusal in ("I can't: a b", "I cannot: a b", "SORRY a b", "无法 a b", "抱歉 a b"):
        assert value("vcr_exact_match", refusal, ["a b"]) == 0.0
    # The nearest n-gram is the first of the most like, not the first that shares a token.
    found = score("vcr_jaccard", "the sky the town", ["the town"])
    assert found.parts["max_sim_string"] == ["the town"]


class Script:
    """A judge that answers from a list and notes what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, prompt: str, temperature: float) -> str:
        self.asked.append((prompt, temperature))
        return self.replies.pop(0)


def test_a_judge_is_asked_with_the_papers_prompt() -> None:
    judge = Script("0,5", "1.5", "0.7")
    found = score("mmvet", "x = -1", ["-1<AND>-5"], question="What is x?", judge=judge)
    assert (found.value, found.parts["replies"]) == (0.7, ["0,5", "1.5", "0.7"])
    prompt = grading_prompt("What is x?", "-1<AND>-5", "x = -1")
    assert judge.asked == [(prompt, 0.0), (prompt, 0.5), (prompt, 1.0)]
    assert prompt.endswith("| 1.0\n\nWhat is x? | -1 <AND> -5 | x = -1 | ")
    assert prompt_sha256(prompt).startswith("915a589d9ef7aa88")
    assert grading_prompt("q", "a<OR>b", "c").endswith("\nq | a <OR> b | c | ")
    assert found.parts["prompt_sha256"] == prompt_sha256(prompt)
    assert score("mmvet", "", [], judge=Script(*"abcde")).value == 0.0


@pytest.mark.parametrize(
    ("replies", "grade", "temperatures"),
    [
        (["0.5. yes", "thrown", "0.4 because"], 0.4, [0.0, 0.5, 0.5]),
        (["", " ", "1"], 1.0, [0.0] * 3),
        (["", "", ""], 0.0, [0.0] * 3),
        (["2", "0.3"], 0.3, [0.0, 0.0]),
        (["-1", "0"], 0.0, [0.0, 0.0]),
        (["x"] * 8, 0.0, [0.0, 0.5, 0.5, 1.0, 1.0, 1.5, 1.5, 2.0]),
    ],
)
def test_a_judge_in_lmms_eval(replies: list[str], grade: float, temperatures: list[float]) -> None:
    judge = Script(*replies)
    assert value("mmvet@lmms-eval", "p", ["a"], judge=judge) == grade
    assert [temperature for _, temperature in judge.asked] == temperatures


def test_a_recorded_judge(tmp_path: Path) -> None:
    prompt = grading_prompt("q", "a", "p")
    record = tmp_path / "replies.jsonl"
    rows = [{"prompt_sha256": prompt_sha256(prompt), "reply": reply} for reply in ("no", "0.9")]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = score("mmvet", "p", ["a"], question="q", judge=RecordedJudge.read(record))
    assert (found.value, found.parts["replies"]) == (0.9, ["no", "0.9"])
    with pytest.raises(InputError, match="No reply was recorded for the prompt that ends"):
        score("mmvet", "other", ["a"], question="q", judge=RecordedJudge.read(record))
    with pytest.raises(InputError, match="No reply was recorded"):
        RecordedJudge([])("x", 0.0)
    record.write_text('{"reply": "1"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"Line 1 of .*replies.jsonl is no recorded reply"):
        RecordedJudge.read(record)
