"""What rows of a user's own file may not hold, and that nothing they may hold stops a run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignvlm.errors import InputError
from alignvlm.evaluation import metric_names
from alignvlm.evaluation.benchmarks import open_questions, own_benchmark
from alignvlm.evaluation.benchmarks.own_row import OPTIONS, ROW_MEASURES
from alignvlm.evaluation.question import Prediction, Question
from alignvlm.evaluation.running.scoring import score_predictions
from alignvlm.evaluation.scorers import MEASURES, RecordedJudge

GOOD = {"image": "page.png", "question": "Who?", "answers": ["Doe"], "metric": "anls"}
FIELD = GOOD | {"metric": "due_f1"}
TABLE = GOOD | {"metric": "wtq_denotation"}
LETTER = GOOD | {"metric": "seed_choice", "answers": ["A"], "choices": ["one", "two"]}
POPE = GOOD | {"metric": "pope", "answers": ["Yes"]}
FACT = GOOD | {"metric": "tablevqa_tabfact", "answers": [1]}
GRADED = GOOD | {"metric": "mmvet"}

BAD: list[tuple[dict[str, Any], str]] = [
    (GOOD | {"metric": "accuracy"}, r"the metric 'accuracy' \(did you mean 'exact_accuracy'\?\): "),
    (GOOD | {"metric": "beauty"}, r"the metric 'beauty': use one of anls, "),
    (GOOD | {"metric": "anls@strict"}, r"'anls@strict' \(did you mean 'anls'\?\): use one"),
    (GOOD | {"metric": ["anls"]}, r"has a metric that is a list: name one measure"),
    (GOOD | {"metric": 5}, r"has a metric that is a number: "),
    (GOOD | {"metric": "pope_corpus"}, r"'pope_corpus', which is of a whole set: use 'pope'"),
    (GOOD | {"metric": "mmvet_judge_parse"}, r"which is of a whole set: use 'mmvet'"),
    (GOOD | {"question": ""}, r"has no question: give it one"),
    (GOOD | {"question": " \n"}, r"has no question: give it one"),
    (GOOD | {"question": 5}, r"has a question that is a number: write it as text"),
    (GOOD | {"hint": ["x"]}, r"has a hint that is a list: "),
    (GOOD | {"group": {"a": 1}}, r"has a group that is an object: "),
    (GOOD | {"group": ["a", []]}, r"has a group that is a list: "),
    (GOOD | {"id": ["x"]}, r"has an id that is a list: "),
    (GOOD | {"answers": []}, r"has no answers: "),
    (GOOD | {"answers": None}, r"has no answers: "),
    (GOOD | {"answers": {"a": 1}}, r"has an answer that is an object: give a text or a number"),
    (GOOD | {"answers": ["a", None]}, r"has an answer that is null: "),
    (GOOD | {"answers": [True]}, r"has an answer that is true: "),
    (GOOD | {"answers": [["a"]]}, r"has an answer that is a list: "),
    (GOOD | {"answers": [float("nan")]}, r"has an answer that is no finite number: "),
    (GOOD | {"options": [1]}, r"has options that are no object: "),
    (GOOD | {"options": {"key": "k"}}, r"option 'key', which 'anls' does not take .*: leave it"),
    (GOOD | {"options": {"": "k"}}, r"option '', which 'anls' does not take .*: leave it out"),
    (GOOD | {"metric": "relaxed_accuracy", "options": {"judge": 1}}, r"option 'judge', which"),
    (GOOD | {"choices": "A, B"}, r"has choices that are no list: "),
    (GOOD | {"choices": ["a", None]}, r"has a choice that is null: "),
    (FIELD | {"options": {"documnet": "7"}}, r"'documnet' \(did you mean 'document'\?\), which"),
    (FIELD | {"options": {"foo": 1}}, r"option 'foo', which 'due_f1' .*: use key and document"),
    (FIELD | {"options": {"key": 5}}, r"has an option key that is a number: write it as text"),
    (FIELD | {"options": {"key": None}}, r"has no option key: give it one"),
    (FIELD | {"options": {"key": "k", "document": [1]}}, r"option document that is a list: "),
    (FIELD | {"options": "x"}, r"has options that are no object: "),
    (FIELD | {"answers": [{"foo": 1}]}, r"an answer with the field 'foo': give `value`"),
    (FIELD | {"answers": [{"value": "a", "value_variant": []}]}, r"mean 'value_variants'\?"),
    (FIELD | {"answers": [{"value_variants": ["a"]}]}, r"an object without `value`: "),
    (FIELD | {"answers": [{"value": None}]}, r"has a value that is null: "),
    (FIELD | {"answers": [{"value": 1, "value_variants": None}]}, r"`value_variants` .* null: "),
    (FIELD | {"answers": [{"value": 1, "value_variants": [[]]}]}, r"has a value variant that is a"),
    (FIELD | {"metric": "due_mean_f1", "answers": [{"foo": 1}]}, r"the field 'foo': "),
    (TABLE | {"options": {"separator": 5}}, r"option separator that is a number: "),
    (TABLE | {"options": {"separator": ""}}, r"has no option separator: "),
    (TABLE | {"options": {"target_canon": "Doe"}}, r"target_canon that is no list of texts: "),
    (TABLE | {"options": {"target_canon": [2.5]}}, r"target_canon that is no list of texts: "),
    (TABLE | {"options": {"target_canon": ["a", "b"]}}, r"has 1 answers and 2 texts .*: "),
    (LETTER | {"choices": None}, r"has no choices, which 'seed_choice' needs: add them"),
    (LETTER | {"choices": ["a"] * 27}, r"has choices that are no list: give at most 26"),
    (LETTER | {"choices": {"a": "x"}}, r"has choices by other names than A to Z: "),
    (LETTER | {"answers": ["one"]}, r"has the answer 'one', which is none of A, B: "),
    (LETTER | {"options": {"options": "x"}}, r"option 'options', which 'seed_choice' does not"),
    (LETTER | {"metric": "mmmu_choice", "answers": ["C"]}, r"'C', which is none of A, B: "),
    (POPE | {"answers": ["ok"]}, r"the answer 'Ok', which is none of Yes, No: "),
    (POPE | {"answers": ["yes", "no"]}, r"has 2 answers where 'pope' takes one: "),
    (FACT | {"answers": ["true"]}, r"'True', which is none of 1, 0: "),
    (FACT | {"metric": "fintabnet_exact", "answers": [1, 2]}, r"'fintabnet_exact' takes one: "),
    (GRADED | {"options": {"judge": "x"}}, r"option 'judge', which 'mmvet' does not take"),
    (GRADED | {"answers": ["a", "b"]}, r"has 2 answers where 'mmvet' takes one: "),
]  # fmt: skip

ODD: list[dict[str, Any]] = [
    GOOD | {"answers": [5, "5", ""], "group": 5, "id": 77, "hint": ""},
    GOOD | {"answers": ["\ud800", "é" * 9], "group": "a,b,,", "options": {}},
    GOOD | {"answer": 7.5, "answers": None, "metric": "relaxed_accuracy"},
    GOOD | {"answers": "ok", "metric": "vqa_soft_accuracy"},
    GOOD | {"answers": [5], "metric": "exact_match"},
    GOOD | {"answers": [5], "metric": "exact_accuracy"},
    GOOD | {"answers": [5, "x"], "metric": "mmmu_open"},
    GOOD | {"answers": [1], "metric": "vcr_exact_match"},
    GOOD | {"answers": [1, ""], "metric": "vcr_jaccard", "question": "{x} <image> {question}"},
    GOOD | {"answers": ["a|b", 5], "metric": "tablevqa_wtq"},
    GOOD | {"answers": [5], "metric": "fintabnet_relieved"},
    GOOD | {"answers": [""], "metric": "fintabnet_exact"},
    FIELD | {"answers": [5, {"value": 5, "value_variants": [5.0, "five"]}]},
    FIELD | {"options": {"key": "k"}},
    FIELD | {"metric": "due_mean_f1", "options": {"key": "k", "document": "d"}},
    TABLE | {"options": {"target_canon": [""]}},
    TABLE | {"answers": [5, "a"], "options": {"target_canon": ["5", "a"], "separator": "|"}},
    LETTER,
    LETTER | {"metric": "mmmu_choice", "choices": {"A": 1, "C": 2.5}},
    POPE | {"answers": " yes "},
    FACT,
    FACT | {"answers": "0"},
    GRADED,
]


def opened(folder: Path, row: dict[str, Any], bench_write: Any) -> Any:
    (folder / "page.png").write_bytes(bench_write.png())
    return open_questions(
        own_benchmark(bench_write.lines(folder / "mine.jsonl", [GOOD | {"id": "first"}, row]))
    )


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_told_in_a_sentence(
    row: dict[str, Any], message: str, tmp_path: Path, bench_write: Any
) -> None:
    questions = opened(tmp_path, row, bench_write)
    assert questions[0].text == "Who?"
    with pytest.raises(InputError) as caught:
        questions[1]
    text = str(caught.value)
    start = f"Row 2 of '{tmp_path / 'mine.jsonl'}' ha"
    assert text.startswith(start)
    assert re.search(message, text)
    assert re.search(r": \w", text[len(start) :])


def predicted(question: Question, raw: str | None) -> Prediction:
    return Prediction(
        id=question.id,
        group=question.group,
        question=question.text,
        prompt="",
        prompt_sha256="",
        answers=json.loads(json.dumps(question.answers)),
        options=json.loads(json.dumps(question.options)),
        measures=question.measures,
        raw=raw,
        scores={},
        tokens=None,
        complete=True,
        error=None if raw is not None else "It failed",
        seconds=0.0,
    )


DIALECTS = sorted({name.partition("@")[2] for name in metric_names()})


@pytest.mark.parametrize("row", ODD)
def test_what_is_taken_is_scored_in_every_dialect(
    row: dict[str, Any], tmp_path: Path, bench_write: Any
) -> None:
    question = opened(tmp_path, row, bench_write)[1]
    assert question.measures == (row["metric"],)
    predictions = [predicted(question, raw) for raw in ("A", "5", "", "yes true", None)]
    for dialect in DIALECTS:
        found = score_predictions(
            predictions, benchmark="mine", headline="mean", dialect=dialect,
            judge=RecordedJudge(["0.5"]),
        )  # fmt: skip
        assert 0 <= found["headline"]["value"] <= 1
        assert found["num_questions"] == 5


def test_answers_are_what_the_scorers_compare_with(tmp_path: Path, bench_write: Any) -> None:
    for row, answers in (
        (POPE | {"answers": "no"}, ["No"]),
        (FACT | {"answers": 0}, ["0"]),
        (GOOD | {"answers": 12}, [12]),
    ):
        assert opened(tmp_path, row, bench_write)[1].answers == answers


def test_options_are_those_of_the_scorers() -> None:
    given = {"options", "question", "judge"}  # by the row's choices and text, and by --judge
    for measure in ROW_MEASURES:
        taken = {
            name
            for scorer in MEASURES[measure].values()
            for name in list(inspect.signature(scorer).parameters)[2:]
        }
        assert taken - given == set(OPTIONS.get(measure, ()))
