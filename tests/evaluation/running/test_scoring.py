from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignvlm.errors import InputError, UsageError
from alignvlm.evaluation import RecordedJudge, aggregate, score
from alignvlm.evaluation.question import Prediction
from alignvlm.evaluation.running.scoring import (
    check_dialect,
    check_judge,
    score_answer,
    score_predictions,
    scorers_version,
)

PAPER, LATER = "vlmevalkit-2025.05", "vlmevalkit-2026.08"


def made(raw: str | None, answers: Any, *measures: str, **changes: Any) -> Prediction:
    fields = {
        "id": "1", "group": "", "question": "What?", "prompt": "What?", "prompt_sha256": "0",
        "answers": answers, "options": {}, "measures": measures, "raw": raw, "scores": {},
        "tokens": 1, "complete": True, "error": None, "seconds": 0.0,
    }  # fmt: skip
    return Prediction(**{**fields, **changes})


def failed(answers: Any, *measures: str, **changes: Any) -> Prediction:
    return made(None, answers, *measures, error="broken: repair it", **changes)


def scored(predictions: list[Prediction], **options: Any) -> dict[str, Any]:
    return score_predictions(predictions, benchmark="b", **options)


def test_a_mean_with_a_failed_sample() -> None:
    """ANLS by hand: 1, 1 - 2/4 = 0.5, and 0 for what failed."""
    found = scored(
        [made("abcd", ["ABCD"], "anls"), made("abxx", ["abcd"], "anls"), failed(["x"], "anls")]
    )
    assert found["headline"] == {"metric": f"anls@{PAPER}", "value": 0.5}
    assert found["metrics"][f"anls@{PAPER}"] == {"value": 0.5, "num_scores": 3, "parts": {}}
    counts = [found[f"num_{what}"] for what in ("questions", "failed", "unparsed")]
    assert counts == [3, 1, 0]
    assert found["dialect"] == PAPER and found["benchmark"] == "b"
    assert found["not_in_dialect"] == {}
    strict = scored([made("abxx", ["abcd"], "anls")], dialect="strict")
    assert strict["headline"] == {"metric": "anls@strict", "value": 0.0}


def test_a_failed_sample_is_never_right() -> None:
    """An empty answer would be, where the gold is empty; a failure is no answer."""
    assert score("anls", "", [""]).value == 1.0
    assert scored([failed([""], "anls")])["headline"]["value"] == 0.0


def test_saved_scores_are_not_used() -> None:
    saved = {f"anls@{PAPER}": {"value": 1.0, "parts": {}}}
    assert scored([made("no", ["yes"], "anls", scores=saved)])["headline"]["value"] == 0.0


def test_a_measure_without_the_dialect_takes_its_own_and_says_so() -> None:
    found = scored([made("7", ["7"], "wtq_denotation")], dialect=LATER)
    assert found["headline"] == {"metric": "wtq_denotation@due", "value": 1.0}
    assert found["not_in_dialect"] == {"wtq_denotation": "due"}


def test_several_measures_and_groups() -> None:
    """TableVQA-Bench: the first measure of a question counts, each of the groups alike."""
    predictions = [
        made("5", "5", "tablevqa_wtq", group="vwtq"),
        made("6", "5", "tablevqa_wtq", group="vwtq"),
        made("8", "5", "tablevqa_wtq", group="vwtq"),
        made("8", "5", "tablevqa_wtq", group="vwtq"),
        made("true", "1", "tablevqa_tabfact", group="vtabfact"),
        made("34.2", "34.2%", "fintabnet_relieved", "fintabnet_exact", group="fintabnetqa"),
    ]
    found = scored(predictions, headline="mean_of_groups")
    assert found["headline"]["value"] == pytest.approx((1 / 4 + 1 + 1) / 3)
    assert found["headline"]["metric"] == "+".join(
        f"{name}@{PAPER}" for name in ("tablevqa_wtq", "tablevqa_tabfact", "fintabnet_relieved")
    )
    assert found["metrics"][f"fintabnet_exact@{PAPER}"]["value"] == 0.0
    assert found["metrics"][f"tablevqa_wtq@{PAPER}"]["parts"]["groups"] == {"vwtq": 0.25}
    assert scored(predictions)["headline"]["value"] == pytest.approx(3 / 6)


