"""Names, misuse, and the scores of whole sets."""

from __future__ import annotations

from typing import Any

import pytest

from alignvlm.errors import UsageError
from alignvlm.evaluation import aggregate, metric_name, metric_names, score
from alignvlm.evaluation.scorers import MEASURES
from alignvlm.evaluation.scorers.registry import WHOLE_SETS


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
    assert "mmvet_judge_parse@vlmevalkit-2025.05+pipeline" not in metric_names()
    assert WHOLE_SETS == {"pope_corpus": "pope", "mmvet_judge_parse": "mmvet"}
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
        ("seed_choice", {"options": ["x"] * 27}, "at most 26 texts"),
        ("mmvet", {}, "graded by a language model"),
        ("pope_corpus", {"categories": None}, "1 predictions and 2 answers"),
    ],
)
def test_misuse_is_told_in_a_sentence(metric: str, options: dict[str, Any], message: str) -> None:
    answers = ["a", "b"] if metric == "pope_corpus" else ["a"]
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        score(metric, ["a"] if metric == "pope_corpus" else "a", answers, **options)


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
    assert value("pope@lmms-eval", "yes", " YES ") == 1.0
    assert score("pope@lmms-eval", "no", "No").parts["unparsed"] is False
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
    assert aggregate(rows, ["a, b", "a", "b"]).parts["groups"] == {"a": 0.5, "b": 1.0}
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
    jaccard = [score("vcr_jaccard", *pair) for pair in (("a b", ["a b", "c", "d"]), ("d", ["d"]))]
    assert aggregate(jaccard).value == 0.5
    nothing = score("vcr_jaccard", "a", [])
    assert nothing.value == aggregate([nothing]).value == 0.0
    assert value("vcr_jaccard", "User: x Assistant: a b", "['a b']") == 1.0
    assert value("vcr_jaccard", "a b x", ["a b c"]) == 0.5
    for refusal in ("I can't: a b", "I cannot: a b", "SORRY a b", "无法 a b", "抱歉 a b"):
        assert value("vcr_exact_match", refusal, ["a b"]) == 0.0
    # The nearest n-gram is the first of the most like, not the first that shares a token.
    found = score("vcr_jaccard", "the sky the town", ["the town"])
    assert found.parts["max_sim_string"] == ["the town"]
    assert value("vcr_jaccard", "the sky the sky the town", ["the town"]) == 1.0
