"""ANLS, relaxed accuracy, equality, soft accuracy, and what is read before they compare."""

from __future__ import annotations

import string
from typing import Any

import pytest

from alignvlm.errors import MissingDependencyError
from alignvlm.evaluation import score
from alignvlm.evaluation.scorers import MEASURES
from alignvlm.evaluation.scorers import anls as anls_module
from alignvlm.evaluation.scorers.base import literal_list
from alignvlm.evaluation.scorers.pipeline import MISSING, read_back
from alignvlm.evaluation.scorers.vqa_words import CONTRACTIONS


def value(metric: str, prediction: Any, answers: Any, **options: Any) -> float:
    return score(metric, prediction, answers, **options).value


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
    nothing = score("anls", "a", [])
    assert nothing.value == 0.0
    assert nothing.parts == {"matched": None, "normalised_prediction": "a"}
    assert anls_module.anls("ab", ["abcd", "x"]) == 0.5
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
        ("abc", "5", 0.0, 0.0),
        ("5", "abc", 0.0, 0.0),
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
        ("[1] + [2]", None),
        ("([1])", [1]),
        ("\n[1]", [1]),
        ("'[1]'", None),
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
    assert value("relaxed_accuracy@vlmevalkit-2026.08", "None", "[None]") == 1.0
    for toolkit, share in (("vlmevalkit-2025.05", 0.5), ("vlmevalkit-2026.08", 0.5)):
        equal = score(f"exact_match@{toolkit}", " B", ["['a', 'b ']"])
        assert (equal.value, equal.parts["matched"]) == (share, "b ")
        assert value(f"exact_match@{toolkit}", "b", []) == 0.0
    equal = score("exact_match@lmms-eval", " B. ", ["a", "b"])
    assert (equal.value, equal.parts) == (1.0, {"matched": "b", "normalised_prediction": "b"})


def test_predictions_may_be_lost_in_the_file() -> None:
    spaced = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None"
    missing = [*spaced.split("|"), "n/a", "nan", "null", ""]
    assert sorted(MISSING) == sorted(missing)
    for text in missing:
        found = score("anls@vlmevalkit-2025.05+pipeline", text, ["nan"])
        assert (found.value, found.parts["prediction_after_roundtrip"]) == (1.0, "nan")
    assert value("anls@vlmevalkit-2025.05+pipeline", "none", ["none"]) == 1.0
    assert value("relaxed_accuracy@vlmevalkit-2025.05+pipeline", "= 14", ["0"]) == 1.0
    assert value("relaxed_accuracy@vlmevalkit-2026.08+pipeline", "= 14", ["= 14"]) == 1.0
    for text, formula in (("{=1}", "0"), ("{=1", "{=1"), ("a=1", "a=1"), ("=\n1", "0")):
        assert (read_back(text), read_back(text, formulas=True)) == (text, formula)
    assert read_back("x" * 40_000) == "x" * 32_767
    assert read_back("a\r\x00\t\n\x1f\uffff") == "a_x000D__x0000_\t\n_x001F__xFFFF_"
    for measure in ("tablevqa_wtq", "fintabnet_relieved", "fintabnet_exact"):
        assert value(f"{measure}@vlmevalkit-2025.05+pipeline", "Answer: 5", "5") == 1.0
    fact = score("tablevqa_tabfact@vlmevalkit-2026.08+pipeline", "Answer: true", "1")
    assert fact.parts["prediction_after_roundtrip"] == "true"
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


def test_number_words_are_digits() -> None:
    words = "none zero one two three four five six seven eight nine ten a an the eleven"
    found = score("vqa_soft_accuracy", words.title(), []).parts["normalised_prediction"]
    assert found == "0 0 1 2 3 4 5 6 7 8 9 10 eleven"


@pytest.mark.parametrize("blank", [" ", "\n", "\t"])
def test_signs_beside_any_blank_go_everywhere(blank: str) -> None:
    found = score("vqa_soft_accuracy", f"a-b-{blank}c", []).parts["normalised_prediction"]
    assert found == "ab c"


def test_letters_and_digits_stay() -> None:
    text = string.ascii_letters + string.digits
    for dialect in MEASURES["vqa_soft_accuracy"]:
        read = score(f"vqa_soft_accuracy@{dialect}", text, [text, "x"]).parts
        assert read["normalised_prediction"] == text.lower()


def test_equality_as_numpy_sees_it() -> None:
    assert value("exact_match@lmms-eval", "yes\0", ["yes"]) == 1.0
    assert value("exact_match@lmms-eval", "y\0es", ["yes"]) == 0.0


def test_only_32_full_stops_go() -> None:
    found = score("vqa_soft_accuracy@official", ". " * 40, ["a", "b"])
    assert found.parts["normalised_prediction"] == " ".join("." * 8)
    for text in ("a?b", "a,b"):
        found = score("vqa_soft_accuracy@lmms-eval", text, [])
        assert (found.value, found.parts["normalised_prediction"]) == (0.0, "ab")
    assert score("vqa_soft_accuracy", "x", ["x"]).value == 0.0
    assert score("vqa_soft_accuracy", "x", ["x"] * 3 + ["y"] * 7).parts["matches"] == 3