def test_a_row_that_could_not_be_read_counts_in_every_group() -> None:
    read = [made("5", "5", "tablevqa_wtq", group=group) for group in ("a", "b", "b")]
    found = scored([*read, failed(None, "tablevqa_wtq")], headline="mean_of_groups")
    assert found["headline"]["value"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scored([*read, failed(None, "tablevqa_wtq")])["headline"]["value"] == 0.75


ODD = [
    ("due_f1", [{"foo": 1}], {}),
    ("due_f1", [{"value": 1, "value_variants": None}], {}),
    ("due_f1", ["x"], {"document": ["a"]}),
    ("due_mean_f1", [{"values": 1}], {}),
    ("vcr_jaccard", 5, {}),
    ("pope", {"a": 1}, {}),
]


@pytest.mark.parametrize(("measure", "answers", "options"), ODD)
def test_what_cannot_be_scored_counts_as_one_missed(
    measure: str, answers: Any, options: dict[str, Any]
) -> None:
    """Whether the run has marked it as failed, or a dialect of `rescore` cannot read it."""
    golds = {"pope": "Yes", "due_mean_f1": ["a"]}.get(measure, ["a"])
    good = made("Yes" if measure == "pope" else "a", golds, measure)
    alone = scored([good])["headline"]["value"]
    both = scored([good, failed(answers, measure, options=options)])
    assert (both["num_failed"], both["num_questions"], alone) == (1, 2, 1.0)
    assert 0 < both["headline"]["value"] <= 1
    said = made("a", answers, measure, options=options)
    assert 0 <= scored([good, said])["headline"]["value"] <= 1


@pytest.mark.parametrize(("measure", "answers", "options"), ODD[:3])
def test_what_cannot_be_scored_is_counted(
    measure: str, answers: Any, options: dict[str, Any]
) -> None:
    """By hand: one field of two is found, nothing wrong is said."""
    odd = made("a", answers, measure, options=options, id="2")
    found = scored([made("a", ["a"], measure), odd])
    assert (found["num_failed"], found["headline"]["value"]) == (1, pytest.approx(2 / 3))
    with pytest.raises((KeyError, TypeError)):
        score_answer(made("a", answers, measure, options=options))


def test_rows_that_cannot_be_read_are_missed_one_by_one() -> None:
    """By hand: one field of three is found."""
    unread = [failed(None, "due_f1", id=f"row {number}") for number in (2, 3)]
    found = scored([made("a", ["a"], "due_f1"), *unread])
    assert found["headline"]["value"] == pytest.approx(1 / 2)
    assert found["metrics"]["due_f1@due"]["parts"]["false_negatives"] == 2


def test_a_judge_is_asked_for_by_its_measures() -> None:
    check_judge(["anls"], None)
    check_judge(["anls", "mmvet"], RecordedJudge(["1"]))
    with pytest.raises(UsageError, match="is graded by a language model: give --judge"):
        check_judge(["anls", "mmvet"], None)


def field(raw: str | None, gold: list[str], key: str, **changes: Any) -> Prediction:
    options = {"key": key, "document": "d"}
    return made(raw, gold, "due_f1", options=options, **changes)


def test_fields_are_pooled_and_a_failed_one_is_missed() -> None:
    """By hand: 2 predicted, 1 right, 3 gold."""
    predictions = [
        field("ACME", ["Acme"], "advertiser"),
        field("2", ["1"], "contract_num"),
        replace(field(None, ["12.00"], "gross_amount"), error="broken: repair it"),
    ]
    found = scored(predictions)
    precision, recall = 1 / 2, 1 / 3
    assert found["headline"]["value"] == pytest.approx(
        2 * precision * recall / (precision + recall)
    )
    parts = found["metrics"]["due_f1@due"]["parts"]
    assert (parts["true_positives"], parts["false_positives"], parts["false_negatives"]) == (
        1,
        1,
        2,
    )
    assert "documents" not in parts
    assert found["not_in_dialect"] == {"due_f1": "due"}
    unread = scored([field("ACME", ["Acme"], "advertiser"), failed(None, "due_f1")])
    assert unread["headline"]["value"] == pytest.approx(2 / 3)  # precision 1, recall 1/2


def test_blanks_are_pooled_and_those_of_a_failed_image_are_missed() -> None:
    predictions = [
        made("one two", ["one two"], "vcr_exact_match"),
        failed(["three", "four five", "six"], "vcr_exact_match"),
    ]
    found = scored(predictions)
    assert found["headline"]["value"] == 0.25
    assert found["metrics"][f"vcr_exact_match@{PAPER}"]["parts"]["num_blanks"] == 4


def test_pope_as_its_toolkit_counts() -> None:
    """Rows count once for each category; the value is F1, which unanswered rows lower."""
    predictions = [
        made("Yes", ["Yes"], "pope", group="adversarial,random"),
        made("no", ["No"], "pope", group="random"),
        made("Perhaps", ["Yes"], "pope", group="random"),
        failed(["Yes"], "pope", group="adversarial"),
    ]
    found = scored(predictions)
    # Spread: yes/yes twice, no/no, unknown/yes, failed/yes: precision 1, recall 2/4.
    assert found["headline"]["value"] == pytest.approx(2 / 3)
    assert found["num_unparsed"] == 2
    report = found["metrics"][f"pope@{PAPER}"]["parts"]["report"]
    assert report["random"]["recall"] == pytest.approx(50.0)
    assert found["metrics"][f"pope@{PAPER}"]["parts"]["num_unparsed"] == 2


@pytest.mark.parametrize("measure", ["pope", "vcr_jaccard", "vcr_exact_match", "anls", "due_f1"])
@pytest.mark.parametrize("dialect", ["lmms-eval", "vlmevalkit-2025.05", "due"])
def test_a_row_that_could_not_be_read_is_never_right(measure: str, dialect: str) -> None:
    found = scored([failed(None, measure), failed(None, measure)], dialect=dialect)
    assert found["headline"]["value"] == 0.0
    assert found["num_failed"] == 2


def test_answers_have_the_type_that_the_code_wants() -> None:
    """VTabFact's gold is a number for the official code, a text for VLMEvalKit."""
    one = made("it is true", ["1"], "tablevqa_tabfact")
    for dialect in (PAPER, "official"):
        assert scored([one], dialect=dialect)["headline"]["value"] == 1.0


def test_unparsed_choices_are_counted() -> None:
    options = {"options": {"A": "a cat", "B": "a dog"}}
    predictions = [made(raw, ["B"], "seed_choice", options=options) for raw in ("B", "what?", "A")]
    found = scored(predictions)
    assert found["num_unparsed"] == 1
    assert found["headline"]["value"] == pytest.approx(1 / 3)


def test_options_of_another_dialect_are_left_out() -> None:
    one = made("17", ["17 years"], "wtq_denotation", options={"target_canon": ["17.0"]})
    assert scored([one], dialect="official")["headline"]["value"] == 1.0
    assert scored([one], dialect="due")["headline"]["value"] == 0.0


def test_a_judge_is_replayed() -> None:
    """What it said is kept with the prediction, and the same grade comes of it."""
    asked = made("x = -1", ["-1<AND>-5"], "mmvet", question="What is x?")
    judge = RecordedJudge(["I think 0.5", "0.5"])
    first = score_answer(asked, PAPER, judge)[f"mmvet@{PAPER}"]
    assert first.value == 0.5
    kept = {first.metric: {"value": first.value, "parts": dict(first.parts)}}
    again = replace(asked, scores=json.loads(json.dumps(kept)))
    assert scored([again])["headline"]["value"] == 0.5
    with pytest.raises(InputError, match="No reply was recorded"):
        scored([again], dialect="lmms-eval")  # it asks in other words
    other = scored([again], dialect="lmms-eval", judge=RecordedJudge(["0.7 or so"]))
    assert other["headline"] == {"metric": "mmvet@lmms-eval", "value": 0.7}
    with pytest.raises(UsageError, match="give --judge a file of replies or an endpoint"):
        scored([asked])


def test_a_dialect_that_nobody_has() -> None:
    assert check_dialect("due") == "due"
    assert check_dialect(f"{PAPER}+pipeline")
    with pytest.raises(UsageError, match=r"did you mean 'vlmevalkit-2025\.05'\?"):
        check_dialect("vlmevalkit-2025.06")
    with pytest.raises(UsageError, match=r"use one of .*strict"):
        scored([made("a", ["a"], "anls")], dialect="mine")


def test_nothing_to_score() -> None:
    with pytest.raises(InputError, match="no predictions"):
        scored([])
    with pytest.raises(UsageError, match="no 'median'"):
        scored([made("a", ["a"], "anls")], headline="median")


def test_the_pipeline_eats_answers_in_its_dialect_only() -> None:
    one = made("n/a", ["n/a"], "anls")
    assert scored([one], dialect=PAPER)["headline"]["value"] == 1.0
    assert scored([one], dialect=f"{PAPER}+pipeline")["headline"]["value"] == 0.0


def test_the_version_is_of_the_code() -> None:
    assert len(scorers_version()) == 12
    assert scorers_version() == scorers_version()


MEASURES = st.sampled_from(["anls", "relaxed_accuracy", "exact_match", "pope", "vcr_jaccard"])


@given(
    measure=MEASURES,
    rows=st.lists(
        st.tuples(st.one_of(st.none(), st.text(max_size=8)), st.text(max_size=8),
                  st.sampled_from(["", "a", "b", "a,b"])),
        min_size=1, max_size=6,
    ),
    rule=st.sampled_from(["mean", "mean_of_groups"]),
)  # fmt: skip
def test_any_texts_give_a_fraction_whatever_their_order(
    measure: str, rows: list[tuple[str | None, str, str]], rule: str
) -> None:
    predictions = [
        failed([gold], measure, group=group) if raw is None
        else made(raw, [gold], measure, group=group)
        for raw, gold, group in rows
    ]  # fmt: skip
    found = scored(predictions, headline=rule)
    assert 0 <= found["headline"]["value"] <= 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    back = scored(predictions[::-1], headline=rule)
    assert back["headline"]["value"] == pytest.approx(found["headline"]["value"])
    if rule == "mean" and measure in ("anls", "relaxed_accuracy", "exact_match"):
        values = [
            0.0 if raw is None else score(measure, raw, [gold]).value for raw, gold, _ in rows
        ]
        assert found["headline"]["value"] == pytest.approx(sum(values) / len(values))


def test_single_scores_agree_with_aggregate() -> None:
    pairs = [("yes", "Yes"), ("no", "No"), ("yes", "No")]
    direct = aggregate([score("pope", said, [gold]) for said, gold in pairs])
    found = scored([made(said, [gold], "pope") for said, gold in pairs])
    assert found["headline"]["value"] == direct.value


def test_scoring_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "import alignvlm.evaluation.running.scoring, alignvlm.evaluation.running.folder\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
