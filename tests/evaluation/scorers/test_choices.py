"""Letters of choices, and open questions of MMMU."""

from __future__ import annotations

from typing import Any

import pytest

from alignvlm.evaluation import score
from alignvlm.evaluation.scorers.choices import (
    LMMS_EVAL_PLACES,
    extract,
    find_letter,
    lettered,
    parse_mmmu,
)
from alignvlm.evaluation.scorers.mmmu_open import candidates, key_phrases, numbers_in

CHOICES = {"A": "a red car", "B": "a blue car", "C": "the sky"}


def value(metric: str, prediction: Any, answers: Any, **options: Any) -> float:
    return score(metric, prediction, answers, **options).value


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
    every = lettered([f"choice {number}" for number in range(26)])
    assert all(find_letter(letter, every, since_2025_08=False) == letter for letter in every)
    assert lettered(["x", 5]) == {"A": "x", "B": "5"}
    assert lettered({"A": "x", "B": None}) == {"A": "x"}
    assert lettered([str(number) for number in range(26)])["Z"] == "25"


def test_refusals_and_failures() -> None:
    for refusal in (
        "Sorry, I can't help with images of people yet.",
        "I can't process this file.",
        "I'm sorry, but without the image provided",
        "Cannot determine the answer",
    ):
        for since in (True, False):
            assert extract(f"{refusal} B", CHOICES, since_2025_08=since) == "Z"


@pytest.mark.parametrize(
    ("answer", "official", "lmms_eval"),
    [
        ("(A) or (B)", "B", "B"),
        ("(B) not (A) A", "A", "A"),
        ("(B) A", "B", "B"),
        ("A or B", "B", "B"),
        ("xA B C", "C", "C"),
        ("xA it", None, "A"),
        ("xA.y", None, "A"),
        ("A.x B.x", None, "A"),
        ("B. 5 km", None, "B"),
        ("A\n", None, "A"),
        ("A B (x", "B", "B"),
        ("it is surely, I think, the sky", "C", "C"),
        ("a red car or a blue car, I think", "B", "B"),
        ("the sky", None, None),
        ("it is surely not one of these", None, None),
        ("'B'", "B", "B"),
        ("B!?", None, None),
        ("B?!", "B", "B"),
    ],
)
def test_letters_of_mmmus_own_parser(
    answer: str, official: str | None, lmms_eval: str | None
) -> None:
    assert parse_mmmu(answer, CHOICES) == official
    assert parse_mmmu(answer.strip(), CHOICES, LMMS_EVAL_PLACES) == lmms_eval
    for dialect, letter in (("official", official), ("lmms-eval", lmms_eval)):
        found = score(f"mmmu_choice@{dialect}", answer, [letter or "A"], options=CHOICES)
        assert (found.value, found.parts["unparsed"]) == (float(letter is not None), letter is None)


def test_first_characters() -> None:
    assert score("seed_choice@lmms-eval", " (A)", ["A"]).parts == {
        "extracted": "(",
        "unparsed": True,
    }
    assert value("seed_choice@lmms-eval", " a long story", ["A"]) == 1.0
    assert value("seed_choice@lmms-eval", "A", [" A "]) == 1.0


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
    assert key_phrases("MAX") == ["max"]
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
